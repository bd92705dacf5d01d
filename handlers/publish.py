"""Publishing: from a POST to an acknowledged event, or a refusal. Used by the front door and by the Tornado handlers
alike.

Owns the order of the checks (docs/protocol.md) and the answers of the two publishing endpoints. Must never know which
way the request came in. Cost: about 30 microseconds for a small form, without relay and delivery.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Sequence

from handlers.answers import COMMON_HEADERS, Refused, bad, json_response, missing_grant, missing_token
from handlers.batch import parse_events
from handlers.mercure import FORM_TYPE, check_main, make_event, parse_publish
from handlers.rooms import MAIN, MERCURE_PATH, Rooms
from server.auth import ANONYMOUS, Principal, Rights
from server.channel import Channel
from server.endings import BAD_REQUEST, UNAVAILABLE, UNCERTAIN
from server.event import Event, InvalidEvent
from server.exchange import Request, Response
from server.ids import parse_id
from server.relay.protocol import Appended, Key, KeyConflict, RelayUnavailable, RelayUncertain

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Publisher:
    """Publishes what requests bring. `max_body_bytes` and `max_events` bound one request."""

    def __init__(self, rooms: Rooms, *, max_body_bytes: int, max_events: int) -> None:
        self._rooms = rooms
        self.max_body_bytes = max_body_bytes
        self._max_events = max_events

    def publish(self, request: Request) -> Response | Awaitable[Response]:
        """The answer, at once if the relay allows. Raises Refused, or the awaitable does."""
        rooms = self._rooms
        principal = self.check_head(request, len(request.body))
        name = rooms.channel_name(request.path)
        events = self._events(request, principal.rights(name), main=name == MAIN)
        key = self._key(request, principal)
        channel = rooms.hub.channels.get(name)
        if channel is None:
            rooms.check_openable(name, principal)
            return self._publish_to_new(name, events, key, request)
        return self._publish_to(channel, events, key, request)

    def check_head(self, request: Request, body_bytes: int) -> Principal:
        """Who publishes. What can be told before the body has come; its size is what is known of it. Raises Refused."""
        self._rooms.origins.check(request)
        principal = self._rooms.authenticate(request)
        if principal is ANONYMOUS:
            raise missing_token()
        if body_bytes > self.max_body_bytes:
            raise bad("", f"the body is larger than {self.max_body_bytes} bytes", too_large=True)
        return principal

    async def _publish_to_new(self, name: str, events: Sequence[Event], key: Key | None, request: Request) -> Response:
        try:
            channel = await self._rooms.open(name)
        except RelayUnavailable as error:
            raise Refused(UNAVAILABLE, reason=error.reason) from None
        answer = self._publish_to(channel, events, key, request)
        return answer if isinstance(answer, Response) else await answer

    def _publish_to(
        self, channel: Channel, events: Sequence[Event], key: Key | None, request: Request
    ) -> Response | Awaitable[Response]:
        for event in events:
            self._check_own_id(event, channel)
        try:
            appended = self._rooms.hub.publish(channel, events, key)
        except (InvalidEvent, RelayUnavailable, KeyConflict) as error:
            raise _refused(error) from None
        return (
            _acknowledge(appended, request)
            if isinstance(appended, Appended)
            else self._acknowledge_later(appended, request)
        )

    @staticmethod
    async def _acknowledge_later(appended: Awaitable[Appended], request: Request) -> Response:
        try:
            return _acknowledge(await appended, request)
        except (InvalidEvent, RelayUnavailable, KeyConflict) as error:
            raise _refused(error) from None

    def _events(self, request: Request, rights: Rights, *, main: bool) -> Sequence[Event]:
        """The events of the body, all of them granted and valid."""
        media_type = request.headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        if request.path == MERCURE_PATH:
            if media_type != FORM_TYPE:
                raise bad("Content-Type", f"must be {FORM_TYPE}")
            form = parse_publish(request.body)
            if not rights.may_publish(form.topics):
                raise missing_grant("the token does not grant publishing to these topics")
            return (make_event(form),)
        events = parse_events(media_type, request.body, self._max_events)
        if main:
            for event in events:
                check_main(event)
        if not all(rights.may_publish(event.topics) for event in events):
            raise missing_grant("the token does not grant publishing to these topics")
        return events

    @staticmethod
    def _check_own_id(event: Event, channel: Channel) -> None:
        """An id of the server's form in this epoch is a claim to a place in the log."""
        if event.id is not None:
            parsed = parse_id(event.id)
            if parsed is not None and parsed[0] == channel.epoch:
                raise bad("id", "has the form of the server's own ids")

    @staticmethod
    def _key(request: Request, principal: Principal) -> Key | None:
        text = request.header(b"idempotency-key")
        if text is None:
            return None
        if not _KEY.fullmatch(text):
            raise bad("Idempotency-Key", "must be 1 to 255 visible ASCII characters")
        digest = hashlib.blake2b(request.path.encode() + b"\0" + request.body, digest_size=16).digest()
        return Key(principal.scope, text, digest)


def _acknowledge(appended: Appended, request: Request) -> Response:
    if request.path == MERCURE_PATH:
        response = Response(200, appended.ids[0].encode(), "text/plain; charset=utf-8", list(COMMON_HEADERS))
    else:
        response = json_response({"ids": appended.ids})
    if appended.replayed:
        response.headers.append(("Idempotency-Replayed", "true"))
    return response


def _refused(error: InvalidEvent | RelayUnavailable | KeyConflict) -> Refused:
    if isinstance(error, InvalidEvent):
        return bad(error.field, error.reason, too_large=error.too_large)
    if isinstance(error, RelayUncertain):
        return Refused(
            UNCERTAIN, reason=f"{error.reason}; the event may be published: try again with an Idempotency-Key"
        )
    if isinstance(error, RelayUnavailable):
        return Refused(UNAVAILABLE, reason=error.reason)
    return Refused(BAD_REQUEST, "Idempotency-Key", "was used with another request", status=409, code="conflict")
