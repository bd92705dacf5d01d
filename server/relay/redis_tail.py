"""The tail: all that is appended to the channels' streams, read in order as it comes, on a connection of its own.

Owns that connection, the place up to which each stream has been read, and the proof that the connection is not deaf: a
mark that the tick puts into a stream of this node's own has to come out here. Must never decode an entry or wait for
anything but Redis. Redis ends connections that take their answers too slowly; so what was read is delivered at once.

Invariants: a stream is read from exactly behind the last entry that was read, whatever happened in between; a
connection that brings nothing for `DEAF_SECONDS` is given up; of a log that is split, what is handed on is all that its
followed shards have, in one order. A blocking read can't give that: it wakes with the first stream that has something.
So it only wakes, and a script reads all shards in one moment.
No answer is large. A blocking read is bounded by count alone, so it brings few (`MOST_WOKEN` over all channels, or
`LEAST_WOKEN` of each); where that was not all, where the connection is new or this process stood still, logs are read
in pages until nothing is left. A page is bounded in bytes as well; and what has come is handed on in slices, between
which the loop has its turn.
Cost: one blocking read at a time for all channels. A log that is split has a tail of its own, whose blocking read
brings one entry per shard, and one round trip more each time. A page costs Redis 0.4 microseconds per small entry;
by a script, which can count bytes, it would be 3. So scripts read only where the log says that large events are.
Tried and rejected: all by scripts (see there), and a count that follows from the sizes seen last: small events say
nothing of the next one.
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
    Command,
    Target,
    ask_each,
    call,
    connect,
    reason_of,
)
from server.relay.redis_entries import Raw, position_of
from server.relay.redis_log import RedisLog, Shard
from server.relay.redis_masters import Masters
from server.relay.redis_pages import SMALL_BYTES, Found, PageSize, found_of, slices
from server.relay.redis_patience import Patience

ENTRIES_A_PAGE = 500
PAGES_SECONDS = 0.25  # for one log, before others have their turn
MOST_WOKEN = 32
LEAST_WOKEN = 4
LATE_SECONDS = 0.25  # a blocking read that takes so much longer than it may: this process stood still
LAST_SEQUENCE = 2**64 - 1  # ours have 0: what else is at a position is not ours
DEAF_SECONDS = 3.0
MARKS_SECONDS = 60
MARKS_KEPT = 8
MOST_DUE = 60  # marks that are counted while none comes back
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 2.0

logger = get_logger("relay")


class Taker(Protocol):
    """Whom a tail works for."""

    def took(self, log: RedisLog, entries: Sequence[Raw]) -> None:
        """What came into a log that is not split."""

    def took_split(self, log: RedisLog, shards: Sequence[Shard], page: Found) -> None:
        """What is in these shards of a log after `log.delivered`: a page of read.lua's, or the next slice of it."""

    def broke(self, tail: Tail) -> None:
        """The tail's connection was lost."""

    async def examine(self, tail: Tail) -> None:
        """Look whether the tail's logs are still what they were. Raises RelayUnavailable."""


