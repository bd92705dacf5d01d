"""Section 9 of the contract: nobody is stranded."""

from __future__ import annotations

import json
import re
import signal
import time

import pytest

from tests.contract.client import Channel, Recorder, control
from tests.contract.conftest import StartChannel
from tests.harness.process import TOKEN_SECRET, wait_until
from tests.harness.stream import Stream
from tests.mercure.hub import PATH, token


def assert_sent_away(stream: Stream, code: str) -> int:
    """200, one block with the reason and a delay, the end; the delay in milliseconds."""
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream"
    assert "no-store" in stream.headers["cache-control"]
    blocks = [block for block in stream.wait_end() if block.data is not None]
    assert [block.type for block in blocks] == [code]
    assert blocks[0].id is None
    facts = json.loads(blocks[0].data or "")
    assert (facts["code"], facts["reconnect"]) == (code, True)
    assert facts["reason"]
    assert stream.clean_end
    retry = blocks[0].get("retry") or ""
    assert re.fullmatch(r"[0-9]{1,7}", retry)
    return int(retry)


LIMITS: dict[str, tuple[dict[str, object], str, int]] = {
    "the node": ({"max_connections": 3}, "overloaded", 503),
    "an address": ({"max_connections_per_address": 3}, "too_many", 429),
    "a subject": ({"max_connections_per_subject": 3}, "too_many", 429),
    "a second": ({"opens_per_second": 0.001, "opens_burst": 3}, "rate_limited", 429),
}


def full(channel: StartChannel, limit: dict[str, object]) -> tuple[Channel, list[Recorder]]:
    """A node whose limit of three is reached."""
    holder = token(subscribe=["*"], publish=["*"], ringcast={"c": {"publish": ["*"], "subscribe": ["*"]}}, sub="one")
    c = channel(jwt_secret=TOKEN_SECRET, token=holder, **limit)
    recorders = [Recorder(c.stream()) for _ in range(3)]
    wait_until(lambda: all(recorder.events for recorder in recorders), 10, "three streams")
    return c, recorders


@pytest.mark.parametrize(("limit", "code", "status"), LIMITS.values(), ids=LIMITS.keys())
def test_an_event_source_is_asked_to_come_back(
    channel: StartChannel, limit: dict[str, object], code: str, status: int
) -> None:
    """9.1, 9.6: on both endpoints; every delay is another one."""
    c, recorders = full(channel, limit)
    delays = {assert_sent_away(c.stream(), code) for _ in range(10)}
    delays |= {assert_sent_away(c.stream_at(f"{PATH}?topic=a", Authorization=f"Bearer {c.token}"), code)}
    assert len(delays) > 3
    assert min(delays) > 0
    for recorder in recorders:
        recorder.stop()


@pytest.mark.parametrize(("limit", "code", "status"), LIMITS.values(), ids=LIMITS.keys())
def test_another_client_gets_a_status(channel: StartChannel, limit: dict[str, object], code: str, status: int) -> None:
    """9.2: with `Retry-After` in whole seconds and the same code."""
    c, recorders = full(channel, limit)
    for path in ("/channels/c/events", f"{PATH}?topic=a"):
        got, headers, body = c.node.get(path, Authorization=f"Bearer {c.token}")
        assert (got, json.loads(body)["code"]) == (status, code)
        assert int(headers["retry-after"]) > 0
        assert "no-store" in headers["cache-control"]
    for recorder in recorders:
        recorder.stop()


def test_a_full_node_keeps_whom_it_has(channel: StartChannel) -> None:
    """9.3: publishes reach the three that are there, and a place that falls free is given again."""
    c, recorders = full(channel, {"max_connections": 3})
    for _ in range(20):
        assert_sent_away(c.stream(), "overloaded")
    event_id = c.publish("still here")
    for recorder in recorders:
        recorder.wait_for(event_id)
    recorders[0].stop()

    def admitted() -> bool:
        stream = c.stream()
        return stream.next_event().type == "hello"

    wait_until(admitted, 5, "the free place")
    for recorder in recorders[1:]:
        recorder.stop()


