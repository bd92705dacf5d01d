"""The tail: all that is appended to the channels' streams, read in order as it comes, on a connection of its own.

Owns that connection, the place up to which each stream has been read, and the proof that the connection is not deaf: a
mark that the tick puts into a stream of this node's own has to come out here. Must never decode an entry or wait for
anything but Redis. Redis ends connections that take their answers too slowly; so what was read is delivered at once.

Invariants: a stream is read from exactly behind the last entry that was read, whatever happened in between; a
connection that brings nothing for `DEAF_SECONDS` is given up; of a log that is split, what is handed on is all that its
followed shards have, in one order. A blocking read can't give that: it wakes with the first stream that has something.
So it only wakes, and a script reads all shards in one moment.
Cost: one blocking read at a time for all channels. A log that is split has a tail of its own, whose blocking read
brings one entry per shard, and one round trip more each time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any, Protocol

from server.logs import get_logger
from server.relay.protocol import RelayUnavailable
from server.relay.redis_client import (
    BLOCK_LIMIT_SECONDS,
    BLOCK_SECONDS,
    ERRORS,
    Client,
    Target,
    call,
    connect,
    reason_of,
)
from server.relay.redis_entries import Raw, place_of
from server.relay.redis_log import RedisLog, Shard
from server.relay.redis_masters import Masters
from server.relay.redis_patience import Patience

ENTRIES_A_READ = 500
LAST_SEQUENCE = 2**64 - 1  # ours have 0: what else is at a position is not ours
DEAF_SECONDS = 3.0
MARKS_SECONDS = 60
MOST_DUE = 60  # marks that are counted while none comes back
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 2.0

logger = get_logger("relay")


class Taker(Protocol):
    """Whom a tail works for."""

    def took(self, log: RedisLog, entries: Sequence[Raw]) -> None:
        """What came into a log that is not split."""

    def took_split(self, log: RedisLog, shards: Sequence[Shard], answer: Sequence[Any]) -> None:
        """What is in these shards of a log after `log.delivered`, as read.lua gives it."""

    def broke(self, tail: Tail) -> None:
        """The tail's connection was lost."""

    async def examine(self, tail: Tail) -> None:
        """Look whether the tail's logs are still what they were. Raises RelayUnavailable."""


