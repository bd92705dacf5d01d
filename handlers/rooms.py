"""Rooms: which channel a path means, who is asking, and what is shared by all handlers of streams and publishes.

Owns the paths of the two general-purpose endpoints and the opening of channels on demand. Must never know of Tornado.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from handlers.answers import Refused
from handlers.cors import Origins
from server.admission import Admission
from server.auth import PARAMETER, Authenticator, AuthError, Principal
from server.channel import Channel, Policy
from server.endings import NOT_FOUND
from server.exchange import Request
from server.hub import Hub
from server.peers import Peers

MERCURE_PATH = "/.well-known/mercure"
MAIN = "main"
CHANNEL_PATH = re.compile(r"/channels/([a-z][a-z0-9_-]{0,63})/events")


@dataclass(slots=True)
class Rooms:
    """See the module's head."""

    hub: Hub
    admission: Admission
    authenticator: Authenticator
    origins: Origins
    peers: Peers
    policy: Callable[[str], Policy]
    open_channels: bool

    def channel_name(self, path: str) -> str:
        """The channel that a path means. Raises Refused if none."""
        if path == MERCURE_PATH:
            return MAIN
        found = CHANNEL_PATH.fullmatch(path)
        if found is None:
            raise Refused(NOT_FOUND, reason="a channel's name is [a-z][a-z0-9_-]{0,63}")
        return found[1]

    def authenticate(self, request: Request, token_parameter: str = PARAMETER) -> Principal:
        """Who is asking. Raises Refused."""
        try:
            return self.authenticator.authenticate(request, token_parameter)
        except AuthError as error:
            raise Refused(error.ending, error.field, error.reason, challenge=error.challenge) from None

    def check_readable(self, name: str, principal: Principal, channel: Channel | None) -> None:
        """Raise Refused for a token without rights on a channel that is not for everybody: to it, it is not there."""
        if name == MAIN or principal.rights(name).subscribe:
            return
        if not (channel.policy if channel is not None else self.policy(name)).anonymous:
            raise Refused(NOT_FOUND, "channel", f"there is no channel {name}")

    def check_openable(self, name: str, principal: Principal) -> None:
        """Raise Refused unless this principal, who has rights on the channel, may bring it into being."""
        rights = principal.rights(name)
        if not (self.open_channels and (rights.publish or rights.subscribe) and self.hub.may_open(name)):
            raise Refused(NOT_FOUND, "channel", f"there is no channel {name}")

    async def open(self, name: str) -> Channel:
        """The channel, opened if need be. Raises Refused, RelayUnavailable."""
        try:
            return await self.hub.open(name)
        except KeyError:
            raise Refused(NOT_FOUND, "channel", f"there is no channel {name}") from None
