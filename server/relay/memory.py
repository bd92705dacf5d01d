"""The relay `memory:`: each channel's log is a list in this process.

Owns the logs: their entries, what retention drops from them, their idempotency keys. Must never know of readers or of
HTTP.

Invariants: `append_now` runs from the number to the delivery without giving up the loop, so an event is never numbered
and not delivered, and `mark` needs no care for appends in flight. Entries are shared, never copied: a frame here and in
the hub's ring is one object.
Cost: about the encoding of the frame per event; a log holds its retained entries (bounded by count, bytes of frames and
age) and as many list slots again. A log over age is trimmed when it is appended to, read or asked for its floor;
nothing runs by itself.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from server.event import Event
from server.ids import new_epoch
from server.relay.entries import make_entry
from server.relay.idempotency import Receipts, receipt_of
from server.relay.positions import Positions, microseconds
from server.relay.protocol import Appended, Deliver, Entry, Key, LogState, RelayUnavailable, Retention, Stretch, Turned
from server.shards import ALL, Shards

MAX_FOUND = 100

# Stands where an entry was until the list is compacted, so that the entry itself is freed at once.
_DROPPED = Entry(0, "", Event(), b"", 0.0)
# Compacting earlier than this saves nothing worth the copying.
_COMPACT_FROM = 256


class MemoryLog:
    """One channel's entries from `start` on, in a list: a deque cannot be bisected for a replay."""

    __slots__ = ("_by_own_id", "_entries", "_start", "bytes", "epoch", "floor", "positions", "receipts", "retention")

    def __init__(self, retention: Retention, receipts: Receipts) -> None:
        self.retention = retention
        self.receipts = receipts
        self.positions = Positions()
        self.epoch = new_epoch()
        self.floor = 0
        self.bytes = 0
        self._entries: list[Entry] = []
        self._start = 0
        self._by_own_id: dict[str, deque[Entry]] = {}

    def __len__(self) -> int:
        return len(self._entries) - self._start

    def add(self, events: Sequence[Event], now: float) -> list[Entry]:
        """Number, encode and keep the events; what retention allows no longer is dropped."""
        first = self.positions.take(microseconds(now), len(events))
        added = [make_entry(self.epoch, position, event, now) for position, event in enumerate(events, first)]
        for entry in added:
            self.bytes += len(entry.frame)
            if entry.event.id is not None:
                self._by_own_id.setdefault(entry.event.id, deque()).append(entry)
        self._entries += added
        self.trim(now)
        return added

    def trim(self, now: float) -> None:
        """Drop the oldest entries while a bound is passed."""
        keep, oldest_time = self.retention, now - self.retention.seconds
        while self._start < len(self._entries):
            over = (
                0 < keep.events < len(self)
                or 0 < keep.bytes < self.bytes
                or (keep.seconds > 0 and self._entries[self._start].time < oldest_time)
            )
            if not over:
                break
            self._drop()
        if self._start >= _COMPACT_FROM and self._start * 2 >= len(self._entries):
            del self._entries[: self._start]
            self._start = 0

    def _drop(self) -> None:
        entry = self._entries[self._start]
        self._entries[self._start] = _DROPPED
        self._start += 1
        self.bytes -= len(entry.frame)
        self.floor = entry.position
        own_id = entry.event.id
        if own_id is not None:
            same = self._by_own_id[own_id]
            same.popleft()
            if not same:
                del self._by_own_id[own_id]

    def after(self, position: int, limit: int) -> list[Entry]:
        """At most `limit` entries after a position."""
        # An entry is a tuple that begins with its position, and a shorter tuple sorts before a longer one.
        begin = bisect_left(self._entries, (position + 1,), self._start)
        return self._entries[begin : begin + limit]

    def newest(self, count: int) -> list[Entry]:
        """The last `count` entries, oldest first."""
        return self._entries[max(self._start, len(self._entries) - count) :]

    def with_own_id(self, event_id: str) -> list[Entry]:
        """Entries with this publisher's id, oldest first, at most 100."""
        return list(islice(self._by_own_id.get(event_id, ()), MAX_FOUND))


class MemoryRelay:
    """Implements `Relay` for one process. `append_now` is what `append` does, for callers that are not coroutines."""

    durability = "memory: until this process ends"
    shared = False
    board = None
    splitter = None

    def __init__(
        self, idempotency_seconds: float, idempotency_keys: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._idempotency_seconds = idempotency_seconds
        self._idempotency_keys = idempotency_keys
        self._clock = clock
        self._deliver: Deliver
        self._refusing: str | None = "the log is not open"
        self._logs: dict[str, MemoryLog] = {}

    async def start(self, deliver: Deliver, turned: Turned) -> None:
        del turned  # nobody else has this log
        self._deliver = deliver
        self._refusing = None

    async def open(self, channel: str, retention: Retention, recent: int, recent_bytes: int = 0) -> LogState:
        del recent_bytes  # they are in this memory anyway
        log = self._logs.get(channel)
        if log is None:
            receipts = Receipts(self._idempotency_seconds, self._idempotency_keys)
            log = self._logs[channel] = MemoryLog(retention, receipts)
        log.retention = retention
        log.trim(self._clock())
        return LogState(log.epoch, log.floor, log.newest(recent))

    def append_now(self, channel: str, events: Sequence[Event], key: Key | None = None) -> Appended:
        """Append all events or none, and deliver them, before this returns. Raises RelayUnavailable, KeyConflict."""
        if self._refusing is not None:
            raise RelayUnavailable(self._refusing)
        log = self._logs[channel]
        if not events:
            return Appended((), False)
        now = self._clock()
        if key is not None:
            receipt = log.receipts.find(key, now)
            if receipt is not None:
                return Appended(receipt.ids(log.epoch), True)
        entries = log.add(events, now)
        if key is not None:
            log.receipts.put(key, receipt_of(entries), now)
        self._deliver(channel, entries)
        return Appended(tuple([entry.id for entry in entries]), False)

    async def append(self, channel: str, events: Sequence[Event], key: Key | None) -> Appended:
        return self.append_now(channel, events, key)

    async def read(self, channel: str, after: int, limit: int, shards: Shards = ALL) -> Stretch:  # noqa: ARG002
        log = self._trimmed(channel)
        entries = log.after(after, limit)
        return Stretch(entries, entries[-1].position if entries else max(after, log.floor))

    async def find(self, channel: str, event_id: str) -> Sequence[Entry]:
        return self._trimmed(channel).with_own_id(event_id)

    async def reach(self, channel: str, epoch: str, position: int) -> None:
        """Nobody is ahead of this process."""

    def mark(self, channel: str) -> int:
        return self._logs[channel].positions.mark(microseconds(self._clock()))

    def floor(self, channel: str, shards: Shards = ALL) -> int:  # noqa: ARG002
        return self._trimmed(channel).floor

    lowest_floor = floor

    def _trimmed(self, channel: str) -> MemoryLog:
        log = self._logs[channel]
        log.trim(self._clock())
        return log

    def state(self) -> dict[str, object]:
        now = self._clock()
        for log in self._logs.values():
            log.trim(now)
            log.receipts.trim(now)
        return {
            "ok": self._refusing is None,
            "kind": "memory",
            "durability": self.durability,
            "channels": len(self._logs),
            "events": sum(len(log) for log in self._logs.values()),
            "bytes": sum(log.bytes for log in self._logs.values()),
        }

    async def close(self) -> None:
        self._refusing = "the log is closed"
