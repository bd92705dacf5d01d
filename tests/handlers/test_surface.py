"""The surface: whatever comes in, an answer or a subscription comes out."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from handlers.publish import Publisher
from handlers.subscribe import Subscriber
from server.endings import OVERLOADED
from server.exchange import Response
from server.opening import Opener, Subscription
from server.relay.protocol import RelayUnavailable
from tests.handlers.lodge import FORM, KEYED, MERCURE, ORIGIN, Lodge, facts, request

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
        lodge.surface.too_large(request(MERCURE, b"topic=a", origin=ORIGIN, **FORM)),
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


def test_a_body_over_the_limit_is_answered_by_who_may_publish_at_all(lodge: Lodge) -> None:
    assert lodge.surface.too_large(request(MERCURE, b"x")).status == 413
    assert lodge.surface.too_large(request(MERCURE, b"x", remote="192.0.2.1")).status == 401


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
