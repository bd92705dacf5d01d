"""Large events in Redis, and many of them to be read at once: at a start, for who comes back, after a node stood still.

What a node asks Redis for has to fit into the time that it waits for an answer, into its memory, and into a turn of its
loop, however large the events are. The links here are slow, so that little is too much for one answer.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ringcast import RedisPublisher, make_event
from tests.harness.process import Node, wait_until
from tests.harness.proxy import Proxy
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream
from tests.threats.conftest import finish_all

EVENTS = "/channels/main/events"
MIB = 1 << 20
LARGE = 900_000
LONGEST_TURN_SECONDS = 0.4  # what comes in a turn takes about 10 ms, on cores that have other things to do
ROOMY = {"lag_bytes": 1 << 30, "lag_events": 100_000, "write_stall_seconds": 60}


class Site:
    """A Redis, a publisher beside it, and nodes that reach it by one link."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.redis = RedisServer(folder).start()
        self.link = Proxy(self.redis.port).start()
        self.nodes: list[Node] = []

    def start(self, **settings: object) -> Node:
        url = f"redis://127.0.0.1:{self.link.port}/0"
        self.nodes.append(Node(self._folder, relay=url, drain_seconds=0, **ROOMY | settings))
        return self.nodes[-1].start()

    def publish(self, *sizes: int) -> list[str]:
        """One event of each size, which begins with its number; their ids."""
        ids: list[str] = []
        events = [make_event("t", f"{number} ".ljust(size, "x")) for number, size in enumerate(sizes)]
        with closing(RedisPublisher(self.redis.url, shards=1)) as publisher:
            while len(ids) < len(events):
                ids += publisher.publish_many(events[len(ids) : len(ids) + 5])
        return ids

    def stop(self) -> None:
        self.link.bytes_a_second = 0
        try:
            finish_all(self.nodes)
        finally:
            self.link.stop()
            self.redis.stop()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    yield one
    one.stop()


def told(stream: Stream, last: int, seconds: float = 30) -> list[bytes]:
    """What a stream brings up to the event with that number: numbers of events, and names of what is not an event."""
    found: list[bytes] = []
    rest = stream.received
    end = time.monotonic() + seconds
    while not found or found[-1] != b"%d" % last:
        assert time.monotonic() < end, f"so far: {found}"
        more = stream.socket.recv(1 << 20)
        assert more, f"the stream ended after {found}"
        rest += more
        at = 0
        for match in re.finditer(rb"(?:^|\n)(?:data: (\d+) x|event: (\w+)\n)", rest):
            found.append(match[1] or match[2])
            at = match.end()
        rest = rest[max(at, len(rest) - 100) :]
    return [word for word in found if word != b"hello"]


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def peak_bytes(node: Node) -> int:
    """The most memory that a process has had."""
    (line,) = [line for line in Path(f"/proc/{node.pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_a_node_starts_beside_a_log_that_is_larger_than_its_memory_may_be(site: Site) -> None:
    """It reads what it keeps (`ring_bytes`), in pages; no answer has to bring more than the link carries in time."""
    few = peak_bytes(site.start())
    site.publish(*[LARGE] * 60)
    site.link.bytes_a_second = 8 * MIB
    node = site.start(ring_bytes=8 * MIB)
    assert peak_bytes(node) - few < 48 * MIB  # each event is there as text and as a frame, and a page as it came
    kept = json.loads(node.get("/stats")[2])["channels"]["main"]["retained_events"]
    assert 8 <= kept <= 10


def test_who_comes_back_to_large_events_far_back_gets_all_of_them(site: Site) -> None:
    """They are read in pages that hold as much as comes in time: nobody is told `unavailable`."""
    node = site.start(ring_bytes=MIB)
    ids = site.publish(*[LARGE] * 71)
    site.link.bytes_a_second = 12 * MIB
    with Stream(node.port, EVENTS, seconds=30, Last_Event_ID=ids[0]) as stream:
        assert told(stream, 70) == numbers(71)[1:]
    assert "history_not_read" not in node.log()


def test_a_tail_behind_a_slow_link_catches_up(site: Site) -> None:
    """One answer with all that it may ask for by count would take twice the time that it waits."""
    node = site.start()
    with Stream(node.port, EVENTS, seconds=30) as stream:
        stand_still(node, lambda: site.publish(*[30_000] * 300))
        site.link.bytes_a_second = 2 * MIB
        assert told(stream, 299) == numbers(300)
    wait_until(lambda: node.get("/ready")[0] == 200)
    assert "tail_broke" not in node.log()


def stand_still(node: Node, meanwhile: Callable[[], object]) -> None:
    """The process gets no CPU until that is done, and long enough to be late for all it waited for."""
    os.kill(node.pid, signal.SIGSTOP)
    end = time.monotonic() + 1.5
    try:
        meanwhile()
        time.sleep(max(0.0, end - time.monotonic()))  # the fault
    finally:
        os.kill(node.pid, signal.SIGCONT)


def test_a_node_that_stood_still_reads_on_in_short_turns(site: Site) -> None:
    """Whatever the sizes, also large ones behind small ones; others are served meanwhile, and its memory is bounded."""
    node = site.start(ring_bytes=8 * MIB)
    few = peak_bytes(node)
    stand_still(node, lambda: site.publish(*[300] * 300, *[LARGE] * 80))
    longest, published = 0.0, 0
    with closing(http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)) as connection:
        while published < 380:
            began = time.monotonic()
            connection.request("GET", "/stats")
            published = json.loads(connection.getresponse().read())["channels"]["main"]["published"]
            longest = max(longest, time.monotonic() - began)
    assert longest < LONGEST_TURN_SECONDS
    assert peak_bytes(node) - few < 64 * MIB
