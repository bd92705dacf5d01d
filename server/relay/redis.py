"""The relay `redis://…`: every channel's log is a stream in Redis, which all nodes append to and follow.

Owns what happens on the loop: appends gather, go out as one round trip at a time, and are answered once Redis has them
and this node has delivered them; the tick that keeps the present, the bounds and the proof of life; and the turn to a
new epoch when the log is not what it was. Must never know of readers. What is said to Redis is in server/relay/lua,
what comes back live in redis_tail.py.

Invariants: an append is atomic, and is never repeated unless Redis has said that it did not happen. Entries are
delivered only as the tail reads them, so every node delivers the same ones in the same order. No connection is trusted
because it is up: what proves it is a mark that went into Redis by one connection and came out of the other.
Cost: one round trip per turn of the loop at most, whatever the number of appends in it; one script per channel and
second, many of them in a round trip.
Source: contract, "Streams as truth".
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from math import ceil

from redis.asyncio import RedisCluster

from server.event import Event
from server.ids import new_epoch
from server.logs import get_logger
from server.relay.protocol import (
    Appended,
    Deliver,
    Entry,
    Followed,
    Key,
    LogState,
    RelayUnavailable,
    Retention,
    Splitter,
    Stretch,
    Turned,
)
from server.relay.redis_appends import Appends, Terms
from server.relay.redis_board import Board
from server.relay.redis_client import ERRORS, Client, Target, ask, ask_script, connect, reason_of
from server.relay.redis_entries import DamagedEntry, Raw, before, entry_of, place_of
from server.relay.redis_log import RedisLog, Shard
from server.relay.redis_looks import Looks
from server.relay.redis_masters import Masters
from server.relay.redis_pages import Found
from server.relay.redis_patience import Patience
from server.relay.redis_reads import RedisReads
from server.relay.redis_tail import Tail
from server.shards import ALL, Shards
from server.supervision import cancelled, supervise

TICK_SECONDS = 1.0
ARRIVAL_SECONDS = 2.0  # an append that Redis has is answered after this, whether or not the tail brought it
MAX_TURNS = 3
PROOF_SECONDS = 4.0  # nodes that live look once they are connected again, two and a half seconds later at the most
NOT_OPEN = "the log is not open"
CLOSED = "the log is closed"

logger = get_logger("relay")


class RedisRelay:
    """Implements `Relay` and `Splitter` over Redis. `replicas`: how many must have an append before it is acknowledged
    (WAIT). `shards_of`: how many shards a channel is split into. `durable`: Redis keeps what it has acknowledged
    through any crash, so nothing has to be proved after one. `lag_seconds`: how far behind it may be and still be well.
    """

    shared = True

    def __init__(
        self,
        target: Target,
        *,
        prefix: str,
        idempotency_seconds: float,
        replicas: int = 0,
        replicas_seconds: float = 1.0,
        shards_of: Callable[[str], int] = lambda _: 1,
        durable: bool = False,
        lag_seconds: float = 5.0,
    ) -> None:
        self.durability = (
            f"redis, {replicas} replicas: survives the loss of the master"
            if replicas
            else "redis: as Redis persists and replicates; what its fsync window takes is declared"
        )
        self._target = target
        self._patience, self._masters = Patience(), Masters()
        self._client: Client = connect(target, self._patience, self._masters)
        self.board = Board(self._client, prefix)
        self._prefix = prefix
        self._shards_of = shards_of
        self._proves = int(not durable)  # what the scripts want to know
        self._most_lag_seconds = lag_seconds
        self._terms = Terms(max(1, round(idempotency_seconds * 1000)), replicas, round(replicas_seconds * 1000))
        self._cluster = isinstance(self._client, RedisCluster)
        self._name = secrets.token_hex(8)
        self._tails: list[Tail] = []
        self._tail_of: dict[str, Tail] = {}
        self._begun: dict[str, Tail] = {}  # of channels that could not be opened: there for the next try
        self._logs: dict[str, RedisLog] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._refusing: str | None = NOT_OPEN
        self._fault: str | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self._turning: dict[str, asyncio.Task[None]] = {}
        self.turns = 0
        self._reads = RedisReads(self._client)
        self._looks = Looks(self._client, self._proves, self._turn, self._missed)

    async def start(self, deliver: Deliver, turned: Turned) -> None:
        self._loop = asyncio.get_running_loop()
        self._deliver = deliver
        self._turned = turned
        self._appends = Appends(self._client, self._terms, self._turn, self._failed)
        self._refusing = None
        try:
            await ask(self._client.ping())
            if not self._cluster:
                await self._new_tail(f"{{{self._prefix}}}").begin(self._client)
            await self.board.read()  # whoever was revoked before finds nothing open
            self._keep("relay_tick", self._tick_for_ever)
        except RelayUnavailable:
            await self.close()
            raise

    def _keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(self._loop.create_task(supervise(name, work)))

    def _new_tail(self, tag: str) -> Tail:
        """A tail at work. `tag` says in which slot of a cluster its marks are."""
        number = len(self._tails)
        marks = f"{tag}:node:{self._name}:{number}"
        tail = Tail(self._target, marks, self, self._patience, self._masters)
        self._tails.append(tail)
        self._keep("relay_tail", tail.run)
        return tail

    @property
    def splitter(self) -> Splitter:
        return self

    @property
    def _well(self) -> bool:
        return all(tail.well for tail in self._tails)

    # --- channels

    async def open(self, channel: str, retention: Retention, recent: int, recent_bytes: int = 0) -> LogState:
        if self._refusing is not None:
            raise RelayUnavailable(self._refusing)
        log = self._logs.get(channel)
        if log is not None:
            return await self._state(log, log.delivered, recent, recent_bytes)
        log = RedisLog(channel, self._prefix, retention, self._shards_of(channel))
        await self._learn_proven(log)
        tail = await self._tail_for(log)
        state = await self._state(log, log.delivered, recent, recent_bytes)
        # From here to the end without waiting: what comes is for a channel that is there.
        self._tail_of[channel] = tail
        self._begun.pop(channel, None)
        self._logs[channel] = log
        tail.follow(log)
        self._soon(lambda: tail.prove(self._client))
        return state

    async def _tail_for(self, log: RedisLog) -> Tail:
        """One blocking read can follow all streams of one Redis, but in a cluster only those of one slot. That of a log
        which is split is there to wake."""
        if not log.split and not self._cluster:
            return self._tails[0]
        tail = self._begun.get(log.name)
        if tail is None:
            tail = self._begun[log.name] = self._new_tail(f"{{{self._prefix}:{log.name}}}")
        await tail.begin(self._client)
        return tail

    def _soon(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it, and do without if it fails: the tick will do it again."""

        async def tried() -> None:
            with contextlib.suppress(RelayUnavailable):
                await work()

        task = self._loop.create_task(tried())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _learn_proven(self, log: RedisLog) -> None:
        """How the log stands. If Redis was started anew, what it had lost then only a node can tell that lived through
        it: it has a moment to. If there is none, a new epoch begins: nobody can say that nothing is missing."""
        end = time.monotonic() + PROOF_SECONDS
        while unproven := await self._learn(log, ""):
            if time.monotonic() > end:
                logger.error("log_unproven", channel=log.name, before=unproven)
                await self._learn(log, unproven)
                return
            await asyncio.sleep(PROOF_SECONDS / 10)

    async def _learn(self, log: RedisLog, suspected: str) -> str:
        """How the log stands, in a new epoch if it has none or is still in the `suspected` one; or the epoch that
        nobody has proved to be whole yet, and then nothing is known."""
        kept, count = log.retention, len(log.shards)
        ours = (new_epoch(), suspected, log.given)
        bounds = (ceil(kept.events / count), ceil(kept.bytes / count), kept.seconds)
        facts = await ask_script(self._client, "open", log.opening_keys, *ours, *bounds, self._proves)
        if facts[0] == b"split":
            log.refused = f"channel {log.name} is in {int(facts[1])} shards in Redis, and in {count} by the settings"
            raise RelayUnavailable(log.refused)
        log.refused = ""
        if facts[0] == b"unproven":
            return str(facts[1].decode())
        epoch, high = facts[1].decode(), int(facts[2])
        log.renew(epoch, high)
        for shard, last, floor in zip(log.shards, facts[3::2], facts[4::2], strict=True):
            shard.last, shard.floor = int(last), int(floor)
        newest = max(log.shards, key=lambda shard: shard.last)
        log.newest, log.newest_shard = newest.last, newest.number
        return ""

    async def _state(self, log: RedisLog, high: int, recent: int, recent_bytes: int) -> LogState:
        if log.split:
            return LogState(log.epoch, log.floor(), [], len(log.shards))
        newest = await self._reads.newest(log, log.shards[0], high, recent, recent_bytes)
        return LogState(log.epoch, log.floor(), newest.entries)

    async def follow(
        self, channel: str, shards: Sequence[int], recent: int, recent_bytes: int = 0
    ) -> Sequence[Followed]:
        log = self._logs[channel]
        chosen = log.chosen(tuple(shards))
        await self._looks.at(log)  # else what is up to a second old would come as if it were new
        present = await self._tail_of[channel].include(log, chosen, self._client)
        try:
            found = await asyncio.gather(
                *[self._reads.newest(log, shard, present, recent, recent_bytes) for shard in chosen]
            )
            await self._looks.at(log)  # what was dropped meanwhile is below the floors as they are now
        except RelayUnavailable:
            log.exclude(chosen)
            raise
        return [
            Followed(shard.number, entries[0].position - 1 if entries and is_cut else shard.floor, entries)
            for shard, (entries, is_cut) in zip(chosen, found, strict=True)
        ]

    def unfollow(self, channel: str, shards: Sequence[int]) -> None:
        log = self._logs[channel]
        log.exclude(log.chosen(tuple(shards)))

    async def append(self, channel: str, events: Sequence[Event], key: Key | None) -> Appended:
        if self._refusing is not None:
            raise RelayUnavailable(self._refusing)
        log = self._logs[channel]
        if log.refused:
            raise RelayUnavailable(log.refused)
        if not events:
            return Appended((), False)
        appended = await self._appends.put(log, events, key)
        arrival = log.arrival(log.awaited) if self._well else None
        if arrival is not None:  # this node's readers have it first
            await asyncio.wait((arrival,), timeout=ARRIVAL_SECONDS)
        return appended

    # --- what is read

    async def read(self, channel: str, after: int, limit: int, shards: Shards = ALL) -> Stretch:
        return await self._reads.read(self._logs[channel], after, limit, shards)

    async def find(self, channel: str, event_id: str) -> Sequence[Entry]:
        return await self._reads.find(self._logs[channel], event_id)

    async def reach(self, channel: str, epoch: str, position: int) -> None:
        log = self._logs[channel]
        if epoch == log.epoch and position <= max(log.mark, log.delivered):
            return
        newest = await self._looks.with_others(log)
        if epoch == log.epoch and position > max(
            log.mark, newest
        ):  # that look may have begun before there was this cursor
            newest = await self._looks.with_others(log)
        arrival = log.arrival(newest)
        if arrival is not None:
            await asyncio.wait((arrival,), timeout=ARRIVAL_SECONDS)
            if epoch == log.epoch and log.delivered < newest:  # a tail that breaks wakes who waits, too
                raise RelayUnavailable("this node is behind the log")

    def mark(self, channel: str) -> int:
        return self._logs[channel].mark

    def floor(self, channel: str, shards: Shards = ALL) -> int:
        return self._logs[channel].floor(shards)

    def lowest_floor(self, channel: str, shards: Shards = ALL) -> int:
        return self._logs[channel].lowest_floor(shards)

    # --- what the tail brings

    def took(self, log: RedisLog, entries: Sequence[Raw]) -> None:
        """Deliver what the tail has read; before an entry that is not ours, and after it."""
        good: list[Entry] = []
        last = log.delivered
        if place_of(entries[0][0]) <= (last, 0):  # told of as missed while it was on its way
            entries = [raw for raw in entries if place_of(raw[0]) > (last, 0)]
        for raw in entries:
            try:
                entry = entry_of(log.epoch, raw)
            except DamagedEntry as error:
                self._deliver_entries(log, good)
                good, last = [], error.position
                self._reads.note_damage(log, error)
                self._skip(log, "damaged", last)
                continue
            if before(raw) > last:
                self._deliver_entries(log, good)
                good = []
                logger.error("entries_missed", channel=log.name, after=last, to=before(raw))
                self._skip(log, "history", before(raw))
            good.append(entry)
            last = entry.position
        self._deliver_entries(log, good)

    def took_split(self, log: RedisLog, shards: Sequence[Shard], page: Found) -> None:
        """Deliver what is in the shards of a log that is split: in order, and all that there is."""
        if page.epoch != log.epoch:
            return  # the tick will say what it is now
        for shard, floor in zip(shards, page.floors, strict=True):
            if floor > max(log.delivered, shard.missed):
                logger.error("entries_missed", channel=log.name, after=log.delivered, to=floor, shard=shard.number)
                self._hole(log, shard, "history", floor)
            shard.floor = max(shard.floor, floor)
        good: list[Entry] = []
        for which, raw in page.entries:
            try:
                good.append(entry_of(log.epoch, raw))
            except DamagedEntry as error:
                self._deliver_entries(log, good)
                good = []
                self._reads.note_damage(log, error)
                self._hole(log, shards[which - 1], "damaged", error.position)
                log.delivered = max(log.delivered, error.position)
        self._deliver_entries(log, good)

    def _missed(self, log: RedisLog, shard: Shard) -> None:
        """A shard has nothing left, and this node has not read all of it: no entry will come that tells of that."""
        logger.error("entries_missed", channel=log.name, after=log.delivered, to=shard.floor, shard=shard.number)
        if log.split:
            self._hole(log, shard, "history", shard.floor)
        else:
            self._skip(log, "history", shard.floor)

    def _hole(self, log: RedisLog, shard: Shard, reason: str, position: int) -> None:
        """Of one shard, nobody can read what was up to `position`."""
        shard.missed = max(shard.missed, position)
        shard.floor = max(shard.floor, position)
        state = LogState(log.epoch, log.floor(), [], len(log.shards), (shard.number,))
        self._turned(log.name, reason, position, state)

    def _deliver_entries(self, log: RedisLog, entries: list[Entry]) -> None:
        if not entries:
            return
        try:
            self._deliver(log.name, entries)
        except Exception:
            logger.exception("delivery_failed", channel=log.name, events=len(entries))
        log.took(entries)

    def _skip(self, log: RedisLog, reason: str, position: int) -> None:
        """Entries up to `position` that nobody can read are a hole, and holes are declared."""
        log.shards[0].floor = max(log.shards[0].floor, position)
        log.delivered = max(log.delivered, position)
        self._turned(log.name, reason, position, LogState(log.epoch, log.floor(), []))

    def _logs_of(self, tail: Tail) -> list[RedisLog]:
        return [log for name, log in self._logs.items() if self._tail_of[name] is tail]

    def broke(self, tail: Tail) -> None:
        """A tail's connection is gone: nobody waits for it, and what is behind the next one has to be proved."""
        for log in self._logs_of(tail):
            log.doubt()
            log.release()

    async def examine(self, tail: Tail) -> None:
        """Look at a tail's logs before they are read on: another may be behind the new connection. One that cannot be
        looked at is not read on."""
        await self._looks.at_some(self._logs_of(tail))
        await tail.prove(self._client)

    # --- the tick

    async def _tick_for_ever(self) -> None:
        while self._refusing is None:
            began = time.monotonic()
            try:
                await self._tick()
                self._recovered()
            except (*ERRORS, RelayUnavailable) as error:
                self._failed(reason_of(error))
            except Exception as error:
                self._failed(reason_of(error))  # until a tick comes to its end
                raise
            await asyncio.sleep(max(0.1, began + TICK_SECONDS - time.monotonic()))

    async def _tick(self) -> None:
        """Send the tails the marks that prove them, see what other nodes say, and move the present of every channel on.

        In this order: the last takes the longer the more channels there are. And all of it, whatever fails: a Redis
        that is full takes no mark, until a look has dropped what is over age. Raises RelayUnavailable.
        """
        failure: RelayUnavailable | None = None
        for step in (self._prove, self.board.read, self._look):
            try:
                await step()
            except RelayUnavailable as error:
                if failure is None:
                    failure = error
                    self._failed(error.reason)
        if failure is not None:
            raise failure

    async def _prove(self) -> None:
        await Tail.prove_all(self._client, list(self._tails))  # others are added meanwhile

    async def _look(self) -> None:
        await self._looks.at_all(list(self._logs.values()))

    # --- another log than it was

    async def _turn(self, log: RedisLog, epoch: str) -> None:
        """Out of `epoch`, if the log is still in that: begin the one that it is in now, or make it begin one; readers
        are told. One at a time per log."""
        if log.epoch != epoch:
            return
        task = self._turning.get(log.name)
        if task is None:
            task = self._turning[log.name] = self._loop.create_task(self._turn_once(log))
            task.add_done_callback(lambda _: self._turning.pop(log.name, None))
        await asyncio.shield(task)

    async def _turn_once(self, log: RedisLog) -> None:
        before = log.epoch
        await self._learn(log, before)
        self.turns += 1
        logger.error("log_turned", channel=log.name, before=before, epoch=log.epoch)
        self._turned(log.name, "epoch", log.mark, LogState(log.epoch, log.floor(), [], len(log.shards)))

    # --- the rest

    def _failed(self, reason: str) -> None:
        known, self._fault = self._fault, reason
        if known != reason:
            logger.error("log_refuses_events", reason=reason)

    def _recovered(self) -> None:
        if self._fault is not None:
            self._fault = None
            logger.warning("log_takes_events")

    def _complaint(self, lag_seconds: float) -> str | None:
        """Why newcomers are better off elsewhere. That a mark came says that the tail hears, not that it keeps up:
        marks are in a stream of their own, and overtake what is still to be read."""
        if not self._well:
            return "what is published does not come back"
        if lag_seconds > self._most_lag_seconds:
            return f"this node is more than {self._most_lag_seconds:g} s behind the log"
        return None

    def state(self) -> dict[str, object]:
        lag_seconds = max((tail.lag_seconds for tail in self._tails), default=0.0)
        reason = self._refusing or self._fault or self._complaint(lag_seconds)
        facts: dict[str, object] = {"ok": reason is None, "kind": "redis", "durability": self.durability}
        if reason is not None:
            facts["reason"] = reason
        return facts | {
            "channels": len(self._logs),
            "events": sum(shard.events for log in self._logs.values() for shard in log.shards),
            "bytes": sum(shard.bytes for log in self._logs.values() for shard in log.shards),
            "waiting_events": self._appends.waiting.events,
            "waiting_bytes": self._appends.waiting.bytes,
            "round_trips": self._appends.round_trips,
            "lag_seconds": round(lag_seconds, 4),
            "tail_connections": sum(tail.connections for tail in self._tails),
            "damaged": self._reads.damaged,
            "turns": self.turns,
        }

    async def close(self) -> None:
        if self._refusing in (NOT_OPEN, CLOSED):
            return
        self._refusing = CLOSED
        for tail in self._tails:
            tail.stop()
        await self._appends.close()
        await cancelled((*self._tasks, *self._turning.values(), *self._errands))
        await self._client.aclose()
