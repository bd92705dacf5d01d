"""Readers that do not read, push data the wrong way, or are gone without a word."""

from __future__ import annotations

import ctypes
import random
import socket
import struct
import time

import pytest

from tests.harness.process import Node, wait_until
from tests.harness.stream import Stream
from tests.threats.conftest import Start
from tests.threats.crowd import Crowd
from tests.threats.neighbours import Neighbours
from tests.threats.process_facts import cpu_share, descriptors, rss_bytes
from tests.threats.wire import FIRST, Wire, answered, request

MIB = 1 << 20
OPEN = request("GET", "/channels/main/events", Accept="text/event-stream")
SO_ATTACH_FILTER = 26


def publish_megabytes(node: Node, count: int) -> list[str]:
    """Publish `count` events of about a megabyte on topic `large`; their ids."""
    ids = []
    connection = Wire(node.port, seconds=20)
    body = b'{"topic": "large", "data": "' + b"x" * (MIB - 1000) + b'"}'
    for _ in range(count):
        connection.send(request("POST", "/channels/main/events", body, Content_Type="application/json"))
        answer = connection.answer()
        assert answer is not None and answer.status == 200, answer
        ids.append(answer.body.decode().split('"')[3])
    connection.close()
    return ids


def test_readers_that_never_read_cost_only_themselves(start: Start) -> None:
    """S03: 40 readers never read while 100 MB are published: closed by the write stall, memory bounded, neighbours
    untouched, no loss on resume.
    """
    node = start(write_stall_seconds=2, ring_bytes=16 * MIB)
    publish_megabytes(node, 24)
    cursor = publish_megabytes(node, 1)[0]
    before = rss_bytes(node.pid)
    with Neighbours(node.port):
        joined = len(descriptors(node.pid))
        with Crowd(node.port, 40, OPEN, reading=False, receive_buffer_bytes=2304):
            ids = publish_megabytes(node, 100)
            assert rss_bytes(node.pid) - before < 40 * 256 * 1024 + before // 10
            # Seen from the server: the goodbye itself can't reach a client that does not read.
            wait_until(lambda: len(descriptors(node.pid)) <= joined, 10, "the stalled readers gone")
    with Stream(node.port, "/channels/main/events?topic=large", Last_Event_ID=cursor) as stream:
        assert stream.next_event().type == "hello"
        gap, *events = [stream.next_event() for _ in range(10)]
        assert gap.type == "gap" and '"history"' in (gap.data or "")
        first = ids.index(events[0].id or "")
        assert [event.id for event in events] == ids[first : first + len(events)]


def test_a_reader_too_slow_for_a_while_loses_nothing_unsaid(start: Start) -> None:
    """S03: a reader that pauses and reads on gets every event or a declared gap in front of the hole."""
    node = start(lag_events=10, lag_bytes=MIB)
    with Stream(node.port, "/channels/main/events?topic=large", seconds=10) as stream:
        stream.next_event()
        ids = publish_megabytes(node, 24)
        seen: list[str] = []
        gaps = 0
        while not seen or seen[-1] != ids[-1]:
            block = stream.next_event()
            if block.type == "gap":
                gaps += 1
                seen.append("gap")
            else:
                seen.append(str(block.id))
    missing = [i for i, name in enumerate(ids) if name not in seen]
    assert bool(gaps) == bool(missing)
    for i in missing:
        behind = next(name for name in ids[i:] if name in seen)
        assert seen[seen.index(behind) - 1] == "gap"
    assert [name for name in seen if name != "gap"] == [name for name in ids if name in seen]


def test_surplus_bytes_then_a_goodbye_leave_nothing_behind(start: Start) -> None:
    """S04: 300 clients send one byte more than their request and then FIN: no connection is left within a heartbeat."""
    node = start(heartbeat_seconds=2)
    before = len(descriptors(node.pid))
    with Neighbours(node.port), Crowd(node.port, 300, OPEN) as crowd:
        crowd.wait(lambda: all(b"hello" in member.received for member in crowd.members), 10, "300 streams")
        crowd.send_each(b"x")
        crowd.half_close()
        crowd.wait_closed(2)
    wait_until(lambda: len(descriptors(node.pid)) <= before, 10, "descriptors back at their number before")