class Tail:
    """`taker` gets what was read, is told when a connection was lost, and asked to look before a new one is read from:
    another log may be behind it."""

    def __init__(self, target: Target, marks: str, taker: Taker, patience: Patience, masters: Masters) -> None:
        self._target = target
        self._marks = marks
        self._marks_key = marks.encode()
        self._marks_id = b"0-0"
        self._taker = taker
        self._patience = patience
        self._masters = masters
        self._logs: dict[str, RedisLog] = {}
        self._behind: dict[str, RedisLog] = {}
        self._page = PageSize(BLOCK_LIMIT_SECONDS)
        self._wanted: list[tuple[RedisLog, Sequence[Shard], asyncio.Future[int]]] = []
        self._closed = False
        self._begun = asyncio.Event()
        self._heard = 0.0
        self._due: list[float] = []
        self._said = self._came = self._settled = 0.0
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
        self._logs[log.name] = self._behind[log.name] = log  # much may have come since it was opened

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
        await self.prove_all(client, (self,))

    @staticmethod
    async def prove_all(client: Client, tails: Sequence[Tail]) -> None:
        """Put a mark in for each. Raises RelayUnavailable if one could not be."""
        sent = round(time.monotonic(), 6)
        commands = []
        for tail in tails:
            commands.append(Command(tail._marks, ("XADD", tail._marks, "MAXLEN", MARKS_KEPT, "*", "at", f"{sent:.6f}")))
            commands.append(Command(tail._marks, ("EXPIRE", tail._marks, MARKS_SECONDS)))
        answers = await ask_each(client, commands)
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        for tail, answer in zip(tails, answers[::2], strict=True):
            if not isinstance(answer, Exception) and sent > tail._settled and len(tail._due) < MOST_DUE:
                tail._due.append(sent)
        if errors:
            raise RelayUnavailable(reason_of(errors[0])) from errors[0]

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
            self._behind = self._proven()
            while not self._closed:
                self._include_wanted()
                await self._read(client)
                # A new connection has its time to bring a mark; until one has come through it, nothing is well again.
                if time.monotonic() - max(self._heard, connected) > DEAF_SECONDS:
                    raise TimeoutError("deaf")
        except (*ERRORS, RelayUnavailable):
            raise
        except Exception:
            self._heard = 0.0  # nobody follows until this is started again, and it may die of the same thing again
            raise
        finally:
            self._taker.broke(self)  # at once: soon something may be appended to what is there now
            await client.aclose()

    def _proven(self) -> dict[str, RedisLog]:
        """The logs that may be read. Of one that could not be looked at nobody knows what it is: the tick tries it on,
        and it keeps nobody from the others."""
        return {name: log for name, log in self._logs.items() if not log.unproven}

    async def _read(self, client: Client) -> None:
        """Read what is there, or wait for what comes, and hand it on."""
        await (self._catch_up(client) if self._behind else self._wait(client))

    async def _wait(self, client: Client) -> None:
        """Wait for what comes, and hand it on."""
        logs: dict[bytes, RedisLog] = {}
        streams: dict[Any, Any] = {self._marks: self._marks_id}
        for log in self._proven().values():
            for shard in log.followed:
                logs[shard.stream.encode()] = log
                streams[shard.stream] = f"{log.delivered}-{LAST_SEQUENCE}" if log.split else log.tail_id
        split = any(log.split for log in logs.values())
        most = 1 if split else max(LEAST_WOKEN, MOST_WOKEN // max(1, len(logs)))
        began = time.monotonic()
        answer: Any = await client.xread(streams, most, round(BLOCK_SECONDS * 1000))
        if time.monotonic() - began > BLOCK_SECONDS + LATE_SECONDS:
            self._behind |= self._proven()
        woken: dict[str, RedisLog] = {}
        for key, entries in answer:
            if key == self._marks_key:
                self._hear(entries)
                self._came = self._said
                continue
            log = logs[key]
            if log.split:
                woken[log.name] = log
                continue
            if len(entries) == most:
                self._behind[log.name] = log
            await self._hand_on(log, streams[key.decode()], entries)
        for log in woken.values():
            if await self._read_by_bytes(client, log):
                self._behind[log.name] = log
        if not self._behind:
            self._settle()

    async def _catch_up(self, client: Client) -> None:
        """Read on in one of the logs that are behind, for a while."""
        behind = list(self._behind.values())
        commands = [Command(self._marks, ("XRANGE", self._marks, b"(" + self._marks_id, "+"))]
        commands += [Command(log.facts, ("HMGET", log.facts, "last", "large")) for log in behind]
        marks, *facts = await ask_each(client, commands)
        for answer in (marks, *facts):
            if isinstance(answer, Exception):
                raise answer
        if marks:
            self._hear(marks)
        if len(behind) == len(self._proven()):  # else what is not behind may have got something before these marks
            self._came = self._said
        ahead: dict[str, tuple[int, int]] = {}
        for log, fact in zip(behind, facts, strict=True):
            last, large = [int(position or 0) for position in fact]
            if last > _place_in(log):
                ahead[log.name] = (last, large)
            else:
                del self._behind[log.name]
        if ahead:
            name = next(iter(ahead))
            log = self._behind.pop(name)
            if await self._read_pages(client, log, *ahead[name]):
                self._behind[name] = log  # the others first
        if not self._behind:
            self._settle()

    async def _read_pages(self, client: Client, log: RedisLog, last: int, large: int) -> bool:
        """Read on in a log whose newest entry was `last`, and its newest large one `large`; True if there may be more
        up to there."""
        end = time.monotonic() + PAGES_SECONDS
        more = True
        while more and time.monotonic() < end:
            if log.split or large > _place_in(log):
                more = await self._read_by_bytes(client, log)
            else:
                more = await self._read_by_count(client, log, last)
        return more

    async def _read_by_count(self, client: Client, log: RedisLog, last: int) -> bool:
        """A page of entries that are known to be small: nobody knows what has come behind `last`."""
        after = log.tail_id
        most = min(ENTRIES_A_PAGE, self._page.bytes // SMALL_BYTES)
        with self._page.measured():
            entries: Any = await client.xrange(log.shards[0].stream, b"(" + after, last, most)
        await self._hand_on(log, after, entries)
        return len(entries) == most

    async def _read_by_bytes(self, client: Client, log: RedisLog) -> bool:
        """A page of entries that may be large, or of several shards."""
        after, shards = log.tail_id, log.followed
        keys = (log.facts, *log.keys_of(shards))
        with self._page.measured():
            answer = await call(client, "read", keys, _place_in(log), ENTRIES_A_PAGE, self._page.bytes)
        page = found_of(answer)
        if page.epoch != log.epoch:
            return False  # the tick will say what it is now
        if log.split:
            await self._hand_on_split(log, shards, page)
        else:
            await self._hand_on(log, after, [raw for _, raw in page.entries])
        return page.more

    async def _hand_on(self, log: RedisLog, after: bytes, entries: Sequence[Raw]) -> None:
        """Hand on what was read behind `after`. Once the log has turned it is another's: then that was all."""
        for number, part in enumerate(slices(entries)):
            if number:
                await asyncio.sleep(0)
            if log.tail_id != after:
                return
            after = log.tail_id = part[-1][0]
            self._taker.took(log, part)

    async def _hand_on_split(self, log: RedisLog, shards: Sequence[Shard], page: Found) -> None:
        """Hand on a page of these shards; an empty one too, for its floors."""
        begin = 0
        for part in list(slices([raw for _, raw in page.entries])) or [[]]:
            if begin:
                await asyncio.sleep(0)
            self._taker.took_split(log, shards, page._replace(entries=page.entries[begin : begin + len(part)]))
            begin += len(part)

    def _hear(self, entries: Sequence[Raw]) -> None:
        """A mark has come: the connection is not deaf."""
        self._marks_id, fields = entries[-1]
        self._heard = time.monotonic()
        self._begun.set()
        self._said = float(fields[b"at"])

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


def _place_in(log: RedisLog) -> int:
    """The position up to which a log has been read."""
    return log.delivered if log.split else position_of(log.tail_id)
