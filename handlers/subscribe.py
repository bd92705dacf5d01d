"""Subscribing: from a streaming GET to a Subscription, or a refusal. Used by the front door and by the Tornado handler
alike.

Owns the parameters of streams and the order of the checks: origin, token, parameters, channel, rights, limits. Must
never know which way the request came in. Cost: for a URL seen before, a few microseconds: parsed parameters are kept
for the 4,096 latest URLs (short ones, and never those that carry a token).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from urllib.parse import unquote

from handlers.answers import Refused, bad, missing_token
from handlers.fields import REGION_NAMES, decoded, parse_last, parse_query, parse_region
from handlers.rooms import MERCURE_PATH, Rooms
from handlers.streams import Admitted, StreamCall, StreamRoute, Streams
from server.auth import ANONYMOUS
from server.exchange import Request
from server.frames import Encoding
from server.opening import Subscription
from server.region import Region
from server.selection import Selection
from server.selectors import MAX_SELECTOR_BYTES, InvalidSelector, Selector, exact_selector, parse_selector

MAX_SELECTORS = 100
# In all templates together: an event with the longest topic then costs a subscription about a millisecond at the worst.
MAX_PATTERN_BYTES = MAX_SELECTOR_BYTES
# Of a URL whose parameters are kept: the worst 4,096 of any kind would take 60 MB, of this kind less than 20.
MAX_KEPT_CHARACTERS = 512
MAX_KEPT_PARAMETERS = 8
CURSOR_NAMES = ("last_event_id", "lastEventID", "lastEventId", "Last-Event-ID")


class Wanted:
    """The parameters of a stream. `topics` None: all. `cursor` None: no cursor parameter."""

    __slots__ = ("_selections", "cursor", "last", "region", "topics", "types")

    def __init__(
        self,
        topics: frozenset[Selector] | None,
        types: frozenset[str] | None,
        cursor: str | None,
        last: int,
        region: Region | None,
    ) -> None:
        self.topics = topics
        self.types = types
        self.cursor = cursor
        self.last = last
        self.region = region
        self._selections: dict[bool, Selection] = {}

    def selection(self, grants: tuple[Selector, ...]) -> Selection:
        """The selection of a holder of these grants; the two common ones (all, none) are made once per URL."""
        every = any(grant.any for grant in grants)
        if grants and not every:
            return Selection(self.topics, self.types, grants, self.region)
        found = self._selections.get(every)
        if found is None:
            found = self._selections[every] = Selection(self.topics, self.types, None if every else (), self.region)
        return found


def parse_wanted(query: str, mercure: bool) -> Wanted:
    """Read the parameters. Raises Refused."""
    topics: list[Selector] = []
    types: list[str] = []
    cursors: dict[str, str] = {}
    place: dict[str, str] = {}
    last = pattern_bytes = 0
    for name, value in parse_query(query):
        if name == "topic":
            topics.append(_selector(name, decoded(name, value), template=True))
            pattern_bytes += topics[-1].pattern_bytes
        elif mercure and name[:5].lower() == "match":
            if name not in ("match", "match_exact"):
                raise bad(name, "is not a matcher that is supported: use match or match_exact")
            topics.append(_selector(name, decoded(name, value), template=False))
        elif name in CURSOR_NAMES:  # a cursor may be anything; what is not UTF-8 is found nowhere
            cursors.setdefault(name, value.decode("utf-8", "replace"))
        elif name == "type" and not mercure:
            types.append(decoded(name, value))
        elif name == "last" and not mercure:
            last = parse_last(decoded(name, value))
        elif name in REGION_NAMES and not mercure:
            if name in place:
                raise bad(name, "may be given once")
            place[name] = decoded(name, value)
        if len(topics) > MAX_SELECTORS or len(types) > MAX_SELECTORS:
            raise bad(name, f"at most {MAX_SELECTORS}")
        if pattern_bytes > MAX_PATTERN_BYTES:
            raise bad(name, f"templates may have {MAX_PATTERN_BYTES} bytes in all, each from its first expression on")
    if mercure and not topics:
        raise bad("topic", 'at least one "topic" or "match" is needed')
    cursor = next((cursors[name] for name in CURSOR_NAMES if cursors.get(name)), "" if cursors else None)
    return Wanted(_united(topics), frozenset(types) or None, cursor, last, parse_region(place))


_parse_wanted_again = lru_cache(4_096)(parse_wanted)


def _may_be_kept(query: str) -> bool:
    """True for a query that is short and holds no token, however its name is spelled."""
    if len(query) > MAX_KEPT_CHARACTERS or query.count("&") >= MAX_KEPT_PARAMETERS:
        return False
    return "authorization" not in (unquote(query) if "%" in query else query)


def _united(topics: Sequence[Selector]) -> frozenset[Selector] | None:
    """None (all) if any selector is `*`, so that such selections are equal."""
    return None if not topics or any(selector.any for selector in topics) else frozenset(topics)


def _selector(name: str, value: str, *, template: bool) -> Selector:
    try:
        return parse_selector(value) if template else exact_selector(value)
    except InvalidSelector as error:
        raise bad(name, error.reason) from None


class Subscriber:
    """Admits or refuses streaming requests."""

    def __init__(self, rooms: Rooms, streams: Streams | None = None) -> None:
        self._rooms = rooms
        self._streams = streams or Streams()

    def subscribe(self, request: Request) -> Subscription | None:
        """The subscription, or None if something has to be waited for (`subscribe_later`). Raises Refused."""
        found = self._streams.find(request.path)
        if found is not None:
            route, arguments = found
            if route.waits:
                return None
            call, origin = self._call(request, route, arguments)
            admitted = route.admit(call)
            if admitted is None:
                return None
            assert isinstance(admitted, Admitted)
            return self._subscription(route, call, admitted, origin)
        rooms = self._rooms
        origin = rooms.origins.check(request)
        principal = rooms.authenticate(request)
        name = rooms.channel_name(request.path)
        channel = rooms.hub.channels.get(name)
        if principal is ANONYMOUS and not (
            rooms.policy(name).anonymous if channel is None else channel.policy.anonymous
        ):
            raise missing_token()
        parse = _parse_wanted_again if _may_be_kept(request.query) else parse_wanted
        wanted = parse(request.query, request.path == MERCURE_PATH)
        rooms.check_readable(name, principal, channel)
        if channel is None:
            rooms.check_openable(name, principal)
            return None
        selection = rooms.check_revoked(principal.marks, wanted.selection(principal.rights(name).subscribe))
        remote = rooms.peers.address(request.remote, request.headers.get(b"x-forwarded-for"))
        refusal = rooms.admission.refusal(remote, principal.subject)
        if refusal is not None:
            raise Refused(refusal)
        return Subscription(
            channel,
            selection,
            self._cursor(request, wanted.cursor),
            wanted.last,
            principal.subject,
            principal.expires,
            origin,
            remote,
            Encoding.PLAIN if request.http_1_0 else Encoding.CHUNKED,
            principal.marks,
        )

    async def subscribe_later(self, request: Request) -> Subscription:
        """As `subscribe`, waiting for what it takes. Raises Refused, RelayUnavailable."""
        found = self._streams.find(request.path)
        if found is not None:
            route, arguments = found
            call, origin = self._call(request, route, arguments)
            admitted = route.admit(call)
            if admitted is None:
                assert route.admit_later is not None
                admitted = route.admit_later(call)
            admitted = admitted if isinstance(admitted, Admitted) else await admitted
            return self._subscription(route, call, admitted, origin)
        subscription = self.subscribe(request)
        if subscription is None:
            await self._rooms.open(self._rooms.channel_name(request.path))
            subscription = self.subscribe(request)
        assert subscription is not None
        return subscription

    def _call(
        self, request: Request, route: StreamRoute, arguments: Mapping[str, str]
    ) -> tuple[StreamCall, str | None]:
        """What an application has to judge, and the allowed origin. Raises Refused."""
        rooms = self._rooms
        origin = rooms.origins.check(request)
        principal = rooms.authenticate(request, route.token_parameter)
        if not route.own_rules:
            channel = rooms.hub.channels[route.channel]
            if principal is ANONYMOUS and not channel.policy.anonymous:
                raise missing_token()
            rooms.check_readable(route.channel, principal, channel)
        parameters: dict[str, str] = {}
        for name, value in parse_query(request.query):
            if name in CURSOR_NAMES:
                parameters.setdefault(name, value.decode("utf-8", "replace"))
            else:
                parameters.setdefault(name, decoded(name, value))
        return StreamCall(request, arguments, parameters, principal), origin

    def _subscription(
        self, route: StreamRoute, call: StreamCall, admitted: Admitted, origin: str | None
    ) -> Subscription:
        rooms, request, principal = self._rooms, call.request, admitted.principal
        selection = rooms.check_revoked(principal.marks, admitted.selection)  # admission may have taken its time
        remote = rooms.peers.address(request.remote, request.headers.get(b"x-forwarded-for"))
        refusal = rooms.admission.refusal(remote, principal.subject)
        if refusal is not None:
            raise Refused(refusal)
        named = [call.parameters[name] for name in CURSOR_NAMES if name in call.parameters]
        return Subscription(
            rooms.hub.channels[route.channel],
            selection,
            self._cursor(request, next((cursor for cursor in named if cursor), "" if named else None)),
            admitted.last,
            principal.subject,
            principal.expires,
            origin,
            remote,
            Encoding.PLAIN if request.http_1_0 else Encoding.CHUNKED,
            principal.marks,
            admitted.greeting,
            admitted.look_again,
        )

    @staticmethod
    def _cursor(request: Request, parameter: str | None) -> str | None:
        """The header, if it is not empty, else the parameter; "" if either was given empty."""
        header = request.headers.get(b"last-event-id")
        if header:
            # A browser sends the UTF-8 bytes of the id. What is no UTF-8 is no id of ours: it stays as it is and is
            # found nowhere.
            return header.decode("utf-8", "replace")
        return parameter if header is None else parameter or ""
