"""Large events, bursts, readers that join in the middle, and connections that break inside an event."""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import threading
import time
from bisect import bisect
from collections.abc import Iterator

from tests.faults.checker import History, Seen
from tests.faults.witnesses import Publisher, Scene
from tests.harness.process import Node, wait_until
from tests.harness.stream import Stream
from tests.threats.conftest import Start
from tests.threats.crowd import Crowd
from tests.threats.neighbours import Neighbours
from tests.threats.process_facts import cpu_seconds, rss_bytes
from tests.threats.wire import answered, request

MIB = 1 << 20
JSON = {"Content_Type": "application/json"}
FORM = {"Content_Type": "application/x-www-form-urlencoded"}
OPEN = request("GET", "/channels/main/events?topic=t", Accept="text/event-stream")
END = b'{"topic": "t", "data": "end"}'
BURST = 50_000
DRAINED_SECONDS = 5
BLOCK = re.compile(rb"^(?:event|id: \S+\ndata): (\w+)\n", re.MULTILINE)


def lines(first: int, count: int) -> bytes:
    return b"\n".join(b'{"topic": "t", "data": "%d"}' % number for number in range(first, first + count))


def publish_many(node: Node, first: int, count: int) -> None:
    raw = request("POST", "/channels/main/events", lines(first, count), Content_Type="application/x-ndjson")
    assert answered(node.port, raw).status == 200