def test_refused_requests_other_than_streams_are_served(channel: StartChannel) -> None:
    """9.3: a full node still answers its operators and publishers."""
    c, recorders = full(channel, {"max_connections": 3})
    assert c.node.get("/health")[0] == 200
    assert c.publisher().offer({"data": "x"}).status == 200
    for recorder in recorders:
        recorder.stop()


def test_a_node_that_stops_says_so_to_everybody(channel: StartChannel, relay: str) -> None:
    """9.4, 9.6: spread over the time that was set; what was published before the signal arrives before the farewell."""
    c = channel(relay=relay, drain_seconds=2, heartbeat_seconds=1)
    recorders = [Recorder(c.stream()) for _ in range(60)]
    wait_until(lambda: all(recorder.events for recorder in recorders), 10, "sixty streams")
    last = c.publish("last")
    begin = time.monotonic()
    assert c.node.stop() == 0
    assert time.monotonic() - begin < 6
    delays, ends = set(), []
    for recorder in recorders:
        recorder.thread.join(10)
        assert recorder.failure is None
        assert recorder.stream.clean_end
        assert recorder.ids == [last]
        farewell = recorder.events[-1]
        facts = json.loads(farewell.data or "")
        assert (farewell.type, facts["code"], facts["reconnect"]) == ("draining", "draining", True)
        delays.add(int(farewell.get("retry") or ""))
        ends.append(recorder.times[-1] - begin)
        recorder.stop()
    assert len(delays) > 10
    assert max(ends) - min(ends) > 0.8, "the farewells came all at once"


def test_a_node_without_readers_stops_at_once(channel: StartChannel) -> None:
    """9.4: nobody to wait for."""
    c = channel(drain_seconds=60)
    begin = time.monotonic()
    assert c.node.stop() == 0
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(channel: StartChannel, number: signal.Signals) -> None:
    """9.5: though a minute of farewells was planned."""
    c = channel(drain_seconds=60)
    recorders = [Recorder(c.stream()) for _ in range(100)]
    wait_until(lambda: all(recorder.events for recorder in recorders), 10, "a hundred streams")
    process = c.node.process
    assert process is not None
    process.send_signal(number)
    wait_until(lambda: any(recorder.events[-1].type == "draining" for recorder in recorders), 10, "the first farewell")
    assert process.poll() is None
    process.send_signal(number)
    process.wait(10)
    for recorder in recorders:
        recorder.stop()


def test_who_must_not_come_back_is_told_by_a_status(channel: StartChannel) -> None:
    """9.7: whatever coming back can't mend is no stream."""
    c = channel(jwt_secret=TOKEN_SECRET, anonymous=True, open_channels=False, channels='{"c": {}}')
    assert c.stream_at("/channels/c/events", Authorization="Bearer not.a.token").status == 401
    assert c.stream_at("/channels/c/events", Origin="https://evil.example").status == 403
    assert c.stream_at("/channels/no-such/events").status == 404
    assert c.stream_at("/no-such-path").status == 404
    assert c.stream_at(PATH).status == 400


def test_without_a_token_an_event_source_stops(channel: StartChannel) -> None:
    """9.7: 401 where anonymous reading is off."""
    c = channel(jwt_secret=TOKEN_SECRET)
    assert c.stream().status == 401


def test_an_ended_connection_is_asked_back_once(channel: StartChannel) -> None:
    """9.1: the stream of a refused client holds one reason and no `hello`, so that a page doesn't take it for a
    connection.
    """
    c, recorders = full(channel, {"max_connections": 3})
    stream = c.stream(Last_Event_ID="earliest")
    assert control(stream)[0] == "overloaded"
    assert stream.next_block() is None
    for recorder in recorders:
        recorder.stop()
