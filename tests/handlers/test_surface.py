"""The surface: whatever comes in, an answer or a subscription comes out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog

from handlers.publish import Publisher
from handlers.subscribe import Subscriber
from server.channel import Start
from server.endings import OVERLOADED
from server.exchange import Response
from server.opening import Opener, Subscription
from server.relay.protocol import RelayUnavailable
from tests.handlers.lodge import FORM, KEYED, MERCURE, ORIGIN, Lodge, facts, request
from tests.server.engine import turns, until

EVENTS = "/channels/main/events"


def defective(*_: object) -> Any:
    raise RuntimeError("a secret")


async def defective_later(*_: object) -> Any:
    raise RuntimeError("a secret")


def test_streams_and_publishes_have_the_same_two_paths(lodge: Lodge) -> None:
    for path in (MERCURE, EVENTS, "/channels/x-1/events"):
        assert lodge.surface.is_stream(path)
        assert lodge.surface.is_publish(path)
    for path in ("/", "/health", "/channels/X/events", "/channels/x/events/", MERCURE + "/"):
        assert not lodge.surface.is_stream(path)


def test_a_good_request_becomes_a_subscription(lodge: Lodge) -> None:
    assert isinstance(lodge.surface.subscribe(request(f"{MERCURE}?topic=a")), Subscription)
    assert lodge.surface.subscribe(request("/channels/new/events")) is None


def test_a_refused_stream_has_a_way_back_only_for_those_who_understand_it(lodge: Lodge) -> None:
    lodge.node.admission.max_connections = 0
    browser = lodge.surface.subscribe(request(EVENTS, accept="text/event-stream"))
    other = lodge.surface.subscribe(request(EVENTS))
    assert isinstance(browser, Response)
    assert isinstance(other, Response)
    assert (browser.status, browser.content_type) == (200, "text/event-stream")
    assert (other.status, facts(other)["code"]) == (503, OVERLOADED.code)


def test_a_refused_publish_is_never_a_stream(lodge: Lodge) -> None:
    lodge.node.hub._append_now = None  # so that the answer comes from the publish and not from the relay
    answer = lodge.surface.publish(request(MERCURE, b"x", accept="text/event-stream", **FORM))
    assert isinstance(answer, Response)
    assert (answer.status, answer.content_type) == (400, "application/json")


@pytest.mark.parametrize("own_settings", [KEYED])
def test_every_answer_carries_the_headers_for_its_origin(lodge: Lodge, own_settings: dict[str, Any]) -> None:
    for answer in (
        lodge.surface.subscribe(request(EVENTS, origin=ORIGIN)),
        lodge.surface.publish(request(MERCURE, b"topic=a", origin=ORIGIN, **FORM)),
        lodge.surface.unwelcome(request(MERCURE, b"topic=a", origin=ORIGIN, **FORM), 7),
        lodge.surface.overloaded(request(MERCURE, origin=ORIGIN)),
    ):
        assert isinstance(answer, Response)
        assert [value for name, value in answer.headers if name == "Access-Control-Allow-Origin"] == [ORIGIN]
        assert [name for name, _ in answer.headers].count("Vary") == 1


def assert_internal(answer: object, lines: list[Any]) -> None:
    assert isinstance(answer, Response)
    assert (answer.status, facts(answer)) == (500, {"code": "internal", "reason": "an error of the server"})
    assert [line["event"] for line in lines] == ["handler_failed"]


def test_a_defect_is_a_logged_500_without_details(lodge: Lodge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Subscriber, "subscribe", defective)
    monkeypatch.setattr(Publisher, "publish", defective)
    for call in (lodge.surface.subscribe, lodge.surface.publish):
        with structlog.testing.capture_logs() as lines:
            assert_internal(call(request(EVENTS)), lines)


@pytest.mark.gen_test
async def test_so_is_one_that_shows_later(lodge: Lodge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Subscriber, "subscribe_later", defective_later)
    monkeypatch.setattr(Publisher, "publish", lambda *_: defective_later())
    monkeypatch.setattr(Opener, "find", defective_later)
    wanted = lodge.subscriber.subscribe(request(EVENTS))
    assert wanted is not None
    with structlog.testing.capture_logs() as lines:
        assert_internal(await lodge.surface.subscribe_later(request(EVENTS)), lines)
    with structlog.testing.capture_logs() as lines:
        assert_internal(await lodge.surface.publish(request(EVENTS)), lines)  # type: ignore[misc]
    with structlog.testing.capture_logs() as lines:
        assert_internal(await lodge.surface.find(lodge.node.opener, wanted, request(EVENTS)), lines)


@pytest.mark.gen_test
async def test_a_relay_that_cannot_be_asked_is_a_reason_to_come_back(
    lodge: Lodge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(*_: object) -> Any:
        raise RelayUnavailable("no disk")

    monkeypatch.setattr(Opener, "find", unavailable)
    asked = request(EVENTS, accept="text/event-stream")
    wanted = lodge.subscriber.subscribe(asked)
    assert wanted is not None
    answer = await lodge.surface.find(lodge.node.opener, wanted, asked)
    assert isinstance(answer, Response)
    assert b"event: unavailable\n" in answer.body


# --- by the head alone


def test_who_may_not_publish_is_told_so_before_its_body(lodge: Lodge) -> None:
    most = lodge.settings.max_body_bytes
    stranger = request(MERCURE, method="POST", remote="192.0.2.1")
    for asked, size, status in (
        (request(MERCURE, method="POST"), most, 0),
        (request(MERCURE, method="POST"), most + 1, 413),
        (stranger, 0, 401),
        (stranger, most + 1, 401),
        (request(EVENTS, method="POST", origin="https://evil.example"), 0, 403),
        (request(EVENTS, method="POST", host="evil.example"), 0, 403),
    ):
        answer = lodge.surface.unwelcome(asked, size)
        assert (answer.status if answer else 0) == status, asked
    assert lodge.surface.publishes_refused == {"too_large": 1, "unauthorized": 2, "forbidden": 2}


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PUT"])
def test_of_any_other_request_only_the_name_it_was_made_to_matters(lodge: Lodge, method: str) -> None:
    for path in ("/", "/health", MERCURE, "/nothing"):
        stranger = request(path, method=method, remote="192.0.2.1", origin="https://evil.example")
        assert lodge.surface.unwelcome(stranger, 1 << 40) is None
        answer = lodge.surface.unwelcome(request(path, method=method, host="evil.example"), 0)
        assert answer is not None
        assert (answer.status, facts(answer)["field"]) == (403, "Host")
    assert lodge.surface.publishes_refused == {}


def test_a_defect_before_the_body_is_answered_too(lodge: Lodge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Publisher, "check_head", defective)
    with structlog.testing.capture_logs() as lines:
        assert_internal(lodge.surface.unwelcome(request(MERCURE, method="POST"), 0), lines)
    assert lodge.surface.publishes_refused == {"internal": 1}


def test_where_there_is_no_room_an_event_source_is_asked_to_come_back(lodge: Lodge) -> None:
    asked = request(EVENTS, accept="text/event-stream")
    assert b"event: overloaded\n" in lodge.surface.overloaded(asked).body
    for other in (request(EVENTS), request("/health", accept="text/event-stream"), request(EVENTS, b"x")):
        answer = lodge.surface.overloaded(other)
        assert (answer.status, facts(answer)["code"]) == (503, "overloaded")
        assert int(dict(answer.headers)["Retry-After"]) > 0


# --- streams that wait for the relay


class Relay:
    """Takes the place of looking up where a stream starts: it waits until it is told to go on."""

    def __init__(self, lodge: Lodge, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lodge = lodge
        self.goes_on = asyncio.Event()
        self.asked = 0
        monkeypatch.setattr(Opener, "find", self._find)

    async def _find(self, *_: object) -> Start:
        self.asked += 1
        await self.goes_on.wait()
        return Start(None)

    async def admitted(self, **headers: str) -> Start | Response:
        """What a request that has to wait for the relay comes to."""
        asked = request(EVENTS, **headers)
        wanted = self.lodge.surface.subscribe(asked)
        if isinstance(wanted, Response):
            return wanted
        assert wanted is not None
        return await self.lodge.surface.find(self.lodge.node.opener, wanted, asked)


@pytest.mark.gen_test
async def test_a_crowd_that_waits_for_the_relay_does_not_get_past_the_limits(
    lodge: Lodge, monkeypatch: pytest.MonkeyPatch
) -> None:
    lodge.node.admission.max_connections = 3
    relay = Relay(lodge, monkeypatch)
    crowd = [asyncio.ensure_future(relay.admitted()) for _ in range(10)]
    await until(lambda: sum(one.done() for one in crowd) == 7)
    assert (relay.asked, lodge.node.admission.held) == (3, 3)
    relay.goes_on.set()
    outcomes = await asyncio.gather(*crowd)
    assert [facts(one)["code"] for one in outcomes if isinstance(one, Response)] == ["overloaded"] * 7
    assert lodge.node.admission.held == 0


@pytest.mark.gen_test
async def test_a_place_that_is_held_for_a_look_up_is_free_when_it_fails(
    lodge: Lodge, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(lodge, monkeypatch)
    monkeypatch.setattr(Opener, "find", defective_later)
    with structlog.testing.capture_logs():
        assert isinstance(await relay.admitted(), Response)
    assert (lodge.node.admission.held, lodge.node.admission.addresses) == (0, 0)


@pytest.mark.gen_test
async def test_a_node_that_begins_to_drain_during_a_look_up_opens_nothing(
    lodge: Lodge, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(lodge, monkeypatch)
    waiting = [asyncio.ensure_future(relay.admitted(accept=kind)) for kind in ("*/*", "text/event-stream")]
    await until(lambda: relay.asked == 2)
    lodge.node.begin_drain()
    relay.goes_on.set()
    plain, browser = await asyncio.gather(*waiting)
    assert isinstance(plain, Response)
    assert isinstance(browser, Response)
    assert (plain.status, facts(plain)["code"]) == (503, "draining")
    assert b"event: draining\n" in browser.body
    assert lodge.node.admission.refused == {"draining": 2}


# --- what is under way at the end


@pytest.mark.gen_test
async def test_the_end_waits_for_publishes_that_have_begun_and_lets_no_more_begin(lodge: Lodge) -> None:
    first, second = object(), object()
    lodge.surface.begin(first)
    lodge.surface.begin(second)
    finishing = asyncio.ensure_future(lodge.surface.finish(30))
    await turns()
    late = lodge.surface.unwelcome(request(MERCURE, method="POST"), 1)
    assert late is not None
    assert (late.status, facts(late)["code"]) == (503, "draining")
    answer = lodge.surface.publish(request(MERCURE, b"topic=a", **FORM))
    assert isinstance(answer, Response)
    assert answer.status == 200, "one that has begun is taken"
    for publish in (first, first):
        lodge.surface.end(publish)
    await turns()
    assert not finishing.done()
    lodge.surface.end(second)
    await finishing


@pytest.mark.gen_test
async def test_the_end_waits_for_streams_that_wait_for_the_relay(lodge: Lodge) -> None:
    answered = asyncio.Event()

    async def work() -> None:
        await answered.wait()

    lodge.surface.keep(work())
    finishing = asyncio.ensure_future(lodge.surface.finish(30))
    await turns()
    assert not finishing.done()
    answered.set()
    await finishing


@pytest.mark.gen_test
async def test_the_end_waits_no_longer_than_it_is_told(lodge: Lodge) -> None:
    await lodge.surface.finish(30)
    lodge.surface.begin(lodge)
    with structlog.testing.capture_logs() as lines:
        await lodge.surface.finish(0)
    assert [line["event"] for line in lines] == ["requests_cut"]


def test_refused_publishes_are_counted_by_code(lodge: Lodge) -> None:
    for body in (b"topic=a", b"topic=", b"topic=a&id=%23", b"topic=a&data=" + b"%0A" * 200_000):
        lodge.surface.publish(request(MERCURE, body, **FORM))
    assert lodge.surface.publishes_refused == {"bad_request": 2, "too_large": 1}


@pytest.mark.gen_test
async def test_work_that_is_kept_runs_to_its_end(lodge: Lodge) -> None:
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    lodge.surface.keep(work())
    assert len(lodge.surface._tasks) == 1
    while lodge.surface._tasks:
        await next(iter(lodge.surface._tasks))
    assert done == [1]