def test_an_event_that_grows_in_the_encoding_is_measured_as_it_is_sent(roomy_node: Node) -> None:
    """FLT-23, E18: a megabyte of line ends would be seven on the wire: 413, soon; neighbours notice nothing."""
    node = roomy_node
    with Neighbours(node.port):
        before = cpu_seconds(node.pid)
        form = request("POST", "/.well-known/mercure", b"topic=t&data=" + b"\n" * (MIB - 100), **FORM)
        assert answered(node.port, form).status == 413
        text = b'{"topic": "t", "data": "' + b"\\n" * (MIB // 2 - 100) + b'"}'
        assert answered(node.port, request("POST", "/channels/main/events", text, **JSON)).status == 413
        fields = b"topic=t&" + b"a=b&" * 200_000
        assert answered(node.port, request("POST", "/.well-known/mercure", fields, **FORM)).status in (200, 400, 413)
        topics = b"&".join(b"topic=%d" % number for number in range(100_000))
        assert answered(node.port, request("POST", "/.well-known/mercure", topics, **FORM)).status == 413
        assert cpu_seconds(node.pid) - before < 1.0


def test_a_large_event_is_kept_once_however_many_read_it(roomy_node: Node) -> None:
    """FLT-23: 100 readers of ten events of a megabyte share one copy."""
    node = roomy_node
    body = b'{"topic": "t", "data": "' + b"x" * (MIB - 1000) + b'"}'
    with Crowd(node.port, 100, OPEN) as crowd:
        crowd.wait(lambda: all(b"hello" in member.received for member in crowd.members), 10, "100 streams")
        before = rss_bytes(node.pid)
        for _ in range(10):
            assert answered(node.port, request("POST", "/channels/main/events", body, **JSON)).status == 200
        end = body[:24] + b"end" + b'"}'
        assert answered(node.port, request("POST", "/channels/main/events", end, **JSON)).status == 200
        crowd.wait(
            lambda: all(member.received.endswith(b"data: end\n\n\r\n") for member in crowd.members),
            20,
            "the end at each",
        )
        assert rss_bytes(node.pid) - before < 10 * MIB + 32 * MIB


class Arrivals:
    """A reader that writes down when each event came. HTTP/1.0, so that no chunk framing is in the way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.sendall(b"GET /channels/main/events?topic=t HTTP/1.0\r\nHost: localhost\r\n\r\n")
        self.got = bytearray()
        self.times: list[tuple[int, float]] = []  # so many bytes at that moment
        self.read(b"event: hello")
        self.thread = threading.Thread(target=self.read, args=(b"data: end\n\n",), daemon=True)
        self.thread.start()

    def read(self, until: bytes) -> None:
        while until not in self.got[-100_000:]:
            more = self.socket.recv(65_536)
            if not more:
                return
            self.got += more
            self.times.append((len(self.got), time.monotonic()))

    def blocks(self) -> Iterator[tuple[str, float]]:
        """The type of each block that has one, else its data, and when it was there."""
        self.thread.join(30)
        for block in BLOCK.finditer(self.got):
            yield block[1].decode(), self.times[bisect(self.times, (block.end(), 0.0))][1]


def test_a_burst_after_silence_reaches_healthy_readers_whole(start: Start, seed: int) -> None:
    """FLT-24: 50,000 events as fast as the node takes them: readers that read get all in order, without a gap, are not
    taken for slow, and have 99 % of them within five seconds.
    """
    rng = random.Random(seed)
    node = start(ring_events=BURST)
    with contextlib.ExitStack() as stack:
        readers = [Arrivals(node.port) for _ in range(3)]
        for reader in readers:
            stack.enter_context(contextlib.closing(reader.socket))
        began: list[float] = []
        while len(began) < BURST:
            count = min(rng.randrange(200, 1000), BURST - len(began))
            moment = time.monotonic()
            publish_many(node, len(began), count)
            began += [moment] * count
        assert answered(node.port, request("POST", "/channels/main/events", END, **JSON)).status == 200
        for reader in readers:
            (hello, _), *events, (end, _) = reader.blocks()
            assert [hello, *(data for data, _ in events), end] == ["hello", *map(str, range(BURST)), "end"]
            latencies = sorted(came - since for (_, came), since in zip(events, began, strict=True))
            assert latencies[BURST * 99 // 100] <= DRAINED_SECONDS


def test_readers_that_join_while_events_pour_in_see_no_seam(start: Start, seed: int) -> None:
    """FLT-25: 200 joins with cursors at random places between replay and live: each reader sees exactly what follows
    its cursor.
    """
    node = start(ring_events=100_000)
    rng = random.Random(seed)
    ids: list[str] = []
    leaving = threading.Event()
    publisher = threading.Thread(target=_pour, args=(node, ids, leaving))
    publisher.start()
    try:
        wait_until(lambda: len(ids) >= 100)
        for _ in range(200):
            place = rng.randrange(max(0, len(ids) - rng.choice((2, 20, 2000))), len(ids))
            with Stream(node.port, "/channels/main/events?topic=t", Last_Event_ID=ids[place]) as stream:
                got = [block.data for block in stream.events(rng.choice((3, 30, 60)))]
            assert got == [str(number) for number in range(place + 1, place + 1 + len(got))]
    finally:
        leaving.set()
        publisher.join(10)


def _pour(node: Node, ids: list[str], leaving: threading.Event) -> None:
    while not leaving.wait(0.002):
        raw = request("POST", "/channels/main/events", lines(len(ids), 5), Content_Type="application/x-ndjson")
        ids.extend(answered(node.port, raw).body.decode().split('"')[3::2])


def test_a_connection_cut_inside_an_event_costs_nothing(start: Start, seed: int) -> None:
    """FLT-29, E12: cut at 150 random byte offsets, a client that resumes from its last whole block loses and repeats
    nothing.
    """
    node = start()
    with Stream(node.port, "/channels/main/events?topic=t") as stream:
        first = str(stream.next_event().id)
    publish_many(node, 0, 400)
    history = History(dict.fromkeys(range(400), "ok"), {"cut": []})
    log, cursor, rng = history.seen["cut"], first, random.Random(seed)
    for turn in range(2000):
        if log and log[-1].number == 399:
            break
        text = _received(node, cursor, rng.randrange(700, 3000))
        for block in text.split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            cursor = fields.get("id", cursor)
            assert fields.get("event") in (None, "hello"), fields
            if "event" not in fields and "data" in fields:
                log.append(Seen(int(fields["data"]), fields["id"]))
        assert turn < 1999
    assert history.problems() == []


def _received(node: Node, cursor: str, count: int) -> str:
    """The body of a stream after `count` bytes, cut off with RST. HTTP/1.0, so that no chunk framing is in the way."""
    raw = f"GET /channels/main/events?topic=t HTTP/1.0\r\nHost: localhost\r\nLast-Event-ID: {cursor}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        connection.sendall(raw)
        got = b""
        while len(got) < count and b"data: 399\n\n" not in got:  # the present may come along, as a block of its own
            got += connection.recv(count - len(got))
    return got.partition(b"\r\n\r\n")[2].decode()


class LongPublisher(Publisher):
    """Its events are as long as a page of memory, so that a reader that is slow fills what the kernel has for it."""

    def request(self, number: int) -> tuple[str, str, str]:
        method, path, body = super().request(number)
        return method, path, json.dumps(json.loads(body) | {"data": f"{number:>4096}"})


class LongScene(Scene):
    publisher_of = LongPublisher


def test_subscribers_of_many_speeds_see_one_order(start: Start, seed: int) -> None:
    """FLT-24, I3: fast and slow subscribers agree; who was too slow was told, nobody else was, and all stayed."""
    rng = random.Random(seed)
    node = start(lag_events=rng.randrange(40, 80))
    with LongScene(node.port, every=0.0005) as scene:
        scene.wait_for(rng.randrange(1500, 2000), 60)
    assert scene.history.problems() == []
    logs = scene.history.seen | scene.history.others
    gaps = {name: [json.loads(entry.id)["reason"] for entry in log if entry.gap] for name, log in logs.items()}
    assert {name: set(reasons) for name, reasons in gaps.items() if reasons} == {"slow": {"lag"}}
    assert all(one.connections == 1 for one in scene.everybody if one.chance is None)
