"""Inflow: messages of a source that can't be told to wait, on their way into the logs.

Owns what waits: bounded by number and bytes, appended in order, a batch at a time. Must never know where messages come
from. What comes when it is full is dropped and counted; a source that others read too should be left then (`full`).

Invariant: batches are delivered one after another, each as long as it takes, so that order holds whatever the relay
does. Cost: a message waits in a deque; a batch is at most `BATCH_MESSAGES` and about `BATCH_BYTES`, so that mapping it
does not hold up the loop.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque

from bridges.bridge import Bridge, Taken, first_of
from server.hub import Hub

BATCH_MESSAGES = 100
BATCH_BYTES = 256 * 1024
MAX_BYTES = 64 * 1024 * 1024


class InflowBridge(Bridge):
    """A bridge whose source does not wait. `follow` puts messages into `inflow`."""

    def __init__(self, name: str, hub: Hub, max_waiting: int) -> None:
        super().__init__(name, hub, deliveries=1)
        self.inflow = Inflow(self, max_waiting)

    async def work(self) -> None:
        """Follow, and deliver what waits meanwhile, to the last."""
        await first_of(self._follow_and_empty(), self.inflow.run())

    async def _follow_and_empty(self) -> None:
        await super().work()
        await self.inflow.empty.wait()


class Inflow:
    """Brings what is `put` into the logs by `bridge.deliver`, as long as `run` runs."""

    def __init__(self, bridge: Bridge, max_messages: int, max_bytes: int = MAX_BYTES) -> None:
        self._bridge = bridge
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._waiting: deque[Taken] = deque()
        self._bytes = 0
        self._came = asyncio.Event()
        self.full = asyncio.Event()
        self.half_empty = asyncio.Event()
        self.half_empty.set()
        self.empty = asyncio.Event()
        self.empty.set()

    def put(self, taken: Taken) -> None:
        """Take a message, or drop it if there is no room."""
        size = taken.message.size
        if len(self._waiting) >= self._max_messages or self._bytes + size > self._max_bytes:
            self._bridge.counts.dropped += 1
            self.full.set()
            return
        self._waiting.append(taken)
        self._bytes += size
        self._bridge.counts.lag = len(self._waiting)
        self._came.set()
        self.empty.clear()
        if len(self._waiting) * 2 > self._max_messages or self._bytes * 2 > self._max_bytes:
            self.half_empty.clear()

    async def run(self) -> None:
        """Deliver what comes, for ever."""
        while True:
            await self._came.wait()
            batch = self._batch()
            await self._bridge.deliver(batch, patience_seconds=math.inf)
            for taken in batch:
                self._waiting.popleft()
                self._bytes -= taken.message.size
            self._settle()

    def _batch(self) -> list[Taken]:
        batch: list[Taken] = []
        size = 0
        for taken in self._waiting:
            size += taken.message.size
            if batch and (size > BATCH_BYTES or len(batch) == BATCH_MESSAGES):
                break
            batch.append(taken)
        return batch

    def _settle(self) -> None:
        self._bridge.counts.lag = len(self._waiting)
        self.full.clear()
        if len(self._waiting) * 2 <= self._max_messages and self._bytes * 2 <= self._max_bytes:
            self.half_empty.set()
        if not self._waiting:
            self._came.clear()
            self.empty.set()
