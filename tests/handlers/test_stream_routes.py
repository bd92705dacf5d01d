"""Streams of applications, from socket to socket: through the door, and through Tornado where admission has to wait."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest
import structlog

from config.settings import Settings
from handlers.answers import Refused, bad
from handlers.cors import Origins
from handlers.endpoints import not_found
from handlers.response_cache import ResponseCache
from handlers.rooms import Rooms
from handlers.streams import Admitted, StreamCall, StreamRoute, Streams
from server.auth import Authenticator
from server.cluster import Cluster
from server.endings import FINISHED
from server.event import Event
from server.node import Limits, Node
from server.peers import Peers
from server.relay.memory import MemoryRelay
from server.selection import Selection
from server.selectors import exact_selector
from server.serving import Front, policy_of
from server.sockets import listen_tcp
from tests.handlers.lodge import KEYED, ORIGIN, bearer, token
from tests.harness.stream import Block, Stream

SHOP = "shop"
PATH = "/api/stream/things/{id}"
T = TypeVar("T")
WAYS = pytest.mark.parametrize("waiting", [False, True], ids=["door", "tornado"])


class Admission:
    """Admits to the things that are there, and tells what it was asked."""

    def __init__(self) -> None:
        self.calls: list[StreamCall] = []
        self.finished: set[str] = set()
        self.state: str | None = None
        self.last = 0
        self.error: Exception | None = None
        self.topics: Callable[[str], list[str]] = lambda thing: [f"things/{thing}"]

    def admit(self, call: StreamCall) -> Admitted:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        thing = call.arguments.get("id", "region")
        if thing == "none":
            raise not_found("id", "there is no such thing")
        if thing in self.finished:
            raise Refused(FINISHED)
        if "radius" in call.parameters and not call.parameters["radius"].isdigit():
            raise bad("radius", "must be a number")
        selectors = frozenset(map(exact_selector, self.topics(thing)))
        selection = Selection(selectors, None, call.principal.rights(SHOP).subscribe)
        state = self.state
        greeting = None if state is None else lambda: f"event: state\ndata: {state}\n\n".encode()
        return Admitted(selection, call.principal, self.last, greeting)

    async def admit_later(self, call: StreamCall) -> Admitted:
        await asyncio.sleep(0)
        return self.admit(call)


class House:
    """A node with one stream of an application, and what clients meet of it."""

    def __init__(self, settings: Settings, waiting: bool, **route: Any) -> None:
        self.admission = Admission()
        route = {"own_rules": True} | route
        admit: Any = self.admission.admit_later if waiting else self.admission.admit
        routes = [StreamRoute(path, SHOP, admit, "Things.", **route) for path in (PATH, "/api/stream/things/region")]
        relay = MemoryRelay(120, 1000)
        limits = Limits(100, max_connections_per_subject=settings.max_connections_per_subject)

        def policy(name: str) -> Any:
            return policy_of(settings, name)

        self.node = Node(relay, policy, limits)
        rooms = Rooms(
            self.node.hub,
            self.node.admission,
            Authenticator(settings),
            Origins(settings.allowed_origins, development=settings.development),
            Peers(settings.trusted_proxies),
            policy,
            settings.open_channels,
        )
        node = self.node
        self.cluster = Cluster(None, node.broadcaster, rooms.authenticator.revocations, node.presence)
        applications = SimpleNamespace(streams=routes, endpoints=[], cache=ResponseCache())
        self.front = Front(settings, node, self.cluster, rooms, cast(Any, applications))
        self.streams: list[Stream] = []

    async def start(self) -> None:
        await self.node.start(["main", SHOP])
        listener = listen_tcp("127.0.0.1", 0, send_buffer_bytes=0, receive_buffer_bytes=0, user_timeout_seconds=5)
        self.port = listener.getsockname()[1]
        self.front.door.listen(listener)

    async def stop(self) -> None:
        for stream in self.streams:
            stream.close()
        self.front.door.stop_listening()
        await self.node.drain(0)
        await self.front.finish()
        await self.node.stop()

    async def open(self, path: str = "/api/stream/things/1", **headers: str) -> Stream:
        """A client's stream, opened in a thread."""
        headers = {"Host": f"localhost:{self.port}"} | headers
        stream = await asyncio.to_thread(lambda: Stream(self.port, path, **cast(Any, headers)))
        self.streams.append(stream)
        return stream

    async def refusal(self, path: str, **headers: str) -> tuple[int, Any]:
        """The status and the JSON that an API client gets."""
        stream = await self.open(path, Accept="application/json", **headers)
        body = await asyncio.to_thread(stream.body)
        return stream.status, json.loads(body) if body else None

    async def publish(self, *texts: str, topic: str = "things/1", **options: Any) -> str:
        """The id of the last."""
        answer = self.node.hub.publish(
            self.node.hub.channels[SHOP], [Event((topic,), text, **options) for text in texts]
        )
        appended = await answer if isinstance(answer, Awaitable) else answer
        return appended.ids[-1]

    def finish(self, topic: str = "things/1") -> None:
        self.node.finisher.finish(self.node.hub.channels[SHOP], topic, asyncio.get_running_loop().time())


