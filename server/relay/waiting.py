"""Publishes that wait for the next transaction or round trip.

Owns their order and the bounds on how much may wait. Must never know of files or connections.
Cost: one object per append.

A store that stalls would otherwise collect every publish of a busy channel in memory; past the bounds publishers are
told to come back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from server.event import Event
from server.relay.protocol import Appended, Key, RelayUnavailable

MAX_WAITING_EVENTS = 100_000
MAX_WAITING_BYTES = 64 << 20
# What one transaction takes at most (one append at least): it bounds how long the next publish waits for it.
BATCH_EVENTS = 2_000
BATCH_BYTES = 4 << 20
# What an event takes beside its data, roughly.
_EVENT_BYTES = 500

LogT = TypeVar("LogT")


@dataclass(slots=True)
class Pending(Generic[LogT]):
    """One append that waits, and the future that its publisher awaits."""

    log: LogT
    events: Sequence[Event]
    key: Key | None
    answer: asyncio.Future[Appended]
    bytes: int


class Waiting(Generic[LogT]):
    """A bounded queue of appends."""

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0
        self._queue: deque[Pending[LogT]] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, log: LogT, events: Sequence[Event], key: Key | None, answer: asyncio.Future[Appended]) -> None:
        """Add an append at the end. Raises RelayUnavailable when too much waits already."""
        size = sum([len(event.data) for event in events]) + _EVENT_BYTES * len(events)
        if self._queue and (self.events + len(events) > MAX_WAITING_EVENTS or self.bytes + size > MAX_WAITING_BYTES):
            raise RelayUnavailable("too many publishes are waiting")
        self._queue.append(Pending(log, events, key, answer, size))
        self.events += len(events)
        self.bytes += size

    def take(self) -> list[Pending[LogT]]:
        """The next transaction's appends."""
        batch: list[Pending[LogT]] = []
        events, size = 0, 0
        while self._queue:
            following = self._queue[0]
            events += len(following.events)
            size += following.bytes
            if batch and (events > BATCH_EVENTS or size > BATCH_BYTES):
                break
            batch.append(self._queue.popleft())
            self.events -= len(following.events)
            self.bytes -= following.bytes
        return batch
