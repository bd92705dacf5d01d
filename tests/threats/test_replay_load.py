"""Clients that ask for all of history again and again, and publishers that never stop."""

from __future__ import annotations

import threading
import time
import urllib.parse
from pathlib import Path
from statistics import median

import pytest

from tests.harness.process import Node, wait_until
from tests.threats.conftest import Start
from tests.threats.crowd import Crowd
from tests.threats.neighbours import Neighbours
from tests.threats.process_facts import cpu_share, rss_bytes
from tests.threats.wire import answered, request

MIB = 1 << 20
REPLAY = request("GET", "/channels/main/events?topic=history", Accept="text/event-stream", Last_Event_ID="earliest")


def publish_lines(node: Node, count: int, *, size: int = 100) -> None:
    """Publish `count` events on topic `history`, many a request."""
    line = b'{"topic": "history", "data": "' + b"x" * size + b'"}'
    per_request = max(1, min(10_000, 1_000_000 // len(line)))
    for begin in range(0, count, per_request):
        body = b"\n".join([line] * min(per_request, count - begin))
        answer = answered(
            node.port, request("POST", "/channels/main/events", body, Content_Type="application/x-ndjson")
        )
        assert answer.status == 200, answer


def test_clients_that_replay_everything_in_a_loop_do_not_slow_the_others(start: Start) -> None:
    """S13: 10 times 60 clients replay 10,000 events from the beginning: neighbours keep their latency, memory stays
    bounded.
    """
    node = start(ring_events=10_000)
    publish_lines(node, 10_000)
    with Crowd(node.port, 60, REPLAY) as crowd:
        crowd.wait(lambda: all(len(member.received) > 10_000 for member in crowd.members), 10, "replays under way")
    before = rss_bytes(node.pid)
    with Neighbours(node.port) as neighbours:
        for _ in range(10):
            with Crowd(node.port, 60, REPLAY) as crowd:
                crowd.wait(
                    lambda: all(len(member.received) > 10_000 for member in crowd.members), 10, "replays under way"
                )
        neighbours.wait_for(5)
    assert rss_bytes(node.pid) - before < 20_000_000
    wait_until(lambda: cpu_share(node.pid, 0.3) < 0.1, 10, "rest after the last replay")


def test_replays_that_are_never_read_hold_no_copy_of_history(start: Start) -> None:
    """S13: 100 clients ask for 20 MB each and read nothing: memory stays bounded by what is shared."""
    node = start(ring_events=20_000, ring_bytes=32 * MIB, lag_events=100_000, lag_bytes=64 * MIB)
    publish_lines(node, 20_000, size=1000)
    before = rss_bytes(node.pid)
    with Neighbours(node.port), Crowd(node.port, 100, REPLAY, reading=False, receive_buffer_bytes=2304):
        wait_until(lambda: cpu_share(node.pid, 0.3) < 0.3, 10, "the replays stalled")
        assert rss_bytes(node.pid) - before < 100 * 256 * 1024


# The dearest selector that is allowed, and a topic that it takes to its last character before it fails.
DEAREST = "{a}x" * 1023 + "{b}"
LONG = "x" * 4095 + "!"
BACKWARDS = request("GET", f"/channels/main/events?last=1000&topic={urllib.parse.quote(DEAREST)}")
FORWARDS = request(
    "GET", f"/channels/main/events?topic={urllib.parse.quote(DEAREST)}", Last_Event_ID="earliest"
)  # fmt: skip


def publish_long_topics(node: Node, count: int) -> None:
    """Publish `count` events whose topics are as long as may be."""
    line = b'{"topic": "%b"}' % LONG.encode()
    for _ in range(0, count, 200):
        answer = answered(
            node.port,
            request("POST", "/channels/main/events", b"\n".join([line] * 200), Content_Type="application/x-ndjson"),
        )
        assert answer.status == 200, answer


@pytest.mark.parametrize("attack", [BACKWARDS, FORWARDS], ids=["last", "earliest"])
def test_the_dearest_selection_of_a_full_log_holds_up_nobody(start: Start, attack: bytes) -> None:
    """S12, S13: 20 looks at 10,000 events, each of seconds in all: pages, publishes and neighbours go on as without."""
    node = start(ring_events=10_000)
    publish_long_topics(node, 10_000)
    took: list[float] = []
    with Neighbours(node.port) as neighbours, Crowd(node.port, 20, attack) as crowd:
        crowd.wait(lambda: all(b"event: hello" in member.received for member in crowd.members), 20, "streams")
        for _ in range(20):
            begin = time.monotonic()
            assert answered(node.port, request("GET", "/health")).status == 200
            took.append(time.monotonic() - begin)
        neighbours.wait_for(20)
        # Others that come back get what they missed beside all this.
        with Crowd(node.port, 5, REPLAY) as others:
            others.wait(lambda: all(b"\nid: " in member.received for member in others.members), 10, "replays")
    # The machine may stand still for a moment; who is held up by a look is late each time, and by seconds.
    assert max(median(took), median(neighbours.latencies)) < 0.25
    assert max(took) < 1


def test_the_ring_forgets_instead_of_growing(start: Start) -> None:
    """S14: publishing five times what the ring may hold leaves memory at the ring's size."""
    node = start(ring_bytes=4 * MIB, ring_events=1_000_000)
    publish_lines(node, 5_000, size=1000)
    before = rss_bytes(node.pid)
    with Neighbours(node.port):
        publish_lines(node, 20_000, size=1000)
    assert rss_bytes(node.pid) - before < 12_000_000


def test_the_log_file_is_trimmed(start: Start, tmp_path: Path) -> None:
    """S14: retention bounds the file of the sqlite relay too."""
    node = start(relay=f"sqlite:{tmp_path / 'log.db'}", retain_bytes=2 * MIB, ring_bytes=MIB)
    publish_lines(node, 20_000, size=1000)
    publish_lines(node, 20_000, size=1000)

    def size() -> int:
        return sum(path.stat().st_size for path in tmp_path.glob("log.db*"))

    wait_until(lambda: size() < 16 * MIB, 10, "a file of bounded size")


def test_eight_publishers_at_full_speed_lose_nothing_and_starve_nobody(start: Start) -> None:
    """S14: neighbours get every event in time while eight publishers send as fast as they can."""
    node = start(ring_events=10_000)
    with Neighbours(node.port, p99_seconds=2):
        threads = [threading.Thread(target=publish_lines, args=(node, 3_000)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
