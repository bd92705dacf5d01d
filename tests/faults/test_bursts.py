"""Large events, bursts, readers that join in the middle, and connections that break inside an event."""

from __future__ import annotations

import random
import socket
import threading

from tests.faults.checker import History, Seen
from tests.faults.witnesses import Scene
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


def test_a_burst_after_silence_reaches_healthy_readers_whole(start: Start) -> None:
    """FLT-24: 20,000 events in about a second: readers that read get all in order, without a gap, and are not taken for
    slow.
    """
    node = start(ring_events=50_000)
    streams = [Stream(node.port, "/channels/main/events?topic=t", seconds=20) for _ in range(3)]
    seen: list[list[str]] = [[] for _ in streams]

    def read(number: int) -> None:
        for block in streams[number].events(20_000, 20):
            assert block.type == "message", block
            seen[number].append(block.data or "")

    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(streams))]
    for thread in threads:
        thread.start()
    for first in range(0, 20_000, 1_000):
        publish_many(node, first, 1_000)
    for thread in threads:
        thread.join(30)
    for stream, got in zip(streams, seen, strict=True):
        assert got == [str(number) for number in range(20_000)]
        stream.close()


def test_readers_that_join_while_events_pour_in_see_no_seam(start: Start) -> None:
    """FLT-25: 200 joins with cursors at random places between replay and live: each reader sees exactly what follows
    its cursor.
    """
    node = start(ring_events=100_000)
    rng = random.Random(25)
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


def test_a_connection_cut_inside_an_event_costs_nothing(start: Start) -> None:
    """FLT-29, E12: cut at 150 random byte offsets, a client that resumes from its last whole block loses and repeats
    nothing.
    """
    node = start()
    with Stream(node.port, "/channels/main/events?topic=t") as stream:
        first = str(stream.next_event().id)
    publish_many(node, 0, 400)
    history = History(dict.fromkeys(range(400), "ok"), {"cut": []})
    log, cursor, rng = history.seen["cut"], first, random.Random(29)
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


def test_subscribers_of_many_speeds_see_one_order(start: Start) -> None:
    """FLT-24, I3: fast and slow subscribers agree; who was too slow was told."""
    node = start(lag_events=50)
    with Scene(node.port, subscribers=3, every=0.0005) as scene:
        scene.wait_for(1500, 20)
    assert scene.history.problems() == []
