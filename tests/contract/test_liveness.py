"""Section 10 of the contract: bytes flow, and who is gone is noticed. A peer vanishes when its socket drops all that
comes in, as a cut cable does.
"""

from __future__ import annotations

import ctypes
import select
import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest

from tests.contract.conftest import StartChannel
from tests.contract.descriptors import descriptors, descriptors_with
from tests.harness.process import wait_until
from tests.harness.proxy import Proxy
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream

SO_ATTACH_FILTER = 26
TRIES = 3
DROP_EVERYTHING = struct.pack("HBBI", 0x06, 0, 0, 0)


def vanish(stream: Stream) -> None:
    """From now on this end acknowledges nothing and answers nothing; nobody is told."""
    program = ctypes.create_string_buffer(DROP_EVERYTHING)
    stream.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))


def longest_silence(streams: list[Stream], times: int) -> float:
    """The longest time without a byte on any of the streams, until bytes have come so many times on each."""
    poll = select.epoll()
    begin = time.monotonic()
    last = {stream.socket.fileno(): begin for stream in streams}
    left = dict.fromkeys(last, times)
    sockets = {stream.socket.fileno(): stream.socket for stream in streams}
    for number in last:
        poll.register(number, select.EPOLLIN)
    longest = 0.0
    while left:
        assert time.monotonic() < begin + 30, f"{len(left)} streams are silent"
        for number, _ in poll.poll(1):
            now = time.monotonic()
            assert sockets[number].recv(65536), "a stream ended"
            longest, last[number] = max(longest, now - last[number]), now
            left[number] = left.get(number, 0) - 1
            if left[number] <= 0:
                del left[number]
    poll.close()
    return longest


def test_bytes_flow_on_every_stream(channel: StartChannel) -> None:
    """10.1: six hundred quiet streams; none is silent for longer than the interval and a fifth. The best of some tries:
    the machine may stand still for a moment.
    """
    c = channel(heartbeat_seconds=2)
    streams = [c.stream(f"topic={number}") for number in range(600)]
    assert any(longest_silence(streams, 2) <= 2.4 for _ in range(TRIES))


def test_bytes_flow_though_events_go_past(channel: StartChannel, relay: str) -> None:
    """10.1: a filter that selects nothing is no reason for silence, nor is a log that is elsewhere."""
    c = channel(relay=relay, heartbeat_seconds=1)
    streams = [c.stream("topic=quiet") for _ in range(20)]
    publisher = c.publisher()
    busy = threading.Event()

    def publish() -> None:
        while not busy.wait(0.02):
            publisher.publish("busy", topic="busy")

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        assert any(longest_silence(streams, 2) <= 1.2 for _ in range(TRIES))
    finally:
        busy.set()
        thread.join(10)


def test_bytes_flow_to_who_waits_for_old_events(channel: StartChannel, redis: RedisServer) -> None:
    """10.1: what a reader has missed is in a log that does not answer; when it does, nothing is missing."""
    link = Proxy(redis.port).start()
    try:
        c = channel(relay=f"redis://127.0.0.1:{link.port}/0", heartbeat_seconds=0.5, ring_events=10)
        ids = c.publish_all([{"data": number} for number in range(200)])
        silences = []
        for _ in range(TRIES):
            link.hold(forward=False)
            whole, *streams = [c.stream(Last_Event_ID=event_id) for event_id in ids[:20]]
            silences.append(longest_silence(streams, 3))
            link.heal()
            assert [event.id for event in whole.events(len(ids) - 1)] == ids[1:]
        assert min(silences) <= 0.6
    finally:
        link.stop()


@pytest.mark.parametrize("busy", [False, True], ids=["quiet", "busy"])
def test_a_peer_that_vanished_is_noticed(channel: StartChannel, busy: bool) -> None:
    """10.2: within two heartbeats, whether events go out or only heartbeats; a peer that is there stays."""
    c = channel(heartbeat_seconds=2, tcp_user_timeout_seconds=1)
    publisher = c.publisher()
    publisher.publish("first")
    before = descriptors_with(c.node, 1)
    stays, *gone = [c.stream() for _ in range(6)]
    assert descriptors_with(c.node, 7) == before + 6
    begin = time.monotonic()
    for stream in gone:
        vanish(stream)

    def noticed() -> bool:
        if busy:
            publisher.publish("busy")
        return descriptors(c.node) <= before + 1

    wait_until(noticed, 4.8, "the end of five vanished peers")
    assert time.monotonic() - begin < 4.8
    live = publisher.publish("live")
    while stays.next_event().id != live:
        pass


def closing(stream: Stream) -> None:
    stream.close()


def half_closing(stream: Stream) -> None:
    """As a client that shuts its side down and waits."""
    stream.socket.shutdown(socket.SHUT_WR)


def resetting(stream: Stream) -> None:
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


def talking(stream: Stream) -> None:
    """As a client that sends more than its request."""
    stream.socket.sendall(b"x")


@pytest.mark.parametrize("leave", [closing, half_closing, resetting, talking])
def test_a_peer_that_leaves_is_noticed_at_once(channel: StartChannel, leave: Callable[[Stream], None]) -> None:
    """10.3: without waiting for the next heartbeat or event."""
    c = channel(heartbeat_seconds=600)
    before = descriptors_with(c.node, 0)
    streams = [c.stream() for _ in range(30)]
    assert descriptors_with(c.node, 30) == before + 30
    for stream in streams:
        leave(stream)
    wait_until(lambda: descriptors(c.node) <= before, 10, "the end of thirty streams")
