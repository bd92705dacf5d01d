"""The broadcaster: everything that is written to readers' sockets after they have been admitted.

Owns the readers' sockets, the one epoll that watches all of them, the sweep that brings live readers to their feed's
head, and the ends of readers. Must never know of HTTP requests, tokens or the relay.

How an event gets out: `publish` marks the feeds that got a frame; a sweep goes round each feed's readers and writes to
each, in one system call, everything between its cursor and the head. The bytes of a span are joined once and shared by
all readers at the same cursor. When the server falls behind, spans grow: throughput rises with load. A sweep gives the
loop back after `slice_seconds`, so publishes and new connections wait for milliseconds at most.

A socket that takes no more makes its reader *stalled*: it leaves the sweep and keeps the rest of one write (at most
`span_bytes`, shared with others) until the epoll says that it is writable. What it missed then is decided by its
channel's lag policy. Nobody else notices.

Invariants: no object, timer or task per reader and event; every reader is in exactly one of: its feed's `readers`,
`_stalled`, the replayer, closed. Cost per delivery: one `os.write` and about 0.3 microseconds around it. Cost per idle
reader: see server/reader.py.

Tried and rejected: a queue per reader (memory, and a copy per event); `loop.sock_sendall` or a transport per reader (17
KB each, 6 times the CPU); registering for EPOLLOUT from the start (one needless wake-up per connection).
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from server.channel import Channel
from server.endings import SLOW, UNAVAILABLE, Ending
from server.feed import Feed
from server.frames import gap_frame
from server.ids import format_id
from server.logs import get_logger
from server.reader import Reader, Stall
from server.replay import Replayer

WATCH = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
WATCH_WRITABLE = WATCH | select.EPOLLOUT
BATCH = 64  # deliveries between two looks at the clock
EVENTS_PER_POLL = 512

log = get_logger("broadcaster")


class Counters:
    """Running totals since the start, read by metrics."""

    __slots__ = (
        "delivered",
        "dropped",
        "gaps",
        "latency_buckets",
        "latency_count",
        "latency_sum",
        "surplus",
        "sweeps",
        "writes",
    )

    # Upper bounds, in seconds, of the histogram of how long a feed's readers took to be all at its head.
    LATENCY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

    def __init__(self) -> None:
        self.delivered = self.writes = self.dropped = self.gaps = self.surplus = self.sweeps = self.latency_count = 0
        self.latency_sum = 0.0
        self.latency_buckets = [0] * len(self.LATENCY_BOUNDS)

    def observe_latency(self, seconds: float) -> None:
        self.latency_count += 1
        self.latency_sum += seconds
        for index, bound in enumerate(self.LATENCY_BOUNDS):
            if seconds <= bound:
                self.latency_buckets[index] += 1
                break


class Broadcaster:
    """See the module's head. `on_closed(reader, ending)` is called once for every reader; ending None: the peer went
    away."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_closed: Callable[[Reader, Ending | None], None],
        *,
        slice_seconds: float,
        span_bytes: int,
        backlog_bytes: int,
    ) -> None:
        self._loop = loop
        self._on_closed = on_closed
        self._slice_seconds = slice_seconds
        self.span_bytes = span_bytes
        self._backlog_bytes = backlog_bytes
        self._epoll = select.epoll()
        self._by_fd: list[Reader | None] = []
        self._dirty: deque[Feed] = deque()
        self._scheduled = False
        self._backlogged: set[Feed] = set()
        self._room: asyncio.Event = asyncio.Event()
        self._stalled: dict[Reader, None] = {}
        self.replayer: Replayer | None = None
        self.count = Counters()
        self.readers = 0
        loop.add_reader(self._epoll.fileno(), self._poll)

    # --- readers come and go
    # -------------------------------------------------------------------------------------------------

    def add(self, reader: Reader) -> None:
        """Watch a reader's socket (non-blocking). It is in no feed's sweep yet."""
        fd = reader.fd
        by_fd = self._by_fd
        if fd >= len(by_fd):
            by_fd.extend([None] * (fd + 64 - len(by_fd)))
        by_fd[fd] = reader
        self.readers += 1
        self._epoll.register(fd, WATCH)

    def go_live(self, reader: Reader) -> None:
        """Put an added reader into its feed's sweep, at its cursor."""
        feed = reader.feed
        feed.join(reader)
        if feed.left and not feed.dirty:
            self._mark(feed)

    def close(self, reader: Reader, ending: Ending | None = None, retry_ms: int | None = None) -> None:
        """End a reader: with a farewell if `ending` is given and its socket is between two writes."""
        fd = reader.fd
        if fd < 0:
            return
        feed = reader.feed
        if ending is not None and reader.stall is None:
            encoding = feed.encoding
            self._last_words(fd, encoding.wrap(ending.farewell(retry_ms)) + encoding.end)
        reader.fd = -1
        self._by_fd[fd] = None
        os.close(fd)
        self.readers -= 1
        if reader.index >= 0:
            feed.leave(reader)
        if reader.stall is not None:
            del self._stalled[reader]
            reader.stall = None
            feed.stalled -= 1
        reader.replay = None
        feed.channel.depart(feed)
        self._on_closed(reader, ending)

    @staticmethod
    def _last_words(fd: int, data: bytes) -> None:
        try:
            os.write(fd, data)
        except OSError:
            pass  # the peer is gone or takes nothing: it learns of the end by the end

    # --- the sweep
    # -----------------------------------------------------------------------------------------------------------

    def publish(self, feeds: Iterable[Feed]) -> None:
        """Bring the readers of these feeds to their heads, soon."""
        for feed in feeds:
            if not feed.left:  # nobody can be written to now
                feed.finish(feed.channel.policy.lag_events, feed.channel.policy.lag_bytes)
            elif not feed.dirty:
                self._mark(feed)
            elif feed.unsent_bytes > self._backlog_bytes:
                self._backlogged.add(feed)

    @property
    def backlogged(self) -> bool:
        """True while a feed holds more unsent bytes than `backlog_bytes`: publishers should wait for `room`."""
        return bool(self._backlogged)

    async def room(self, seconds: float) -> bool:
        """Wait until no feed is backlogged; False if that took longer than `seconds`."""
        end = self._loop.time() + seconds
        while self._backlogged:
            self._room.clear()
            try:
                async with asyncio.timeout_at(end):
                    await self._room.wait()
            except TimeoutError:
                return False
        return True

    def wake(self) -> None:
        """Run a slice soon."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run_slice)

    def _mark(self, feed: Feed) -> None:
        feed.dirty = True
        feed.since = time.monotonic()
        self._dirty.append(feed)
        self.wake()

    def _run_slice(self) -> None:
        self._scheduled = False
        self._sweep_dirty(time.monotonic() + self._slice_seconds)
        replayer = self.replayer
        if replayer is not None and replayer.busy:
            replayer.run(time.monotonic() + self._slice_seconds)
            if replayer.busy:
                self.wake()
        if self._dirty:
            self.wake()

    def _sweep_dirty(self, deadline: float) -> None:
        """Bring feeds to their heads until `deadline`; the one that it interrupts goes to the end of the line."""
        dirty = self._dirty
        while dirty:
            feed = dirty[0]
            try:
                done = self._sweep(feed, deadline)
            except Exception:  # a defect of ours costs this feed's readers a reconnection, not everybody the sweep
                log.exception("sweep_failed", channel=feed.channel.name, readers=len(feed.readers))
                self._abandon(feed)
                done = True
            if not done:
                dirty.rotate(-1)
                return
            dirty.popleft()
            if self._swept(feed) > deadline:
                return

    def _swept(self, feed: Feed) -> float:
        """All of the feed's readers are at its head; the present, in seconds of time.monotonic()."""
        policy = feed.channel.policy
        feed.dirty = False
        feed.finish(policy.lag_events, policy.lag_bytes)
        self._relieve(feed)
        self.count.sweeps += 1
        now = time.monotonic()
        self.count.observe_latency(now - feed.since)
        return now

    def _abandon(self, feed: Feed) -> None:
        """Cut a feed's readers off without a word, since what they have is not known: they come back and resume."""
        while feed.readers:
            reader = feed.readers[-1]
            try:
                self.close(reader)
            except Exception:
                log.exception("reader_not_closed")
                if feed.readers and feed.readers[-1] is reader:
                    feed.readers.pop()

    def _relieve(self, feed: Feed) -> None:
        if self._backlogged and feed in self._backlogged and feed.unsent_bytes <= self._backlog_bytes // 2:
            self._backlogged.discard(feed)
            if not self._backlogged:
                self._room.set()

    def _sweep(self, feed: Feed, deadline: float) -> bool:
        """Write to readers from `feed.at` on until all are at the head (True) or the slice is over (False)."""
        if len(feed.readers) == 1 and self._sweep_one(feed):
            return True
        write = os.write
        ring = feed.ring
        wrap = feed.encoding.wrap
        max_bytes = self.span_bytes
        readers = feed.readers
        head = ring.head
        spans: dict[int, tuple[bytes, int]] = {}
        at_cursor, data, size, end, gain = -1, b"", 0, 0, 0
        delivered = writes = 0
        while feed.left > 0:
            batch = readers[feed.at : feed.at + BATCH]
            if not batch:
                feed.end_lap(feed.channel.policy.lag_events, feed.channel.policy.lag_bytes)
                if not readers:
                    feed.left = 0
                continue
            feed.at += len(batch)
            feed.left -= len(batch)
            for reader in batch:
                cursor = reader.cursor
                if cursor == head:
                    continue
                if cursor != at_cursor:
                    if (found := spans.get(cursor)) is None:
                        joined, end = ring.span(cursor, max_bytes)
                        found = spans[cursor] = (wrap(joined), end)
                    at_cursor, (data, end) = cursor, found
                    size, gain = len(data), end - cursor
                try:
                    sent = write(reader.fd, data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self.close(reader)
                    continue
                reader.cursor = end
                delivered += gain
                writes += 1
                if sent != size:
                    self._stall(reader, data, sent, ring.position(end - 1))
                elif end != head:
                    feed.left = len(readers)
                    feed.lap_head = min(feed.lap_head, end)
            if time.monotonic() > deadline:
                break
        self.count.delivered += delivered
        self.count.writes += writes
        self._relieve(feed)
        return feed.left <= 0

    def _sweep_one(self, feed: Feed) -> bool:
        """The sweep of a feed of one reader, of which there may be thousands; False if it takes more than one write."""
        reader, ring = feed.readers[0], feed.ring
        cursor = reader.cursor
        if cursor == ring.head:
            feed.left = 0
            return True
        joined, end = ring.span(cursor, self.span_bytes)
        data = feed.encoding.wrap(joined)
        try:
            sent = os.write(reader.fd, data)
        except OSError:  # also one that takes nothing now: the sweep deals with it
            return False
        reader.cursor = end
        self.count.delivered += end - cursor
        self.count.writes += 1
        if sent != len(data):
            self._stall(reader, data, sent, ring.position(end - 1))
        elif end == ring.head:
            feed.left = 0
            return True
        return False

    # --- one reader
    # ----------------------------------------------------------------------------------------------------------

    def write(self, reader: Reader, data: bytes, position: int) -> bool:
        """Write to one reader; False if it is now stalled or closed. `position`: what the reader has in the log once
        `data` is out."""
        try:
            sent = os.write(reader.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close(reader)
            return False
        if sent == len(data):
            return True
        self._stall(reader, data, sent, position)
        return False

    def _stall(self, reader: Reader, data: bytes, sent: int, position: int) -> None:
        feed = reader.feed
        if reader.index >= 0:
            feed.leave(reader)
        feed.stalled += 1
        reader.stall = Stall(memoryview(data)[sent:], time.monotonic(), position)
        self._stalled[reader] = None
        self._epoll.modify(reader.fd, WATCH_WRITABLE)

    def _writable(self, reader: Reader) -> None:
        stall = reader.stall
        if stall is None:
            return
        try:
            sent = os.write(reader.fd, stall.rest)
        except BlockingIOError:
            return
        except OSError:
            self.close(reader)
            return
        stall.since = time.monotonic()
        if sent < len(stall.rest):
            stall.rest = stall.rest[sent:]
            del self._stalled[reader]  # progress: to the end of the order by time
            self._stalled[reader] = None
            return
        self._revive(reader, stall)

    def _revive(self, reader: Reader, stall: Stall) -> None:
        feed = reader.feed
        reader.stall = None
        del self._stalled[reader]
        feed.stalled -= 1
        self._epoll.modify(reader.fd, WATCH)
        if reader.replay is not None:
            assert self.replayer is not None
            self.replayer.resume(reader)
        elif self._skip_lag(reader, feed, stall.position):
            self.go_live(reader)

    def _skip_lag(self, reader: Reader, feed: Feed, position: int) -> bool:
        """Apply the lag policy to a reader that takes bytes again; False if it is stalled anew or ended."""
        policy = feed.channel.policy
        oldest = feed.ring.within(policy.lag_events, policy.lag_bytes)
        if reader.cursor >= oldest:
            return True
        self.count.dropped += oldest - reader.cursor
        if policy.lag_policy == "disconnect":
            self.close(reader, SLOW)
            return False
        self.count.gaps += 1
        epoch = feed.channel.epoch
        reader.cursor = oldest
        last_dropped = feed.ring.before(oldest)
        gap = gap_frame("lag", format_id(epoch, position), format_id(epoch, last_dropped))
        return self.write(reader, feed.encoding.wrap(gap), last_dropped)

    def heartbeat(self, readers: Sequence[Reader], data: bytes) -> int:
        """Write a heartbeat to those readers that take one now; how many were written to."""
        write, size, count = os.write, len(data), 0
        for reader in readers:
            if reader.index < 0:  # it has stalled, is behind, or was closed since it was chosen
                continue
            count += 1
            try:
                sent = write(reader.fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.close(reader)
                continue
            if sent != size:
                self._stall(reader, data, sent, self._reader_position(reader))
        return count

    def _reader_position(self, reader: Reader) -> int:
        return reader.feed.ring.before(reader.cursor)

    def end_replays(self, channel: Channel) -> None:
        """End the readers of a channel that are still behind: the log that they are being read from is no more."""
        for reader in self.all_readers():
            if reader.replay is not None and reader.feed.channel is channel:
                self.close(reader, UNAVAILABLE)

    def stalled_since(self, before: float) -> list[Reader]:
        """Readers without progress since `before` (time.monotonic), and those over the limits of a `disconnect`
        policy."""
        found = []
        for reader in self._stalled:
            stall = reader.stall
            assert stall is not None
            policy = reader.feed.channel.policy
            ring = reader.feed.ring
            over = (
                policy.lag_policy == "disconnect"
                and reader.replay is None
                and reader.cursor < ring.within(policy.lag_events, policy.lag_bytes)
            )
            if stall.since < before or over:
                found.append(reader)
        return found

    @property
    def stalled(self) -> int:
        """How many readers are stalled now."""
        return len(self._stalled)

    def lag_of(self, channel: Channel) -> int:
        """Events that the slowest stalled reader of a channel is behind."""
        return max(
            (r.feed.ring.head - r.cursor for r in self._stalled if r.feed.channel is channel and r.replay is None),
            default=0,
        )

    # --- the epoll
    # -----------------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        by_fd = self._by_fd
        for fd, flags in self._epoll.poll(0, EVENTS_PER_POLL):
            reader = by_fd[fd]
            if reader is None:
                continue
            try:
                if flags & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP):
                    self.close(reader)
                elif flags & select.EPOLLIN:  # nothing may come after the request
                    self.count.surplus += 1
                    self.close(reader)
                elif flags & select.EPOLLOUT:
                    self._writable(reader)
            except Exception:  # the epoll is edge-triggered: it would not tell of the others again
                log.exception("reader_failed", channel=reader.feed.channel.name)

    def shut(self) -> None:
        """Close every reader and the epoll."""
        for reader in [reader for reader in self._by_fd if reader is not None]:
            self.close(reader)
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def all_readers(self) -> list[Reader]:
        """Every reader now, in the order of file descriptors."""
        return [reader for reader in self._by_fd if reader is not None]