def test_surplus_bytes_alone_end_the_stream_by_both_ways_in(open_node: Node) -> None:
    """S04: bytes after the request end the stream, also if they come in the same packet."""
    for prefix in (b"", *FIRST.values()):
        for surplus in (b"x", b"\r\n\r\n", request("GET", "/health")):
            with (
                Crowd(open_node.port, 1, prefix + OPEN + surplus) as together,
                Crowd(open_node.port, 1, prefix + OPEN) as apart,
            ):
                apart.wait(lambda: b"hello" in apart.members[0].received, 5, "a stream")
                apart.send_each(surplus)
                apart.wait_closed(5)
                together.wait_closed(5)


def test_data_pushed_up_a_stream_is_not_collected(start: Start) -> None:
    """S04: 100 clients that push 6 MB each find no room for it: the kernel takes little and the stream ends."""
    node = start(heartbeat_seconds=0)
    before = rss_bytes(node.pid)
    with Neighbours(node.port), Crowd(node.port, 100, OPEN, reading=False) as crowd:
        taken, end = 0, time.monotonic() + 5
        while crowd.open and time.monotonic() < end:
            for member in crowd.open:
                taken += _push(member.socket)
            crowd.step(0.01)
        assert not crowd.open
        assert taken < 100 * 2 * MIB
    assert rss_bytes(node.pid) - before < 10_000_000


def _push(connection: socket.socket) -> int:
    try:
        return connection.send(b"x" * 65536)
    except OSError:
        return 0


def go_deaf(connection: socket.socket) -> None:
    """Drop every packet that comes for this socket, without a word to the peer: a cable that was pulled."""
    code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(code)))


@pytest.mark.fault
def test_half_open_peers_are_noticed_within_two_heartbeats(start: Start, seed: int) -> None:
    """S05, FLT-12: 200 of 240 peers vanish without FIN; they are gone after two heartbeats and
    tcp_user_timeout_seconds, the others and neighbours live on.
    """
    rng = random.Random(seed)
    node = start(heartbeat_seconds=1, tcp_user_timeout_seconds=2)
    before = len(descriptors(node.pid))
    with Neighbours(node.port) as neighbours:
        joined = len(descriptors(node.pid))
        with Crowd(node.port, 240, OPEN) as crowd:
            crowd.wait(lambda: all(b"hello" in member.received for member in crowd.members), 10, "240 streams")
            time.sleep(rng.uniform(0, 1))  # anywhere between two heartbeats
            vanished = rng.sample(range(240), 200)
            for number in vanished:
                go_deaf(crowd.members[number].socket)
            wait_until(lambda: len(descriptors(node.pid)) <= joined + 40, 2 * 1 + 2 + 2, "the vanished peers gone")
            neighbours.wait_for(5)
            others = [member for number, member in enumerate(crowd.members) if number not in vanished]
            crowd.step()
            for member in others:
                member.received = b""
            crowd.wait(lambda: all(member.received for member in others), 10, "something for each of the others")
            assert all(member.open for member in others)
            assert len(descriptors(node.pid)) == joined + 40
    wait_until(lambda: len(descriptors(node.pid)) <= before, 10, "descriptors back at their number before")
    assert cpu_share(node.pid, 0.5) < 0.1


def test_peers_that_reset_at_once_leave_nothing_behind(start: Start) -> None:
    """S05: 20 times 50 streams ended by RST: descriptors are back each time, and the node answers."""
    node = start()
    before = len(descriptors(node.pid))
    for _ in range(20):
        crowd = Crowd(node.port, 50, OPEN)
        crowd.wait(lambda: all(member.received for member in crowd.members), 10, "50 answers")  # noqa: B023
        crowd.close(reset=True)
    wait_until(lambda: len(descriptors(node.pid)) <= before, 10, "descriptors back at their number before")
    assert answered(node.port, request("GET", "/health")).status == 200
