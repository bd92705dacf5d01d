"""Parts of the engine without a server: entries, channels, and readers on socket pairs whose far end reads as told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import uvloop

from server.admission import Holder
from server.broadcaster import Broadcaster
from server.channel import Channel, Policy
from server.endings import Ending
from server.event import Event
from server.feed import Feed
from server.ids import parse_id
from server.log import Log
from server.reader import Reader
from server.relay.entries import make_entry
from server.relay.protocol import Entry, Retention

EPOCH = "k3x9q1"
SMALLEST_BUFFER = 1  # the kernel raises it to some 4 KB
UNBOUNDED = Retention(0, 0, 0)


def entry(position: int, data: str = "", *topics: str, time: float = 0.0, **fields: Any) -> Entry:
    """An entry of a log, as a relay makes it."""
    return make_entry(EPOCH, position, Event(topics or ("a",), data, **fields), time)


def channel(bound: Retention = UNBOUNDED, floor: int = 0, **policy: Any) -> Channel:
    return Channel("main", Policy(**policy), EPOCH, Log(bound, floor))


def run(main: Callable[[], Awaitable[None]], seconds: float = 30.0) -> None:
    """Run on the loop that the server runs on; an error in a callback fails the test."""
    failures: list[object] = []

    async def whole() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context.get("exception") or context))
        async with asyncio.timeout(seconds):
            await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())
    assert failures == []


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Turn the loop until `condition()` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        await asyncio.sleep(0)


async def turns(count: int = 5) -> None:
    """Let the loop go round: what can be done at once is done."""
    for _ in range(count):
        await asyncio.sleep(0)


class Peer:
    """The far end of a reader's connection. `fd` is the near end, which the engine closes."""

    def __init__(self, buffer_bytes: int = 0) -> None:
        near, self.socket = socket.socketpair()
        near.setblocking(False)
        self.socket.setblocking(False)
        if buffer_bytes:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        self.fd = near.detach()
        self.received = b""
        self.ended = False

    def read(self, most: int = 1 << 20) -> int:
        """Read at most that many bytes of what is there; how many there were."""
        try:
            data = self.socket.recv(most)
        except BlockingIOError:
            return 0
        except ConnectionResetError:
            data = b""
        self.ended = self.ended or not data
        self.received += data
        return len(data)

    def read_all(self) -> bytes:
        """Everything so far."""
        while self.read():
            pass
        return self.received

    def close(self) -> None:
        self.socket.close()


class Stage:
    """A broadcaster, and all readers that were put before it. Leave it with `close`."""

    def __init__(
        self, *, slice_seconds: float = 1.0, span_bytes: int = 1 << 18, backlog_bytes: int = 1 << 30, **policy: Any
    ) -> None:
        self.ends: list[tuple[Reader, Ending | None]] = []
        self.peers: list[Peer] = []
        self.channel = channel(**policy)
        self.broadcaster = Broadcaster(
            asyncio.get_running_loop(),
            lambda reader, ending: self.ends.append((reader, ending)),
            slice_seconds=slice_seconds,
            span_bytes=span_bytes,
            backlog_bytes=backlog_bytes,
        )
        self.position = 0

    def add(self, feed: Feed, buffer_bytes: int = 0) -> tuple[Reader, Peer]:
        """A new live reader of a feed that it has entered."""
        peer = Peer(buffer_bytes)
        reader = Reader(peer.fd, feed, Holder(""), None)
        reader.cursor = feed.ring.head
        self.peers.append(peer)
        self.broadcaster.add(reader)
        self.broadcaster.go_live(reader)
        return reader, peer

    def publish(self, *texts: str, topic: str = "a") -> list[Entry]:
        """Events one position after the other."""
        entries = [entry(self.position + number, text, topic) for number, text in enumerate(texts, 1)]
        self.position += len(texts)
        self.broadcaster.publish(self.channel.accept(entries, time.monotonic()))
        return entries

    def close(self) -> None:
        self.broadcaster.shut()
        for peer in self.peers:
            peer.close()


@contextlib.contextmanager
def stage(**options: Any) -> Iterator[Stage]:
    """A Stage that is left in order."""
    one = Stage(**options)
    try:
        yield one
    finally:
        one.close()


def unchunked(data: bytes) -> tuple[bytes, bool]:
    """The content of chunks, of which the last may be cut off, and whether the last chunk of all was there."""
    content = b""
    while data:
        size_line, found, rest = data.partition(b"\r\n")
        if not found:
            break
        size = int(size_line, 16)
        if size == 0:
            assert rest == b"\r\n", "bytes after the end of the stream"
            return content, True
        content += rest[:size]
        assert rest[size : size + 2] == b"\r\n"[: max(0, len(rest) - size)]
        data = rest[size + 2 :]
    return content, False


class Gap(NamedTuple):
    """A declared gap, in positions."""

    since: int | None
    to: int


def accounted(expected: list[Entry], text: bytes, *, whole: bool) -> list[Gap]:
    """Check that `text` holds every expected entry once and in order, but for those between the ends of a declared gap.

    `whole`: nothing may be missing at the end. Gives the gaps.
    """
    left = list(reversed(expected))
    known: int | None = None
    gaps = []
    *blocks, rest = text.split(b"\n\n")
    for block in blocks:
        while block.startswith(b":\n"):  # heartbeats
            block = block[2:]
        if block.startswith(b"event: gap\n"):
            gap = _gap_of(block)
            assert known is None or gap.since == known, f"{gap} does not begin at {known}"
            assert left, f"{gap} where nothing was to come"
            assert left[-1].position <= gap.to, f"{gap} holds none of the missing"
            assert gap.since is not None and gap.since < left[-1].position
            while left and left[-1].position <= gap.to:
                left.pop()
            gaps.append(gap)
            known = gap.to
        elif b"data: " in block and block.startswith(b"id: "):
            assert left, f"{block!r} where nothing was to come"
            wanted = left.pop()
            assert block + b"\n\n" == wanted.frame, f"{block!r} instead of {wanted.id}"
            known = wanted.position
    if whole:
        assert left == [], f"{len(left)} did not come"
        assert rest.replace(b":\n", b"") == b"", f"cut off: {rest!r}"
    return gaps


def _gap_of(block: bytes) -> Gap:
    facts = json.loads(block.partition(b"data: ")[2])
    return Gap(_position(facts["from"]), _position(facts["to"]) or 0)


def _position(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    parsed = parse_id(cursor)
    assert parsed is not None and parsed[0] == EPOCH
    return parsed[1]
