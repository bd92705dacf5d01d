"""What was missed is read from Redis while the log moves on: trimmed under a node that lags, or slow to answer."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import pytest

from server.relay.redis_client import script
from tests.faults.checker import History, Seen
from tests.faults.test_redis_faults import Site, gap_reasons
from tests.faults.witnesses import TOPIC, Attempt, Scene
from tests.harness.overheard import Overheard
from tests.harness.proxy import Proxy
from tests.harness.redis import RedisServer
from tests.rounds import ROUNDS

RETAINED = 200
IN_MEMORY = 20
JOINS = 500 if ROUNDS > 1 else 120
JOINS_AT_ONCE = 6
PATH = f"/channels/main/events?topic={TOPIC}"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


def declared(log: list[Seen], everything: list[str]) -> set[str]:
    """The ids, of all that were given, that the gaps of a log declare as missing."""
    found: set[str] = set()
    for gap in (json.loads(entry.id) for entry in log if entry.gap):
        assert gap["reason"] == "history"
        found.update(wire_id for wire_id in everything if gap["from"] < wire_id <= gap["to"])
    return found


def test_a_log_that_was_trimmed_past_a_node_is_a_gap_with_exact_borders(
    tmp_path: Path, redis: RedisServer, seed: int
) -> None:
    """FLT-14: a node stands still while more is published than is retained; the second time its connections are ended
    meanwhile. Its readers are told from where to where something is missing: exactly that is, and the rest is whole.
    """
    rng = random.Random(seed)
    one = Site(tmp_path, redis, retain_events=RETAINED, heartbeat_seconds=1)
    try:
        _, lagging = one.start().nodes
        with Scene(*one.ports, every=0.0005) as scene:
            for ended in (False, True):
                scene.wait_for(rng.randrange(20, 60))
                os.kill(lagging.pid, signal.SIGSTOP)
                scene.wait_for(RETAINED + rng.randrange(50, 2 * RETAINED))
                if ended:
                    one.proxies[1].reset()
                os.kill(lagging.pid, signal.SIGCONT)
                scene.healed()
                one.wait_ready(True)
            scene.wait_for(30)
    finally:
        one.stop()
    assert scene.history.problems() == []
    whole = [entry.id for entry in scene.history.seen["subscriber 0"]]
    for name in ("subscriber 1", "subscriber 3"):  # those of the node that stood still
        log = scene.history.seen[name]
        assert set(whole) - {entry.id for entry in log} == declared(log, whole)
        assert sum(entry.gap for entry in log) == 2


class Stutter:
    """What Redis says is held up at these proxies for moments, again and again."""

    def __init__(self, proxies: list[Proxy], seed: int) -> None:
        self.proxies, self.rng = proxies, random.Random(seed)
        self.leaving = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.leaving.wait(self.rng.uniform(0.001, 0.03)):
            proxy = self.rng.choice(self.proxies)
            proxy.hold(forward=False)
            self.leaving.wait(self.rng.uniform(0.005, 0.08))
            proxy.heal()

    def __enter__(self) -> Stutter:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leaving.set()
        self.thread.join(10)


def join(scene: Scene, ports: list[int], seed: int) -> list[str]:
    """A reader comes to some node with a cursor from anywhere and reads for a while; what is wrong with what it saw."""
    rng = random.Random(seed)
    known = scene.history.seen["subscriber 0"]
    newest = len(known) - 1
    place = newest - rng.randrange(min(newest, rng.choice((1, 5, IN_MEMORY, 400, 400, 400))) + 1)
    after, count = known[place], rng.choice((0, 1, 3, 30, 60))  # 0: gone before the replay has come
    log: list[Seen] = []
    with Attempt(rng.choice(ports), PATH, Last_Event_ID=after.id) as stream:
        for block in stream.events(count):
            gap = block.type == "gap"
            log.append(Seen(-1, block.data or "") if gap else Seen(int(block.data or ""), block.id or ""))
    last = max((entry.number for entry in log), default=-1)
    numbers = [n for n in range(after.number + 1, last + 1) if scene.history.topics[n] == TOPIC]
    outcomes = {number: scene.history.outcomes[number] for number in numbers}
    return History(outcomes, {f"join {seed} after {after.number}": log}).problems()


def test_readers_that_join_while_redis_is_slow_to_answer_see_no_seam(
    tmp_path: Path, redis: RedisServer, seed: int
) -> None:
    """FLT-25: readers of two nodes come with cursors from anywhere, and most of what they missed is in Redis alone.
    Each sees exactly what follows its cursor, whatever is published while it is read.
    """
    one = Site(tmp_path, redis, ring_events=IN_MEMORY)
    try:
        one.start()
        with Scene(*one.ports) as scene:
            scene.wait_for(500)
            reads = Overheard(redis, "evalsha", script("read").digest)
            with Stutter(one.proxies, seed), reads, ThreadPoolExecutor(JOINS_AT_ONCE) as pool:
                seeds = range(seed * JOINS, (seed + 1) * JOINS)
                problems = list(pool.map(lambda number: join(scene, one.ports, number), seeds))
    finally:
        one.stop()
    assert [text for found in problems for text in found] == []
    assert scene.history.problems() == []
    assert gap_reasons(scene) == set()
    assert reads.count > JOINS / 8
