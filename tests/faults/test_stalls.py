"""The node stands still, is told to stop, or is met by everybody at once."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.multitude import READERS_A_TOPIC, MultitudeProcess
from tests.faults.witnesses import Attempt, Scene
from tests.harness.process import Node, wait_until
from tests.harness.stream import Stream
from tests.rounds import ROUNDS
from tests.threats.conftest import Start
from tests.threats.crowd import Crowd
from tests.threats.process_facts import cpu_share
from tests.threats.wire import request

OPEN = request("GET", "/channels/main/events", Accept="text/event-stream")
# At the stop, in two processes of clients: a process has 20,000 files at most on many machines.
READERS = 9_500 if ROUNDS > 1 else 150
TOPICS = READERS // READERS_A_TOPIC
ONE_TOPIC = "/channels/main/events?topic=one/{topic}"
BATCH_EVENTS = 500
BATCH_EVERY_SECONDS = 0.2
SCENE_EVERY_SECONDS = 0.02  # what comes while they return each of them has to go through
DRAIN_SECONDS = 19 if ROUNDS > 1 else 3  # 1,000 a second: half of what a core opens beside its publishes
GRACE_SECONDS = 8 if ROUNDS > 1 else 3  # beyond the drain
RETRY_MS = (500, 5_500)
STALLS_SECONDS = (2.0, 10.0, 30.0) if ROUNDS > 1 else (2.0, 4.0)  # one of them, by the seed


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
        pause(node, random.Random(seed).choice(STALLS_SECONDS))
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
            scene.healed()
    assert scene.history.problems() == []


class BatchPublisher:
    """Publishes thousands of events a second, `one/0`, `one/1`, … in turn, in batches; each until it is acknowledged,
    whatever happens. It begins with topic 0, and ends after the last one, with one more for each.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.next = 0
        self.leaving = threading.Event()
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        due = time.monotonic()
        while not self.leaving.wait(due - time.monotonic()):
            due = max(due + BATCH_EVERY_SECONDS, time.monotonic())
            self._publish(BATCH_EVENTS)

    def _publish(self, count: int) -> None:
        lines = [f'{{"topic": "one/{n % TOPICS}", "data": "{n}"}}' for n in range(self.next, self.next + count)]
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": f"batch-{self.next}"}
        while not self._acknowledged("\n".join(lines), headers):
            time.sleep(0.02)  # until it is tried again
        self.next += count

    def _acknowledged(self, body: str, headers: dict[str, str]) -> bool:
        try:
            self.connection.request("POST", "/channels/main/events", body, headers)
            answer = self.connection.getresponse()
            answer.read()
            return answer.status == 200
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return False

    def finish(self) -> int:
        """The number of the first of the last events."""
        self.leaving.set()
        self.thread.join(60)
        assert not self.thread.is_alive()
        first = self.next
        self._publish(TOPICS)
        self.connection.close()
        return first


class Onlooker:
    """A balancer that asks on a connection of its own whether the node is ready. `red_at` is when it was told that it
    is not, and what it was told; `green_at` when it asked for the last time and was told that it is.
    """

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.green_at, self.red_at, self.told = 0.0, 0.0, dict[str, object]()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self._ask()
        self.thread.start()

    def _ask(self) -> bool:
        self.connection.request("GET", "/ready")
        answer = self.connection.getresponse()
        self.told = json.loads(answer.read())
        return answer.status == 200

    def _run(self) -> None:
        asked = time.monotonic()
        while self._ask():
            self.green_at = asked
            time.sleep(0.02)  # between two questions
            asked = time.monotonic()
        self.red_at = time.monotonic()
        self.connection.close()


def most_in_a_second(times: list[float]) -> int:
    return max(bisect(times, moment + 1) - number for number, moment in enumerate(times))


def test_a_stop_under_load_tells_everybody_and_loses_nothing_acknowledged(
    start: Start, tmp_path: Path, seed: int
) -> None:
    """FLT-18: readiness tells of it first, every stream is told `draining` with its own retry and no faster than the
    others can take them, exit 0 within the drain, and all are back on the next process without loss.
    """
    node = start(
        relay=f"sqlite:{tmp_path / 'log.db'}",
        drain_seconds=DRAIN_SECONDS,
        retry_min_ms=RETRY_MS[0],
        retry_max_ms=RETRY_MS[1],
        max_age_seconds=0,
    )
    rng = random.Random(seed)
    publisher = BatchPublisher(node.port)
    with MultitudeProcess(ONE_TOPIC, READERS) as one, MultitudeProcess(ONE_TOPIC, READERS) as other:
        herds = (one, other)
        together(herds, "come", node.port)
        with Scene(node.port, every=SCENE_EVERY_SECONDS) as scene:
            onlooker = Onlooker(node.port)
            publisher.thread.start()
            scene.wait_for(rng.randrange(10, 60))
            goal = publisher.next + BATCH_EVENTS * rng.randrange(2, 10)
            wait_until(lambda: publisher.next >= goal, 30, "thousands of events")
            os.kill(node.pid, signal.SIGTERM)
            begin = time.monotonic()
            for herd in herds:
                herd.send("leave")
            wait_until(lambda: onlooker.red_at, 10, "readiness told of it")
            publisher.leaving.set()  # what it has begun it goes on with
            assert node.process is not None
            assert node.process.wait(DRAIN_SECONDS + GRACE_SECONDS) == 0
            node.start()
            scene.healed()
            farewells = [herd.answer() for herd in herds]
            together(herds, "come", node.port)
            scene.wait_for(30)
            together(herds, "wait", publisher.finish())
            seen = together(herds, "tell")
    assert node.stop(DRAIN_SECONDS + GRACE_SECONDS) == 0
    ends = sorted(moment for farewell in farewells for moment in farewell["ended"])
    retries = [retry for farewell in farewells for retry in farewell["retries"]]
    assert len(ends) == len(retries) == 2 * READERS
    assert onlooker.told["checks"]["draining"] is True
    assert onlooker.green_at < ends[0]
    assert begin <= onlooker.red_at < ends[READERS // 5]
    assert most_in_a_second(ends) <= 2 * 2 * READERS / DRAIN_SECONDS
    assert [retry for retry in retries if not RETRY_MS[0] <= retry <= RETRY_MS[1]] == []
    assert len(set(retries)) > READERS / 4
    assert [herd["wrong"] for herd in seen] == [[], []]
    assert scene.history.problems() == []
    assert all("draining" in subscriber.endings for subscriber in scene.subscribers)


def together(herds: Sequence[MultitudeProcess], *command: object) -> list[dict[str, Any]]:
    """Ask all at once."""
    for herd in herds:
        herd.send(*command)
    return [herd.answer() for herd in herds]


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
