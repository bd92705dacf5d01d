"""The node stands still, is told to stop, or is met by everybody at once."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from pathlib import Path

from tests.faults.witnesses import Attempt, Scene
from tests.harness.process import Node, wait_until
from tests.harness.stream import Stream
from tests.rounds import ROUNDS
from tests.threats.conftest import Start
from tests.threats.crowd import Crowd
from tests.threats.process_facts import cpu_share
from tests.threats.wire import request

OPEN = request("GET", "/channels/main/events", Accept="text/event-stream")
QUIET = request("GET", "/channels/main/events?topic=quiet", Accept="text/event-stream")
BUSY = 200  # of those that are there at the stop; the rest hear nothing but its end
AT_THE_STOP = 4_000 if ROUNDS > 1 else BUSY  # they all connect before one asks: more than 4,096 may not wait so
DRAIN_SECONDS = 4 if ROUNDS > 1 else 1  # 1,000 a second: half of what a core opens beside its publishes


def pause(node: Node, seconds: float) -> None:
    """The process gets no CPU for a while."""
    os.kill(node.pid, signal.SIGSTOP)
    time.sleep(seconds)  # the fault
    os.kill(node.pid, signal.SIGCONT)


def test_a_loop_that_stood_still_sends_one_heartbeat_and_ends_nobody(start: Start, seed: int) -> None:
    """FLT-17: after a stall longer than every deadline no stream is closed by the node's own timers, and heartbeats are
    not made up for.
    """
    node = start(
        heartbeat_seconds=0.5,
        heartbeat_style="comment",
        write_stall_seconds=1,
        header_seconds=1,
        idle_seconds=0,
        max_age_seconds=0,
    )
    with Crowd(node.port, 100, OPEN) as crowd:
        crowd.wait(lambda: all(b"hello" in member.received for member in crowd.members), 10, "100 streams")
        pause(node, random.Random(seed).uniform(2, 4))
        for member in crowd.members:
            member.received = b""
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            crowd.step(0.02)
        assert len(crowd.open) == 100
        assert max(member.received.count(b":\n") for member in crowd.members) <= 2
        crowd.wait(lambda: all(b":\n" in member.received for member in crowd.members), 2, "a heartbeat for each")


def test_events_published_around_a_stall_all_arrive(start: Start, seed: int) -> None:
    """FLT-17: publishers wait or try again; nothing is lost, repeated or declared lost."""
    rng = random.Random(seed)
    node = start(heartbeat_seconds=0.5)
    with Scene(node.port) as scene:
        for _ in range(3):
            scene.wait_for(rng.randrange(10, 60))
            pause(node, rng.uniform(0.2, 1.5))
    assert scene.history.problems() == []


def test_a_stop_under_load_tells_everybody_and_loses_nothing_acknowledged(
    start: Start, tmp_path: Path, seed: int
) -> None:
    """FLT-18: exit 0 within the drain, every stream told `draining` with its own retry, subscribers back on the next
    process without loss.
    """
    node = start(relay=f"sqlite:{tmp_path / 'log.db'}", drain_seconds=DRAIN_SECONDS)
    rng = random.Random(seed)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with (
        Scene(node.port) as scene,
        Crowd(node.port, AT_THE_STOP, lambda number: OPEN if number < BUSY else QUIET) as crowd,
    ):
        crowd.wait(lambda: all(b"hello" in member.received for member in crowd.members), 30, "the streams")
        scene.wait_for(rng.randrange(10, 60))
        os.kill(node.pid, signal.SIGTERM)
        begin = time.monotonic()
        crowd.wait_closed(DRAIN_SECONDS + 2)
        assert node.process is not None
        assert node.process.wait(10) == 0
        assert time.monotonic() - begin < DRAIN_SECONDS + 3
        node.start()
        scene.wait_for(30)
    retries = {member.received.split(b"retry: ")[-1].split(b"\n")[0] for member in crowd.members}
    assert all(b"event: draining" in member.received for member in crowd.members)
    assert len(retries) > 50
    assert scene.history.problems() == []
    assert all("draining" in subscriber.endings for subscriber in scene.subscribers)


def test_a_second_signal_ends_it_at_once(start: Start, seed: int) -> None:
    """FLT-18: nobody has to wait for a long drain."""
    node = start(drain_seconds=60)
    with Crowd(node.port, 20, OPEN) as crowd:
        crowd.wait(lambda: all(b"hello" in member.received for member in crowd.members), 10, "20 streams")
        os.kill(node.pid, signal.SIGTERM)
        wait_until(lambda: _refused(node), 5, "the drain begun")
        time.sleep(random.Random(seed).uniform(0, 1))  # for so long it drains
        begin = time.monotonic()
        assert node.stop(5) is not None
        assert time.monotonic() - begin < 2


def _refused(node: Node) -> bool:
    """True once a newcomer is not let in any more."""
    try:
        with Attempt(node.port, "/channels/main/events", seconds=2) as stream:
            return stream.next_event(2).type != "hello"
    except (OSError, AssertionError):
        return True


def test_everybody_coming_back_at_once_is_caught_up(start: Start) -> None:
    """FLT-19: 400 clients return in one moment with an old cursor: all get the 200 events they missed, in seconds, and
    the node comes to rest.
    """
    node = start(max_age_seconds=0)
    with Stream(node.port, "/channels/main/events") as stream:
        cursor = str(stream.next_event().id)
    body = b"\n".join(b'{"topic": "t", "data": "missed %d"}' % number for number in range(200))
    assert node.request("POST", "/channels/main/events", body, Content_Type="application/x-ndjson")[0] == 200
    with Crowd(
        node.port,
        400,
        request("GET", "/channels/main/events?topic=t", Accept="text/event-stream", Last_Event_ID=cursor),
    ) as crowd:
        crowd.wait(lambda: all(b"missed 199" in member.received for member in crowd.members), 10, "all caught up")
        for member in crowd.members:
            assert member.received.count(b"data: missed") == 200 and b"event: gap" not in member.received
    wait_until(lambda: cpu_share(node.pid, 0.3) < 0.1, 3, "rest")
