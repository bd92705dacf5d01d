"""Section 10 of the contract: bytes flow, and who is gone is noticed. A peer vanishes when its socket drops all that
comes in, as a cut cable does.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable

import pytest

from tests.contract.client import Channel
from tests.contract.conftest import StartChannel
from tests.harness.process import wait_until
from tests.harness.stream import Stream

SO_ATTACH_FILTER = 26
DROP_EVERYTHING = struct.pack("HBBI", 0x06, 0, 0, 0)


def vanish(stream: Stream) -> None:
    """From now on this end acknowledges nothing and answers nothing; nobody is told."""
    program = ctypes.create_string_buffer(DROP_EVERYTHING)
    stream.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))


def descriptors(channel: Channel) -> int:
    return len(os.listdir(f"/proc/{channel.node.pid}/fd"))


def settled(channel: Channel) -> int:
    """The number of descriptors when connections that were just closed are gone."""
    recent = [descriptors(channel)]
    while len(recent) < 10 or len(set(recent[-10:])) > 1:
        time.sleep(0.01)
        recent.append(descriptors(channel))
    return recent[-1]


def longest_silence(streams: list[Stream], seconds: float) -> float:
    """The longest time without a byte on any of the streams."""
    poll = select.epoll()
    begin = time.monotonic()
    last = {stream.socket.fileno(): begin for stream in streams}
    sockets = {stream.socket.fileno(): stream.socket for stream in streams}
    for number in last:
        poll.register(number, select.EPOLLIN)
    longest = 0.0
    while (now := time.monotonic()) < begin + seconds:
        for number, _ in poll.poll(0.05):
            now = time.monotonic()
            assert sockets[number].recv(65536), "a stream ended"
            longest, last[number] = max(longest, now - last[number]), now
    poll.close()
    return max(longest, *(now - before for before in last.values()))


def test_bytes_flow_on_every_stream(channel: StartChannel) -> None:
    """10.1: six hundred quiet streams; none is silent for longer than the interval and a fifth."""
    c = channel(heartbeat_seconds=2)
    streams = [c.stream(f"topic={number}") for number in range(600)]
    assert longest_silence(streams, 5) <= 2.4


def test_bytes_flow_though_events_go_past(channel: StartChannel) -> None:
    """10.1: a filter that selects nothing is no reason for silence."""
    c = channel(heartbeat_seconds=1)
    streams = [c.stream("topic=quiet") for _ in range(20)]
    publisher = c.publisher()
    busy = threading.Event()

    def publish() -> None:
        while not busy.wait(0.02):
            publisher.publish("busy", topic="busy")

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        assert longest_silence(streams, 3) <= 1.2
    finally:
        busy.set()
        thread.join(10)


@pytest.mark.parametrize("busy", [False, True], ids=["quiet", "busy"])
def test_a_peer_that_vanished_is_noticed(channel: StartChannel, busy: bool) -> None:
    """10.2: within two heartbeats, whether events go out or only heartbeats; a peer that is there stays."""
    c = channel(heartbeat_seconds=2, tcp_user_timeout_seconds=1)
    publisher = c.publisher()
    publisher.publish("first")
    before = settled(c)
    stays, *gone = [c.stream() for _ in range(6)]
    assert settled(c) == before + 6
    begin = time.monotonic()
    for stream in gone:
        vanish(stream)

    def noticed() -> bool:
        if busy:
            publisher.publish("busy")
        return descriptors(c) <= before + 1

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
    before = settled(c)
    streams = [c.stream() for _ in range(30)]
    assert settled(c) == before + 30
    for stream in streams:
        leave(stream)
    wait_until(lambda: descriptors(c) <= before, 2, "the end of thirty streams")
