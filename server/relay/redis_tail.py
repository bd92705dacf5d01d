"""The tail: all that is appended to the channels' streams, read in order as it comes, on a connection of its own.

Owns that connection, the place up to which each stream has been read, and the proof that the connection is not deaf: a
mark that the tick puts into a stream of this node's own has to come out here. Must never decode an entry or wait for
anything but Redis. Redis ends connections that take their answers too slowly; so what was read is delivered at once.

Invariants: a stream is read from exactly behind the last entry that was read, whatever happened in between; a
connection that brings nothing for `DEAF_SECONDS` is given up; of a log with several shards, what is handed on is all of
them up to one position, so that they can be put into one order. A blocking read can't give that: it wakes with the
first stream that has something. So it only wakes, and a read of all shards in one moment follows.
Cost: one blocking read at a time for all channels; one read more each time for a channel that is split.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from server.logs import get_logger
from server.relay.protocol import RelayUnavailable
from server.relay.redis_client import BLOCK_LIMIT_SECONDS, BLOCK_SECONDS, ERRORS, Client, Target, connect, reason_of
from server.relay.redis_entries import Raw, position_of
from server.relay.redis_log import RedisLog, Shard

ENTRIES_A_READ = 500
DEAF_SECONDS = 3.0
MARKS_SECONDS = 60
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 2.0


class Read(NamedTuple):
    """What came of a shard behind the position `after`."""

    shard: Shard
    after: int
    entries: Sequence[Raw]


logger = get_logger("relay")


class Tail:
    """`took(log, reads)` gets what was read, by shard; `broke(tail)` is called when its connection was lost,
    `examine()` before a new one is read from: another log may be behind it."""

    def __init__(
        self,
        target: Target,
        marks: str,
        took: Callable[[RedisLog, Sequence[Read]], None],
        broke: Callable[[Tail], None],
        examine: Callable[[], Awaitable[None]],
    ) -> None:
        self._target = target
        self._marks = marks
        self._marks_key = marks.encode()
        self._marks_id = b"0-0"
        self._took = took
        self._broke = broke
        self._examine = examine
        self._streams: dict[bytes, tuple[RedisLog, Shard]] = {}
        self._wanted: list[tuple[RedisLog, Sequence[Shard], asyncio.Future[int]]] = []
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
        """Read a log that is not split from where it stands. The mark makes the read that is under way end."""
        self._add(log, log.shards)
        await self.prove(client)

    async def include(self, log: RedisLog, shards: Sequence[Shard], client: Client) -> int:
        """Read these shards too, from the position on that is returned: at the next moment when nothing is being read.
        Raises RelayUnavailable."""
        included: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._wanted.append((log, shards, included))
        await self.prove(client)
        try:
            async with asyncio.timeout(DEAF_SECONDS):
                return await included
        except TimeoutError:
            raise RelayUnavailable("what is published does not come back") from None

    def exclude(self, log: RedisLog, shards: Sequence[Shard]) -> None:
        """Read these no more. What of them is under way is not handed on."""
        log.exclude(shards)
        for shard in shards:
            self._streams.pop(shard.stream.encode(), None)

    def _add(self, log: RedisLog, shards: Sequence[Shard]) -> None:
        for shard in shards:
            self._streams[shard.stream.encode()] = (log, shard)

    def _include_wanted(self) -> None:
        for log, shards, included in self._wanted:
            if not included.done():
                log.include(shards)
                self._add(log, shards)
                included.set_result(log.delivered)
        self._wanted.clear()

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
                self._broke(self)
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
                self._include_wanted()
                streams: dict[Any, Any] = {key: shard.tail_id for key, (_, shard) in self._streams.items()}
                streams[self._marks] = self._marks_id
                answer: Any = await client.xread(streams, ENTRIES_A_READ, round(BLOCK_SECONDS * 1000))
                split = {}
                for key, entries in answer:
                    log, shard = self._streams.get(key, (None, None))
                    if key == self._marks_key:
                        self._read_mark(entries)
                    elif log is not None and shard is not None:
                        if len(log.shards) > 1:
                            split[log.name] = log
                        else:
                            self._hand_on(log, [(shard, entries)])
                for log in split.values():
                    await self._read_shards(client, log)
                if not self.well:
                    raise TimeoutError("deaf")
        finally:
            await client.aclose()

    def _read_mark(self, entries: Sequence[Raw]) -> None:
        self._marks_id, fields = entries[-1]
        self._heard = time.monotonic()
        self._begun.set()
        self.lag_seconds = max(0.0, self._heard - float(fields[b"at"]))

    async def _read_shards(self, client: Client, log: RedisLog) -> None:
        """What has come into a log's shards, as all of them were in one moment."""
        streams: dict[Any, Any] = {shard.stream: shard.tail_id for shard in log.shards if shard.followed}
        answer: Any = await client.xread(streams, ENTRIES_A_READ) if streams else ()
        # Behind the last entry of a full answer there may be more: what others have beyond it has to wait.
        full = [position_of(entries[-1][0]) for _, entries in answer if len(entries) == ENTRIES_A_READ]
        found = []
        for key, entries in answer:
            _, shard = self._streams.get(key, (None, None))
            upto = [raw for raw in entries if position_of(raw[0]) <= min(full)] if full else entries
            if shard is not None and upto:
                found.append((shard, upto))
        if found:
            self._hand_on(log, found)

    def _hand_on(self, log: RedisLog, found: Sequence[tuple[Shard, Sequence[Raw]]]) -> None:
        reads = []
        for shard, entries in found:
            after, last = position_of(shard.tail_id), position_of(entries[-1][0])
            if last > after:  # else the log has turned meanwhile: what came is of before
                shard.tail_id = entries[-1][0]
                reads.append(Read(shard, after, entries))
        if reads:
            self._took(log, reads)

    def stop(self) -> None:
        """Follow no more after the read that is under way. To be called before the task is cancelled: redis-py can
        swallow a cancellation that comes together with an answer."""
        self._closed = True
