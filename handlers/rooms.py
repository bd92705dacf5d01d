"""Rooms: which channel a path means, who is asking, and what is shared by all handlers of streams and publishes.

Owns the paths of the two general-purpose endpoints and the opening of channels on demand. Must never know of Tornado.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from handlers.answers import Refused
from handlers.cors import Origins
from server.admission import Admission
from server.auth import PARAMETER, Authenticator, AuthError, Principal
from server.channel import Channel, Policy
from server.endings import FORBIDDEN, NOT_FOUND
from server.exchange import Request
from server.hub import Hub
from server.peers import Peers
from server.selection import Selection
from server.selectors import Selector

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
            raise _refused(error) from None

    def check_readable(self, name: str, principal: Principal, channel: Channel | None) -> None:
        """Raise Refused for a token without rights on a channel that is not for everybody: to it, it is not there."""
        if name == MAIN or self._open(principal.rights(name).subscribe):
            return
        if not (channel.policy if channel is not None else self.policy(name)).anonymous:
            raise Refused(NOT_FOUND, "channel", f"there is no channel {name}")

    def check_revoked(self, marks: Sequence[str], selection: Selection) -> Selection:
        """What is left of a selection whose holder carries these marks: a grant that names a closed topic counts for
        nothing. Raises Refused for who names one in what is selected, and for who was revoked since it was
        authenticated."""
        if not self.authenticator.revocations:
            return selection
        try:
            self.authenticator.check_revoked(marks)
        except AuthError as error:
            raise _refused(error) from None
        if any(self.authenticator.is_closed(selector.text) for selector in selection.topics or ()):
            raise Refused(FORBIDDEN, "topic", "is revoked", challenge='Bearer error="insufficient_scope"')
        grants = selection.grants or ()
        left = self._open(grants)
        return selection if len(left) == len(grants) else selection.with_grants(left)

    def _open(self, grants: tuple[Selector, ...]) -> tuple[Selector, ...]:
        """Those that name no closed topic."""
        if not self.authenticator.revocations:
            return grants
        return tuple([grant for grant in grants if not self.authenticator.is_closed(grant.text)])

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


def _refused(error: AuthError) -> Refused:
    return Refused(error.ending, error.field, error.reason, challenge=error.challenge)
