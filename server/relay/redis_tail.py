"""The tail: all that is appended to the channels' streams, read in order as it comes, on a connection of its own.

Owns that connection, the place up to which each stream has been read, and the proof that the connection is not deaf: a
mark that the tick puts into a stream of this node's own has to come out here. Must never decode an entry or wait for
anything but Redis. Redis ends connections that take their answers too slowly; so what was read is delivered at once.

Invariants: a stream is read from exactly behind the last entry that was read, whatever happened in between; a
connection that brings nothing for `DEAF_SECONDS` is given up. Cost: one blocking read at a time for all channels.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from server.logs import get_logger
from server.relay.protocol import RelayUnavailable
from server.relay.redis_client import BLOCK_LIMIT_SECONDS, BLOCK_SECONDS, ERRORS, Client, Target, connect, reason_of
from server.relay.redis_entries import Raw
from server.relay.redis_log import RedisLog

ENTRIES_A_READ = 500
DEAF_SECONDS = 3.0
MARKS_SECONDS = 60
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 2.0

logger = get_logger("relay")


class Tail:
    """`took(log, entries)` gets what was read; `broke(logs)` is called when a connection was lost, `examine()` before a
    new one is read from: another log may be behind it."""

    def __init__(
        self,
        target: Target,
        marks: str,
        took: Callable[[RedisLog, Sequence[Raw]], None],
        broke: Callable[[Iterable[RedisLog]], None],
        examine: Callable[[], Awaitable[None]],
    ) -> None:
        self._target = target
        self._marks = marks
        self._marks_id = b"0-0"
        self._took = took
        self._broke = broke
        self._examine = examine
        self._logs: dict[bytes, RedisLog] = {}
        self._closed = False
        self._begun = asyncio.Event()
        self._heard = 0.0
        self._sent = 0.0
        self.lag_seconds = 0.0
        self.connections = 0

    @property
    def well(self) -> bool:
        """True if a mark has come back lately."""
        return time.monotonic() - self._heard < DEAF_SECONDS

    async def follow(self, log: RedisLog, client: Client) -> None:
        """Read a log's stream from `log.tail_id` on. The mark makes the read that is under way end."""
        self._logs[log.stream.encode()] = log
        await self.prove(client)

    async def prove(self, client: Client) -> None:
        """Put a mark in by another connection; it should come out of this one. Raises RelayUnavailable."""
        self._sent = time.monotonic()
        try:
            async with client.pipeline(transaction=False) as pipe:
                pipe.xadd(self._marks, {"at": f"{self._sent:.6f}"}, maxlen=8, approximate=False)
                pipe.expire(self._marks, MARKS_SECONDS)
                await pipe.execute()
        except ERRORS as error:
            raise RelayUnavailable(reason_of(error)) from error

    async def begin(self, client: Client) -> None:
        """Wait for the first mark to come back. Raises RelayUnavailable."""
        try:
            async with asyncio.timeout(DEAF_SECONDS):
                await self.prove(client)
                await self._begun.wait()
        except TimeoutError:
            raise RelayUnavailable("what is published does not come back") from None

    async def run(self) -> None:
        """Follow for ever, from connection to connection."""
        wait = FIRST_WAIT_SECONDS
        while not self._closed:
            began = time.monotonic()
            try:
                await self._follow_connection()
            except (*ERRORS, RelayUnavailable) as error:
                logger.warning("tail_broke", reason=reason_of(error), retry_within_seconds=round(wait, 2))
            finally:
                self._broke(self._logs.values())
            if time.monotonic() - began > DEAF_SECONDS * 2:
                wait = FIRST_WAIT_SECONDS
            await asyncio.sleep(wait * (0.5 + random.random() / 2))
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    async def _follow_connection(self) -> None:
        client = connect(self._target, answer_seconds=BLOCK_LIMIT_SECONDS)
        self.connections += 1
        try:
            await client.ping()
            await self._examine()
            self._heard = time.monotonic()  # in advance: it has until `DEAF_SECONDS` from now
            while not self._closed:
                streams: dict[Any, Any] = {key: log.tail_id for key, log in self._logs.items()}
                streams[self._marks] = self._marks_id
                answer: Any = await client.xread(streams, ENTRIES_A_READ, round(BLOCK_SECONDS * 1000))
                for key, entries in answer:
                    self._read(key, entries)
                if not self.well:
                    raise TimeoutError("deaf")
        finally:
            await client.aclose()

    def _read(self, key: bytes, entries: Sequence[Raw]) -> None:
        log = self._logs.get(key)
        if log is None:  # a mark
            self._marks_id, fields = entries[-1]
            self._heard = time.monotonic()
            self._begun.set()
            self.lag_seconds = max(0.0, self._heard - float(fields[b"at"]))
            return
        log.tail_id = entries[-1][0]
        self._took(log, entries)

    def stop(self) -> None:
        """Follow no more after the read that is under way. To be called before the task is cancelled: redis-py can
        swallow a cancellation that comes together with an answer."""
        self._closed = True
