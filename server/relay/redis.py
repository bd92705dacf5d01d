"""The relay `redis://…`: every channel's log is a stream in Redis, which all nodes append to and follow.

Owns what happens on the loop: appends gather, go out as one round trip at a time, and are answered once Redis has them
and this node has delivered them; the tick that keeps the present, the bounds and the proof of life; and the turn to a
new epoch when the log is not what it was. Must never know of readers. What is said to Redis is in server/relay/lua,
what comes back live in redis_tail.py.

Invariants: an append is atomic, and is never repeated unless Redis has said that it did not happen. Entries are
delivered only as the tail reads them, so every node delivers the same ones in the same order. No connection is trusted
because it is up: what proves it is a mark that went into Redis by one connection and came out of the other.
Cost: one round trip per turn of the loop at most, whatever the number of appends in it; one script per channel and
second.
Source: contract, "Streams as truth".
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from math import ceil
from typing import Any, NamedTuple

from redis.asyncio import RedisCluster
from redis.exceptions import NoScriptError

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
    Turned,
)
from server.relay.redis_appends import Appends, Terms
from server.relay.redis_board import Board
from server.relay.redis_client import ERRORS, Client, Target, connect, drop_connections, reason_of, script
from server.relay.redis_entries import DamagedEntry, Raw, before, entry_of, position_of, raw_of
from server.relay.redis_log import RedisLog, Shard
from server.relay.redis_tail import Read, Tail
from server.shards import ALL, Shards
from server.supervision import cancelled, supervise

TICK_SECONDS = 1.0
DROPPED_A_TICK = 1_000
RECENT_A_TIME = 1_000
ARRIVAL_SECONDS = 2.0  # an append that Redis has is answered after this, whether or not the tail brought it
MAX_FOUND = 100
MAX_TURNS = 3
NOT_OPEN = "the log is not open"
CLOSED = "the log is closed"

logger = get_logger("relay")


class Arrived(NamedTuple):
    """An entry that has come. `missed`: what was in its shard before it, up to there, was dropped before it was read;
    0 for nothing."""

    position: int
    shard: Shard
    missed: int
    raw: Raw


def _in_order(reads: Sequence[Read], delivered: int) -> list[Arrived]:
    """What was read of all shards, in the log's order; an event that is in several of them once."""
    found: dict[int, Arrived] = {}
    for shard, last, entries in reads:
        for raw in entries:
            position, previous = position_of(raw[0]), before(raw)
            if position > delivered:
                missed = previous if previous > last else 0
                found[position] = Arrived(
                    position, shard, max(missed, found[position].missed) if position in found else missed, raw
                )
            last = position
    return [found[position] for position in sorted(found)] if len(reads) > 1 else list(found.values())


