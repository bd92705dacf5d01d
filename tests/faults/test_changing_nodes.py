"""Readers whose node goes away and who obey: they come back to another node when they were told to, with their cursor.

`Obedient` is a herd of them. Each chooses the next node when its own has ended its stream or does not answer.
"""

from __future__ import annotations

import random
import re
import signal
import time
from bisect import bisect, insort
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.checker import History, Seen
from tests.faults.herd import Address, Herd, Reader
from tests.faults.test_redis_faults import Site
from tests.faults.witnesses import TOPIC, Publisher
from tests.harness.redis import RedisServer
from tests.rounds import ROUNDS

READERS = 1500 if ROUNDS > 1 else 600
PATH = f"/channels/main/events?topic={TOPIC}"
RETRY_MS = (500, 2000)
DRAIN_SECONDS = 3.0
GRACE_SECONDS = 3.0  # beyond the drain
RETRY = re.compile(rb"^retry: (\d+)$", re.MULTILINE)


class Obedient(Herd):
    """`due` is when each was told to come back after its stream had ended, `resumed` how long after that each had
    the first event that it had missed, and `came` when somebody knocked.
    """

    def __init__(self, ports: list[int]) -> None:
        super().__init__(PATH, READERS)
        self.addresses: list[Address] = [("127.0.0.1", port) for port in ports]
        self.due: dict[Reader, float] = {}
        self.resumed: list[float] = []
        self.came: list[float] = []

    def _come(self, reader: Reader) -> None:
        self.came.append(time.monotonic())
        super()._come(reader)

    def _read(self, reader: Reader) -> None:
        super()._read(reader)
        if reader.back and reader in self.due and b"\ndata: " in reader.streams[-1].partition(b"\n\nid: ")[2]:
            self.resumed.append(time.monotonic() - self.due.pop(reader))

    def _gone(self, reader: Reader, why: str | None = None) -> None:
        was_there = reader.back
        super()._gone(reader, why)
        if self.staying_away:
            return
        place = self.addresses.index(reader.address)
        reader.address = self.addresses[(place + 1) % len(self.addresses)]
        if was_there:
            self.again.pop()
            self.due[reader] = time.monotonic() + int(RETRY.findall(reader.streams[-1])[-1]) / 1000
            insort(self.again, (self.due[reader], reader), key=lambda one: one[0])

    def most_in_a_second(self, since: float) -> int:
        """How many have knocked at the most within a second, of those that came since."""
        times = [moment for moment in self.came if moment >= since]
        return max(bisect(times, moment + 1) - number for number, moment in enumerate(times))

    def problems(self, history: History) -> list[str]:
        """What is wrong with what they have seen; each order is judged once."""
        orders = {tuple(reader.events()) for reader in self.readers}
        logs = {f"{n}": [Seen(number, wire_id) for wire_id, number in order] for n, order in enumerate(orders)}
        return History(history.outcomes, logs).problems()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Three nodes over one Redis."""
    redis = RedisServer(tmp_path).start()
    retries = {"retry_min_ms": RETRY_MS[0], "retry_max_ms": RETRY_MS[1]}
    one = Site(tmp_path, redis, count=3, drain_seconds=DRAIN_SECONDS, max_age_seconds=0, **retries)
    try:
        yield one.start()
    finally:
        for node in one.nodes:
            node.kill()  # a drain has no reader to wait for, and is not what this is about
        one.stop()
        redis.stop()


def finish(herd: Obedient, publisher: Publisher, history: History) -> None:
    """All are there and have everything to the last event; nobody has missed anything."""
    last = b"\ndata: %d\n" % publisher.finish()
    waiting = set(herd.readers)

    def all_have_it() -> bool:
        waiting.difference_update([one for one in waiting if last in one.streams[-1]])
        return not waiting

    herd.wait(all_have_it, 30, "the last event at each")
    assert herd.problems(history) == []
    assert not any(b"\nevent: gap\n" in stream for reader in herd.readers for stream in reader.streams)


def test_readers_of_a_node_that_was_killed_go_on_at_another_a_second_after_their_time(site: Site, seed: int) -> None:
    """FLT-09: under load. The time is the `retry` that each was told; 99 % have what they missed a second later."""
    rng = random.Random(seed)
    doomed = rng.choice(site.nodes)
    left = [port for port in site.ports if port != doomed.port]
    history = History()
    publisher = Publisher(left, history, every=0.01)
    with Obedient(site.ports) as herd:
        herd.come(herd.addresses)
        herd.wait(herd.arrived(), 30, "everybody")
        publisher.thread.start()
        goal = rng.randrange(50, 150)
        herd.wait(lambda: publisher.next >= goal, 30, "some events")
        doomed.kill()
        herd.wait(lambda: len(herd.resumed) == READERS // 3, 30, "its readers at another node")
        finish(herd, publisher, history)
    assert sorted(herd.resumed)[len(herd.resumed) * 99 // 100] < 1


def test_a_rolling_restart_sends_readers_away_no_faster_than_half_of_what_nodes_can_take(site: Site, seed: int) -> None:
    """FLT-10: what they can take is measured by everybody's coming at once. Each node is gone in time, and nobody
    misses anything.
    """
    rng = random.Random(seed)
    history = History()
    publisher = Publisher(site.ports, history, every=0.02)
    with Obedient(site.ports) as herd:
        began = time.monotonic()
        herd.come(herd.addresses)
        herd.wait(herd.arrived(), 30, "everybody")
        taken_a_second = READERS / (time.monotonic() - began)
        publisher.thread.start()
        began = time.monotonic()
        for node in rng.sample(site.nodes, 3):
            goal = publisher.next + rng.randrange(10, 40)
            herd.wait(lambda goal=goal: publisher.next >= goal, 30, "some events")  # type: ignore[misc]
            process = node.process
            assert process is not None
            process.send_signal(signal.SIGTERM)
            herd.wait(lambda process=process: process.poll() is not None, DRAIN_SECONDS + GRACE_SECONDS, "its end")  # type: ignore[misc]
            assert process.returncode == 0
            herd.wait(herd.arrived(), 30, "everybody at the others")
            node.start()
        finish(herd, publisher, history)
    assert herd.most_in_a_second(began) <= taken_a_second / 2, taken_a_second