@contextlib.asynccontextmanager
async def house(waiting: bool, settings: dict[str, Any] | None = None, **route: Any) -> AsyncIterator[House]:
    built = House(Settings(**settings or {}), waiting, **route)
    await built.start()
    try:
        yield built
    finally:
        await built.stop()


def run(work: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(limited())


async def reads(stream: Stream, count: int) -> list[str | None]:
    """The data of the next events but `hello`."""
    return [block.data for block in await asyncio.to_thread(stream.events, count)]


async def to_the_end(stream: Stream) -> list[Block]:
    """The events that are left, but `hello`."""
    blocks = await asyncio.to_thread(stream.wait_end)
    return [block for block in blocks if block.data is not None and block.type != "hello"]


# --- admission


@WAYS
def test_a_stream_has_what_its_application_selects(waiting: bool) -> None:
    async def main() -> None:
        async with house(waiting) as one:
            stream = await one.open()
            assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
            hello = await asyncio.to_thread(stream.next_event)
            assert hello.type == "hello"
            await one.publish("other", topic="things/2")
            await one.publish("mine", type="changed")
            event = await asyncio.to_thread(stream.next_event)
            assert (event.type, event.data) == ("changed", "mine")

    run(main())


@WAYS
def test_admission_is_told_arguments_parameters_and_who_asks(waiting: bool) -> None:
    async def main() -> None:
        async with house(waiting, KEYED) as one:
            await one.open("/api/stream/things/a%20%C3%A9?q=x+y&q=z&last_event_id=%ff", **bearer(sub="me"))
            [call] = one.admission.calls
            assert call.arguments == {"id": "a é"}
            assert call.parameters == {"q": "x y", "last_event_id": "\ufffd"}
            assert call.principal.subject == "me"
            await one.open("/api/stream/things/region?radius=5")
            assert (one.admission.calls[-1].arguments, one.admission.calls[-1].parameters) == ({}, {"radius": "5"})
            assert not one.admission.calls[-1].principal.authenticated

    run(main())


@WAYS
def test_refusals_of_admission_have_their_status_and_field(waiting: bool) -> None:
    async def main() -> None:
        async with house(waiting) as one:
            one.admission.finished.add("done")
            path = "/api/stream/things/"
            assert await one.refusal(path + "none") == (
                404, {"code": "not_found", "field": "id", "reason": "there is no such thing"},
            )  # fmt: skip
            assert await one.refusal(path + "done") == (204, None)
            status, error = await one.refusal(path + "region?radius=far")
            assert (status, error["field"]) == (400, "radius")
            status, error = await one.refusal(path + "1?q=%ff")
            assert (status, error["field"]) == (400, "q")
            for missing in ("%ff", "", "1/2"):
                assert (await one.refusal(path + missing))[0] == 404
            # An EventSource must not come back either, and sees the same.
            assert [(await one.open(path + thing)).status for thing in ("none", "done")] == [404, 204]

    run(main())


@WAYS
def test_admission_that_fails_is_a_500_without_details(waiting: bool) -> None:
    async def main() -> None:
        async with house(waiting) as one:
            one.admission.error = RuntimeError("a defect")
            with structlog.testing.capture_logs() as lines:
                assert await one.refusal("/api/stream/things/1?secret=x") == (
                    500, {"code": "internal", "reason": "an error of the server"},
                )  # fmt: skip
            assert [(line["event"], line["path"]) for line in lines] == [("handler_failed", "/api/stream/things/1")]
            assert "secret" not in str(lines)

    run(main())


@WAYS
def test_origins_and_tokens_are_judged_before_admission(waiting: bool) -> None:
    async def main() -> None:
        async with house(waiting, KEYED) as one:
            path = "/api/stream/things/1"
            assert (await one.refusal(path, Origin="https://evil.example"))[0] == 403
            assert (await one.refusal(path, Authorization="Bearer nonsense"))[0] == 401
            assert one.admission.calls == []
            stream = await one.open(path, Origin=ORIGIN, **bearer(sub="me"))
            assert (stream.status, stream.headers["access-control-allow-origin"]) == (200, ORIGIN)

    run(main())


@WAYS
def test_the_channels_policy_says_who_may_watch_unless_admission_has_rules_of_its_own(waiting: bool) -> None:
    async def main() -> None:
        granted = bearer(ringcast={SHOP: {"subscribe": ["things/1"]}})
        async with house(waiting, KEYED, own_rules=False) as one:
            refused = [(await one.refusal("/api/stream/things/1", **who))[0] for who in ({}, bearer(sub="me"))]
            assert (refused, one.admission.calls) == ([401, 404], [])
            assert (await one.open(**granted)).status == 200
        async with house(waiting, KEYED | {"channels": {SHOP: {"anonymous": True}}}, own_rules=False) as one:
            assert [(await one.open(**who)).status for who in ({}, bearer(sub="me"))] == [200, 200]

    run(main())


@WAYS
def test_the_token_in_the_query_has_the_name_that_the_route_gives_it(waiting: bool) -> None:
    async def main() -> None:
        async with house(waiting, KEYED, token_parameter="token") as one:
            path = "/api/stream/things/1"
            await one.open(f"{path}?token={token(sub='me')}")
            await one.open(f"{path}?authorization={token(sub='me')}")
            await one.open(f"{path}?t%6Fken={token(sub='me')}")
            assert [call.principal.subject for call in one.admission.calls] == ["me", "", "me"]
            assert (await one.refusal(f"{path}?token=nonsense"))[0] == 401
            assert (await one.refusal(f"{path}?token={token(sub='a')}&token={token(sub='b')}"))[0] == 400

    run(main())


@WAYS
def test_private_events_need_a_grant_on_an_applications_stream_too(waiting: bool) -> None:
    async def main() -> None:
        async with house(waiting, KEYED) as one:
            granted = await one.open(**bearer(ringcast={SHOP: {"subscribe": ["things/1"]}}))
            other = await one.open(**bearer(ringcast={SHOP: {"subscribe": ["things/2"]}}))
            await one.publish("secret", private=True)
            await one.publish("public")
            assert await reads(granted, 2) == ["secret", "public"]
            assert await reads(other, 1) == ["public"]

    run(main())


@WAYS
def test_limits_hold_for_an_applications_streams(waiting: bool) -> None:
    async def main() -> None:
        async with house(waiting, KEYED | {"max_connections_per_subject": 1}) as one:
            mine = bearer(sub="me")
            await one.open(**mine)
            status, error = await one.refusal("/api/stream/things/1", **mine)
            assert (status, error["code"]) == (429, "too_many")
            turned_away = await one.open(**mine)  # an EventSource comes back later
            assert turned_away.status == 200
            assert [block.type for block in await to_the_end(turned_away)] == ["too_many"]
            assert (await one.open(**bearer(sub="other"))).status == 200
            one.node.begin_drain()
            assert (await one.refusal("/api/stream/things/1", **bearer(sub="third")))[0] == 503

    run(main())


@WAYS
def test_a_stream_ends_with_the_rights_it_lives_by(waiting: bool) -> None:
    async def main() -> None:
        async with house(waiting, KEYED) as one:
            mine, other = await one.open(**bearer(sub="me")), await one.open(**bearer(sub="other"))
            await one.cluster.revoke("subject", "me", 60)
            assert [block.type for block in await to_the_end(mine)] == ["revoked"]
            await one.publish("more")
            assert await reads(other, 1) == ["more"]

    run(main())


@WAYS
def test_head_gives_the_head_and_no_stream(waiting: bool) -> None:
    async def main() -> None:
        async with house(waiting) as one:
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            writer.write(b"HEAD /api/stream/things/1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await reader.read()
            writer.close()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
            assert answer.endswith(b"\r\n\r\n")
            assert answer.count(b"\r\n\r\n") == 1

    run(main())


@WAYS
def test_a_stream_is_no_place_to_publish(waiting: bool) -> None:
    async def main() -> None:
        async with house(waiting) as one:
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            writer.write(
                b"POST /api/stream/things/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
                b"Connection: close\r\n\r\n{}"
            )
            answer = await reader.read()
            writer.close()
            assert answer.split()[1] == b"404"

    run(main())


# --- where it starts


@WAYS
def test_a_client_that_has_nothing_is_greeted_with_the_present_state(waiting: bool) -> None:
    """J3: a late subscriber gets the job's present state at once."""

    async def main() -> None:
        async with house(waiting) as one:
            await one.publish("before")
            one.admission.state = "half"
            stream = await one.open()
            await one.publish("after")
            blocks = await asyncio.to_thread(stream.events, 2)
            assert [(block.type, block.data) for block in blocks] == [("state", "half"), ("message", "after")]
            assert blocks[0].id is None

    run(main())


@WAYS
@pytest.mark.parametrize(
    "way", ["header", "last_event_id", "lastEventID", "lastEventId", "Last-Event-ID", "header first"]
)
def test_a_client_that_comes_back_gets_what_it_missed_and_no_greeting(waiting: bool, way: str) -> None:
    async def main() -> None:
        async with house(waiting) as one:
            one.admission.state = "half"
            cursor = await one.publish("seen")
            later = await one.publish("missed")
            path, headers = "/api/stream/things/1", {}
            if way.startswith("header"):
                headers = {"Last-Event-ID": cursor}
                path += f"?last_event_id={later}" if way == "header first" else ""
            else:
                path += f"?{way}={cursor}"
            stream = await one.open(path, **headers)
            await one.publish("live")
            assert await reads(stream, 2) == ["missed", "live"]
            assert stream.headers["last-event-id"] == cursor

    run(main())


@WAYS
def test_a_client_whose_cursor_nobody_knows_is_told_of_the_gap_and_greeted(waiting: bool) -> None:
    async def main() -> None:
        async with house(waiting, {"unknown_cursor": "none"}) as one:
            one.admission.state = "half"
            stream = await one.open(**{"Last-Event-ID": "nonsense"})
            await one.publish("live")
            blocks = await asyncio.to_thread(stream.events, 3)
            assert sorted(block.type for block in blocks[:2]) == ["gap", "state"]
            assert blocks[2].data == "live"

    run(main())


@WAYS
def test_a_client_without_a_cursor_gets_the_last_few_if_the_application_says_so(waiting: bool) -> None:
    async def main() -> None:
        async with house(waiting) as one:
            one.admission.last = 2
            await one.publish("1", "2", "3")
            assert await reads(await one.open(), 2) == ["2", "3"]

    run(main())


# --- the end


@WAYS
def test_streams_of_a_finished_topic_end_when_they_have_everything(waiting: bool) -> None:
    """J3: a client is not left reconnecting for ever."""

    async def main() -> None:
        async with house(waiting) as one:
            mine, other = await one.open(), await one.open("/api/stream/things/2")
            one.admission.topics = lambda _: ["things/1", "things/2"]
            both = await one.open()
            await one.publish("last")
            one.finish()
            blocks = await to_the_end(mine)
            assert [block.type for block in blocks] == ["message", "finished"]
            assert json.loads(blocks[-1].data or "")["reconnect"] is False
            one.admission.finished.add("1")
            assert (await one.open()).status == 204
            await one.publish("more", topic="things/2")
            assert await reads(other, 1) == ["more"]
            assert await reads(both, 2) == ["last", "more"]
            assert one.node.ended == {"finished": 1}

    run(main())


def test_a_client_that_reads_slowly_gets_the_last_event_before_the_end() -> None:
    async def main() -> None:
        lag = {"lag_events": 10_000, "lag_bytes": 1 << 28}
        async with house(False, lag) as one:
            stream = await one.open()
            texts = [f"{number} {'x' * 100_000}" for number in range(100)]
            await one.publish(*texts)
            async with asyncio.timeout(20):
                while not one.node.broadcaster.stalled:  # noqa: ASYNC110 - counted in the server
                    await asyncio.sleep(0.01)
            ticks: list[float] = []
            one.node.on_tick.append(ticks.append)
            one.finish()
            async with asyncio.timeout(20):
                while len(ticks) < 3:  # noqa: ASYNC110 - counted in the server
                    await asyncio.sleep(0.01)
            blocks = await to_the_end(stream)
            assert [block.data for block in blocks[:-1]] == texts
            assert blocks[-1].type == "finished"

    run(main())


# --- which route


def test_a_path_without_arguments_comes_before_one_with_them() -> None:
    """F1 and F2: `/region` is no facility."""

    def admit(_: StreamCall) -> Admitted:
        raise AssertionError

    one, other = (StreamRoute(path, SHOP, admit, "") for path in (PATH, "/api/stream/things/region"))
    for streams in (Streams([one, other]), Streams([other, one])):
        assert streams.find("/api/stream/things/region") == (other, {})
        assert streams.find("/api/stream/things/1") == (one, {"id": "1"})
        for path in ("/api/stream/things/", "/api/stream/things/%ff", "/api/stream/things/1/2", "/api"):
            assert streams.find(path) is None
    assert not one.waits