class RedisRelay:
    """Implements `Relay` and `Splitter` over Redis. `replicas`: how many must have an append before it is acknowledged
    (WAIT). `shards_of`: how many shards a channel is split into."""

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
    ) -> None:
        self.durability = (
            f"redis, {replicas} replicas: survives the loss of the master"
            if replicas
            else "redis: as Redis persists and replicates; what its fsync window takes is declared"
        )
        self._target = target
        self._client: Client = connect(target)
        self.board = Board(self._client, prefix)
        self._prefix = prefix
        self._shards_of = shards_of
        self._terms = Terms(max(1, round(idempotency_seconds * 1000)), replicas, round(replicas_seconds * 1000))
        self._cluster = isinstance(self._client, RedisCluster)
        self._name = secrets.token_hex(8)
        self._tails: list[Tail] = []
        self._tail_of: dict[str, Tail] = {}
        self._logs: dict[str, RedisLog] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._refusing: str | None = NOT_OPEN
        self._fault: str | None = None
        self._looks: dict[str, asyncio.Task[int]] = {}
        self._turning: dict[str, asyncio.Task[None]] = {}
        self.damaged = self.turns = 0

    async def start(self, deliver: Deliver, turned: Turned) -> None:
        self._loop = asyncio.get_running_loop()
        self._deliver = deliver
        self._turned = turned
        self._appends = Appends(self._client, self._terms, self._turn, self._failed)
        self._refusing = None
        try:
            await self._ask(self._client.ping())
            if not self._cluster:
                await self._add_tail(f"{{{self._prefix}}}")
            self._keep("relay_tick", self._tick_for_ever)
        except RelayUnavailable:
            await self.close()
            raise

    def _keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        self._tasks.append(self._loop.create_task(supervise(name, work)))

    async def _add_tail(self, tag: str) -> Tail:
        """A tail at work. `tag` says in which slot of a cluster its marks are."""
        tail = Tail(self._target, f"{tag}:node:{self._name}", self._took, self._broke, self._tick)
        self._tails.append(tail)
        self._keep("relay_tail", tail.run)
        await tail.begin(self._client)
        return tail

    @property
    def splitter(self) -> Splitter:
        return self

    @property
    def _well(self) -> bool:
        return all(tail.well for tail in self._tails)

    # --- channels

    async def open(self, channel: str, retention: Retention, recent: int) -> LogState:
        if self._refusing is not None:
            raise RelayUnavailable(self._refusing)
        log = self._logs.get(channel)
        if log is not None:
            return await self._state(log, log.delivered, recent)
        # One blocking read can follow all streams of one Redis, but in a cluster only those of one slot.
        tail = await self._add_tail(f"{{{self._prefix}:{channel}}}") if self._cluster else self._tails[0]
        log = RedisLog(channel, self._prefix, retention, self._shards_of(channel))
        self._tail_of[channel] = tail
        state = await self._learn(log, "", recent)
        self._logs[channel] = log
        if state.shards == 1:
            await tail.follow(log, self._client)
        return state

    async def _learn(self, log: RedisLog, suspected: str, recent: int) -> LogState:
        """How the log stands, in a new epoch if it has none or is still in the `suspected` one."""
        kept, count = log.retention, len(log.shards)
        bounds = (ceil(kept.events / count), ceil(kept.bytes / count), kept.seconds)
        facts = await self._call("open", log.keys, new_epoch(), suspected, log.given, *bounds)
        if facts[0] == b"split":
            raise RelayUnavailable(
                f"channel {log.name} is in {int(facts[1])} shards in Redis, and in {count} by the settings"
            )
        epoch, high = facts[1].decode(), int(facts[2])
        log.renew(epoch, high)
        for shard, last, floor in zip(log.shards, facts[3::2], facts[4::2], strict=True):
            shard.last, shard.floor = int(last), int(floor)
        log.newest = max([shard.last for shard in log.shards])
        return await self._state(log, high, recent)

    async def _state(self, log: RedisLog, high: int, recent: int) -> LogState:
        whole = len(log.shards) == 1
        entries = await self._newest(log, log.shards[0], high, recent) if whole else []
        return LogState(log.epoch, log.floor(ALL), entries, len(log.shards))

    async def follow(self, channel: str, shards: Sequence[int], recent: int) -> Sequence[Followed]:
        log = self._logs[channel]
        chosen = log.chosen(tuple(shards))
        await self._look(log)  # else what is up to a second old would come as if it were new
        present = await self._tail_of[channel].include(log, chosen, self._client)
        followed = []
        for shard in chosen:
            entries = await self._newest(log, shard, present, recent)
            since = entries[0].position - 1 if len(entries) == recent else shard.floor
            followed.append(Followed(shard.number, since, entries))
        return followed

    def unfollow(self, channel: str, shards: Sequence[int]) -> None:
        log = self._logs[channel]
        self._tail_of[channel].exclude(log, log.chosen(tuple(shards)))

    async def _newest(self, log: RedisLog, shard: Shard, high: int, count: int) -> list[Entry]:
        """The last `count` entries up to `high`, oldest first. In parts: Redis does nothing else meanwhile."""
        found: list[Raw] = []
        end = f"{high}"
        while len(found) < count:
            wanted = min(RECENT_A_TIME, count - len(found))
            some = await self._ask(self._client.xrevrange(shard.stream, end, "-", wanted))
            found += some
            if len(some) < wanted:
                break
            end = f"({some[-1][0].decode()}"
        return self._entries(log, shard, found[::-1])

    def _entries(self, log: RedisLog, shard: Shard, raws: Sequence[Raw]) -> list[Entry]:
        """The entries that are ours. Behind one that is not, history is not complete."""
        entries = []
        for raw in raws:
            try:
                entries.append(entry_of(log.epoch, raw))
            except DamagedEntry as error:
                shard.floor = max(shard.floor, error.position)
                self._note_damage(log, error)
        return entries

    def _note_damage(self, log: RedisLog, error: DamagedEntry) -> None:
        self.damaged += 1
        logger.error("entry_damaged", channel=log.name, position=error.position)

    async def append(self, channel: str, events: Sequence[Event], key: Key | None) -> Appended:
        if self._refusing is not None:
            raise RelayUnavailable(self._refusing)
        log = self._logs[channel]
        if not events:
            return Appended((), False)
        appended = await self._appends.put(log, events, key)
        arrival = log.arrival(log.awaited) if self._well else None
        if arrival is not None:  # this node's readers have it first
            await asyncio.wait((arrival,), timeout=ARRIVAL_SECONDS)
        return appended

    # --- what is read

    async def read(self, channel: str, after: int, limit: int, shards: Shards = ALL) -> Sequence[Entry]:
        log = self._logs[channel]
        chosen = log.chosen(shards)
        epoch, *answer = await self._call("read", (log.facts, *log.keys_of(chosen)), after, limit)
        if epoch.decode() != log.epoch:
            raise RelayUnavailable("the log is turning to a new epoch")
        found: dict[int, Entry] = {}
        upto = log.delivered
        for shard, floor, flat in zip(chosen, answer[::2], answer[1::2], strict=True):
            shard.floor = max(shard.floor, int(floor))
            raws = list(map(raw_of, flat))
            found |= {entry.position: entry for entry in self._entries(log, shard, raws)}
            if len(raws) == limit:  # there may be more: what others have beyond it has to wait
                upto = min(upto, position_of(raws[-1][0]))
        return [found[position] for position in sorted(found) if position <= upto]

    async def find(self, channel: str, event_id: str) -> Sequence[Entry]:
        log = self._logs[channel]
        places = await self._ask(self._client.hget(log.own_ids, event_id))
        found: dict[int, Entry] = {}
        for position in (places or b"").split()[:MAX_FOUND]:
            for shard in log.shards:
                raws = await self._ask(self._client.xrange(shard.stream, position, position))
                found |= {entry.position: entry for entry in self._entries(log, shard, raws)}
        return [entry for entry in found.values() if entry.event.id == event_id]

    async def reach(self, channel: str, epoch: str, position: int) -> None:
        log = self._logs[channel]
        if epoch == log.epoch and position <= max(log.mark, log.delivered):
            return
        look = self._looks.get(channel)
        if look is None:  # one for all who come back at once
            look = self._looks[channel] = self._loop.create_task(self._look(log))
            look.add_done_callback(lambda _: self._looks.pop(channel, None))
        arrival = log.arrival(await asyncio.shield(look))
        if arrival is not None:
            await asyncio.wait((arrival,), timeout=ARRIVAL_SECONDS)
            if not arrival.done():
                raise RelayUnavailable("this node is behind the log")

    def mark(self, channel: str) -> int:
        return self._logs[channel].mark

    def floor(self, channel: str, shards: Shards = ALL) -> int:
        return self._logs[channel].floor(shards)

    # --- what the tail brings

    def _took(self, log: RedisLog, reads: Sequence[Read]) -> None:
        """Deliver what the tail has read; before an entry that is not ours, and after it."""
        good: list[Entry] = []
        for arrived in _in_order(reads, log.delivered):
            try:
                entry = entry_of(log.epoch, arrived.raw)
            except DamagedEntry as error:
                self._deliver_entries(log, good)
                good = []
                self._note_damage(log, error)
                self._skip(log, arrived.shard, "damaged", error.position)
                continue
            if arrived.missed:
                self._deliver_entries(log, good)
                good = []
                logger.error("entries_missed", channel=log.name, to=arrived.missed)
                self._skip(log, arrived.shard, "history", arrived.missed)
            good.append(entry)
        self._deliver_entries(log, good)

    def _deliver_entries(self, log: RedisLog, entries: list[Entry]) -> None:
        if not entries:
            return
        try:
            self._deliver(log.name, entries)
        except Exception:
            logger.exception("delivery_failed", channel=log.name, events=len(entries))
        log.took(entries)

    def _skip(self, log: RedisLog, shard: Shard, reason: str, position: int) -> None:
        """Entries up to `position` that nobody can read are a hole, and holes are declared."""
        shard.floor = max(shard.floor, position)
        log.delivered = max(log.delivered, position)
        self._turned(log.name, reason, log.delivered, LogState(log.epoch, log.floor(ALL), []))

    def _broke(self, tail: Tail) -> None:
        """A tail's connection is gone: nobody waits for it, and what is behind the next one has to be proved."""
        for name, log in self._logs.items():
            if self._tail_of[name] is tail:
                log.unproven = True
                log.release()

    # --- the tick

    async def _tick_for_ever(self) -> None:
        while self._refusing is None:
            began = time.monotonic()
            try:
                await self._tick()
                self._recovered()
            except (*ERRORS, RelayUnavailable) as error:
                self._failed(reason_of(error))
            await asyncio.sleep(max(0.1, began + TICK_SECONDS - time.monotonic()))

    async def _tick(self) -> None:
        """Move the present of every channel on, and send the tail the mark that proves it."""
        for log in list(self._logs.values()):
            await self._look(log)
        await self.board.read()
        for tail in self._tails:
            await tail.prove(self._client)

    async def _look(self, log: RedisLog) -> int:
        """Ask how a log stands; the position of its newest entry."""
        answer = await self._call("tick", log.keys, log.epoch, log.newest, log.given, int(log.unproven), DROPPED_A_TICK)
        if answer[0] == b"turned":
            await self._turn(log)
            return log.delivered
        log.unproven = False
        facts = list(map(int, answer[1:]))
        for shard, at in zip(log.shards, range(1, len(facts), 4), strict=True):
            shard.last, floor, shard.events, shard.bytes = facts[at : at + 4]
            shard.floor = max(shard.floor, floor)
        return log.stands(facts[0])

    # --- another log than it was

    async def _turn(self, log: RedisLog) -> None:
        """Begin the epoch that the log is in now, or make it begin one; readers are told. One at a time per log."""
        task = self._turning.get(log.name)
        if task is None:
            task = self._turning[log.name] = self._loop.create_task(self._turn_once(log))
            task.add_done_callback(lambda _: self._turning.pop(log.name, None))
        await asyncio.shield(task)

    async def _turn_once(self, log: RedisLog) -> None:
        before = log.epoch
        state = await self._learn(log, before, 0)
        self.turns += 1
        logger.error("log_turned", channel=log.name, before=before, epoch=state.epoch)
        self._turned(log.name, "epoch", log.mark, state)

    # --- the rest

    async def _call(self, name: str, keys: Sequence[str], *values: Any) -> Any:
        """Run a script that may run twice. Raises RelayUnavailable."""
        wanted = script(name)
        try:
            return await self._client.evalsha(wanted.digest, len(keys), *keys, *values)
        except NoScriptError:
            return await self._ask(self._client.eval(wanted.text, len(keys), *keys, *values))
        except ERRORS as error:
            if isinstance(error, RuntimeError):
                await drop_connections(self._client)
            raise RelayUnavailable(reason_of(error)) from error

    @staticmethod
    async def _ask(answer: Awaitable[Any]) -> Any:
        """What a command answers. Raises RelayUnavailable."""
        try:
            return await answer
        except ERRORS as error:
            raise RelayUnavailable(reason_of(error)) from error

    def _failed(self, reason: str) -> None:
        known, self._fault = self._fault, reason
        if known != reason:
            logger.error("log_refuses_events", reason=reason)

    def _recovered(self) -> None:
        if self._fault is not None:
            self._fault = None
            logger.warning("log_takes_events")

    def state(self) -> dict[str, object]:
        reason = self._refusing or self._fault or (None if self._well else "what is published does not come back")
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
            "lag_seconds": round(max((tail.lag_seconds for tail in self._tails), default=0.0), 4),
            "tail_connections": sum(tail.connections for tail in self._tails),
            "damaged": self.damaged,
            "turns": self.turns,
        }

    async def close(self) -> None:
        if self._refusing in (NOT_OPEN, CLOSED):
            return
        self._refusing = CLOSED
        for tail in self._tails:
            tail.stop()
        await self._appends.close()
        await cancelled((*self._tasks, *self._turning.values()))
        await self._client.aclose()
