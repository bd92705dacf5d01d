"""Everybody comes back at once: a node is killed, every connection is gone, and the whole herd is at the door of the
node that is left, each reader with its cursor, while events go on.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.relay.redis_client import script
from tests.faults.checker import History
from tests.faults.herd import HerdProcess
from tests.faults.test_redis_faults import Site, over_redis
from tests.faults.witnesses import TOPIC, Publisher, Subscriber
from tests.harness.overheard import Overheard
from tests.harness.process import wait_until
from tests.harness.stream import Block

READERS = 5000
MISSED = 300
IN_MEMORY = 50  # the rest of what was missed has to come from Redis
# Two pages for each place that readers can have been at: when they were cut off some had an event that others had not.
MOST_READS = 6
PATH = f"/channels/main/events?topic={TOPIC}"


class TimedPublisher(Publisher):
    """`began` is when the publishing of each event began."""

    def __init__(self, ports: list[int], history: History, *, every: float) -> None:
        super().__init__(ports, history, every=every)
        self.began: dict[int, float] = {}

    def publish(self) -> str:
        self.began[self.next] = time.monotonic()
        return super().publish()


class TimedSubscriber(Subscriber):
    """`came` is when each event came."""

    def __init__(self, ports: list[int], history: History, name: str, publisher: Publisher) -> None:
        self.came: dict[int, float] = {}
        super().__init__(ports, history, name, publisher)

    def _take(self, block: Block) -> None:
        super()._take(block)
        if block.type == "message" and block.data is not None:
            self.came[int(block.data)] = time.monotonic()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Two nodes over one Redis. What they hold in memory is less than what the herd will have missed."""
    with over_redis(tmp_path, ring_events=IN_MEMORY, max_age_seconds=0) as one:
        yield one


def test_a_herd_of_five_thousand_finds_the_node_that_is_left(site: Site, seed: int) -> None:
    """FLT-19: 99 % are back in seconds, nobody is refused, live events go on meanwhile, what was missed is read from
    Redis a few times and not once for each, and nobody misses anything.
    """
    rng = random.Random(seed)
    killed, left = rng.sample(site.nodes, 2)
    history = History()
    publisher = TimedPublisher([left.port], history, every=0.25)
    witnesses = [TimedSubscriber([left.port], history, f"witness {n}", publisher) for n in range(2)]
    assert all(witness.opened.wait(10) for witness in witnesses)
    with HerdProcess(PATH, READERS) as herd, Overheard(site.redis, "evalsha", script("read").digest) as reads:
        herd.do("come", killed.port, left.port)
        publisher.thread.start()
        wait_published(publisher, rng.randrange(2, 6))
        killed.kill()
        herd.do("scatter")
        publisher.every = 0.0
        wait_published(publisher, rng.randrange(MISSED, 2 * MISSED))
        publisher.every = 0.05
        before, first = reads.count, publisher.next
        back = herd.do("come", left.port)
        herd.do("wait", publisher.next - 2)  # the last that is sure to be published
        during = range(first, publisher.next - 1)
        assert 0 < reads.count - before <= MOST_READS
        publisher.every = 0.25
        herd.do("wait", publisher.finish())
        seen = herd.do("tell")
    for witness in witnesses:
        witness.finish()
    assert history.problems() == []
    assert seen["gaps"] == 0
    assert seen["orders"] == [[[entry.id, entry.number] for entry in history.seen["witness 0"]]]
    assert back["unwelcome"] == {} and back["tries"] == READERS
    assert back["seconds_99"] < 10
    assert p99(publisher, witnesses[0], during) < 1


def wait_published(publisher: Publisher, more: int) -> None:
    goal = publisher.next + more
    wait_until(lambda: publisher.next >= goal, 30, f"{more} publishes")


def p99(publisher: TimedPublisher, witness: TimedSubscriber, numbers: range) -> float:
    """The latency that 99 % of these events kept."""
    latencies = sorted(witness.came[number] - publisher.began[number] for number in numbers)
    return latencies[int(len(latencies) * 0.99)]