class Tail:
    """`taker` gets what was read, is told when a connection was lost, and asked to look before a new one is read from:
    another log may be behind it. `entries_a_read`: the most of a stream that a blocking read brings."""

    def __init__(
        self,
        target: Target,
        marks: str,
        taker: Taker,
        patience: Patience,
        masters: Masters,
        *,
        entries_a_read: int = ENTRIES_A_READ,
    ) -> None:
        self._target = target
        self._marks = marks
        self._marks_key = marks.encode()
        self._marks_id = b"0-0"
        self._taker = taker
        self._patience = patience
        self._masters = masters
        self._entries_a_read = entries_a_read
        self._logs: dict[str, RedisLog] = {}
        self._wanted: list[tuple[RedisLog, Sequence[Shard], asyncio.Future[int]]] = []
        self._closed = False
        self._begun = asyncio.Event()
        self._heard = 0.0
        self._due: list[float] = []
        self._came = self._settled = 0.0
        self._took_seconds = 0.0
        self.connections = 0

    @property
    def well(self) -> bool:
        """True if a mark has come back lately, and this has not died since."""
        return time.monotonic() - self._heard < DEAF_SECONDS

    @property
    def lag_seconds(self) -> float:
        """How far behind Redis this is: what the last mark took, or the age of one that should have come since."""
        return max(self._took_seconds, time.monotonic() - min(self._due) if self._due else 0.0)

    def follow(self, log: RedisLog) -> None:
        """Read a log from where it stands, from the next read on: `prove` makes the one that is under way end."""
        self._logs[log.name] = log

    async def include(self, log: RedisLog, shards: Sequence[Shard], client: Client) -> int:
        """Read these shards too, from the position on that is returned: at the next moment when nothing is being read.
        Raises RelayUnavailable; then they are not read."""
        included: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._wanted.append((log, shards, included))
        try:
            async with asyncio.timeout(DEAF_SECONDS):
                await self.prove(client)
                return await included
        except TimeoutError:
            raise RelayUnavailable("what is published does not come back") from None
        finally:
            included.cancel()

    def _include_wanted(self) -> None:
        for log, shards, included in self._wanted:
            if not included.done():
                log.include(shards)
                included.set_result(log.delivered)
        self._wanted.clear()

    async def prove(self, client: Client) -> None:
        """Put a mark in by another connection; it should come out of this one. Raises RelayUnavailable."""
        sent = round(time.monotonic(), 6)
        try:
            async with client.pipeline(transaction=False) as pipe:
                pipe.xadd(self._marks, {"at": f"{sent:.6f}"}, maxlen=8, approximate=False)
                pipe.expire(self._marks, MARKS_SECONDS)
                await pipe.execute()
        except ERRORS as error:
            raise RelayUnavailable(reason_of(error)) from error
        if sent > self._settled and len(self._due) < MOST_DUE:
            self._due.append(sent)

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
            except Exception:
                self._heard = 0.0  # nobody follows until this is started again, and it may die of the same thing again
                raise
            finally:
                self._taker.broke(self)
            if time.monotonic() - began > DEAF_SECONDS * 2:
                wait = FIRST_WAIT_SECONDS
            await asyncio.sleep(wait * (0.5 + random.random() / 2))
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    async def _follow_connection(self) -> None:
        client = connect(self._target, self._patience, self._masters, answer_seconds=BLOCK_LIMIT_SECONDS)
        try:
            await client.ping()
            await self._taker.examine(self)
            self.connections += 1  # not before: a Redis that is away is no connection that breaks
            connected = time.monotonic()
            while not self._closed:
                self._include_wanted()
                await self._read(client)
                # A new connection has its time to bring a mark; until one has come through it, nothing is well again.
                if time.monotonic() - max(self._heard, connected) > DEAF_SECONDS:
                    raise TimeoutError("deaf")
        finally:
            await client.aclose()

    async def _read(self, client: Client) -> None:
        """Wait for what comes, and hand it on."""
        logs: dict[bytes, RedisLog] = {}
        streams: dict[Any, Any] = {self._marks: self._marks_id}
        for log in self._logs.values():
            for shard in log.followed:
                logs[shard.stream.encode()] = log
                streams[shard.stream] = f"{log.delivered}-{LAST_SEQUENCE}" if log.split else log.tail_id
        answer: Any = await client.xread(streams, self._entries_a_read, round(BLOCK_SECONDS * 1000))
        woken: dict[str, RedisLog] = {}
        more = False
        for key, entries in answer:
            if key == self._marks_key:
                self._hear(entries)
            elif (log := logs[key]).split:
                woken[log.name] = log
            elif place_of(entries[-1][0]) > place_of(log.tail_id):  # else the log has turned meanwhile
                log.tail_id = entries[-1][0]
                self._taker.took(log, entries)
                more |= len(entries) == self._entries_a_read
        for log in woken.values():
            shards = log.followed
            keys = (log.facts, *log.keys_of(shards))
            found = await call(client, "read", keys, log.delivered, ENTRIES_A_READ)
            self._taker.took_split(log, shards, found)
            more |= len(found[-1]) == ENTRIES_A_READ
        if not more:
            self._settle()

    def _hear(self, entries: Sequence[Raw]) -> None:
        """A mark has come: the connection is not deaf."""
        self._marks_id, fields = entries[-1]
        self._heard = time.monotonic()
        self._begun.set()
        self._came = float(fields[b"at"])

    def _settle(self) -> None:
        """All that was in Redis before the last mark is handed on. A mark alone does not say so: it comes with the
        first read, however many entries are left for the next ones."""
        if self._came > self._settled:
            self._settled = self._came
            self._took_seconds = time.monotonic() - min([self._came, *self._due])
            self._due = [sent for sent in self._due if sent > self._came]

    def stop(self) -> None:
        """Follow no more after the read that is under way. To be called before the task is cancelled: redis-py can
        swallow a cancellation that comes together with an answer."""
        self._closed = True
