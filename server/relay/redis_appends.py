"""Appends to Redis: gathered as long as one round trip is under way, then sent as the next.

Owns what waits, the call of the script for each append, and what its answer means to the publisher. Must never know of
the tail: whether this node has delivered what it appended is not looked at here.

Invariants: one round trip is under way at most, so a publisher's appends keep their order; every publisher is answered,
whatever happens; an append is sent again only if Redis has said that it did not happen (its script was not there, or
the log has turned). What waits is bounded by events and bytes.
Cost: one script call per append, one round trip per turn of the loop at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from server.event import Event
from server.logs import get_logger
from server.relay.idempotency import Receipt
from server.relay.protocol import Appended, Key, KeyConflict, RelayUnavailable, RelayUncertain
from server.relay.redis_client import ERRORS, Client, drop_connections, reason_of, script
from server.relay.redis_entries import pack
from server.relay.redis_log import RedisLog
from server.relay.waiting import Pending, Waiting

MAX_TRIES = 3
TOO_FEW = "too few replicas have the event yet"

logger = get_logger("relay")


class Terms(NamedTuple):
    """On which terms events are taken: how long a key counts, and how many replicas must have an event, within what
    time, before its publish is acknowledged."""

    window_ms: int
    replicas: int
    replicas_ms: int


class Appends:
    """`turn` brings a log that has turned out of that epoch; `failed` gets the reason when Redis refuses."""

    def __init__(
        self,
        client: Client,
        terms: Terms,
        turn: Callable[[RedisLog, str], Awaitable[None]],
        failed: Callable[[str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._terms = terms
        self._turn = turn
        self._failed = failed
        self._sending: asyncio.Task[None] | None = None
        self._flush_planned = False
        self._suspects: set[tuple[RedisLog, str]] = set()
        self.waiting: Waiting[RedisLog] = Waiting()
        self.round_trips = 0

    async def put(self, log: RedisLog, events: Sequence[Event], key: Key | None) -> Appended:
        """Append events, all or none. Raises RelayUnavailable, KeyConflict."""
        answer: asyncio.Future[Appended] = self._loop.create_future()
        self.waiting.put(log, events, key, answer)
        self._plan_flush()
        return await answer

    async def close(self) -> None:
        """Wait for what is under way or waits."""
        while self._sending is not None or self.waiting:
            self._plan_flush()
            await (asyncio.wait((self._sending,)) if self._sending is not None else asyncio.sleep(0))

    def _plan_flush(self) -> None:
        # At the end of this turn of the loop: what else is published in it goes along.
        if not self._flush_planned and self._sending is None:
            self._flush_planned = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_planned = False
        pending = self.waiting.take()
        if pending:
            self._sending = self._loop.create_task(self._send(pending))
            self._sending.add_done_callback(self._sent)

    def _sent(self, _: asyncio.Task[None]) -> None:
        self._sending = None
        if self.waiting:
            self._plan_flush()

    async def _send(self, pending: Sequence[Pending[RedisLog]]) -> None:
        """Bring a batch to Redis; whatever happens, every publisher is answered."""
        left = pending
        kind: type[RelayUnavailable] = RelayUnavailable
        reason = "the log is turning to a new epoch"
        try:
            for _ in range(MAX_TRIES):
                kind = RelayUnavailable
                await self._connected()
                kind = RelayUncertain  # from here on Redis may have it, and we not its answer
                left = await self._round_trip(left)
                if not left:
                    return
            kind = RelayUnavailable
        except Exception as error:
            if not isinstance(error, (*ERRORS, RelayUnavailable)):
                logger.exception("append_failed")
            if isinstance(error, RuntimeError):
                await drop_connections(self._client)
            reason = reason_of(error)
            self._failed(reason)
        for wait in left:
            _fail(wait, kind(reason))

    async def _connected(self) -> None:
        """See that there is a connection: what fails here has not been sent."""
        if isinstance(self._client, Redis):
            pool: Any = self._client.connection_pool
            await pool.release(await pool.get_connection())

    async def _round_trip(self, pending: Sequence[Pending[RedisLog]]) -> list[Pending[RedisLog]]:
        """Append what waits; those that were not appended, because their log has turned or Redis lost the script."""
        append = script("append")
        epochs = [wait.log.epoch for wait in pending]
        async with self._client.pipeline(transaction=False) as pipe:
            for wait in pending:
                keys, values = self._arguments(wait)
                pipe.execute_command("EVALSHA", append.digest, len(keys), *keys, *values)  # a cluster's has no evalsha
            if self._terms.replicas:
                pipe.execute_command("WAIT", self._terms.replicas, self._terms.replicas_ms)
            outcomes = await pipe.execute(raise_on_error=False)
        self.round_trips += 1
        reached = outcomes.pop() if self._terms.replicas else 0
        replicated = isinstance(reached, int) and reached >= self._terms.replicas
        again = [
            wait
            for wait, epoch, outcome in zip(pending, epochs, outcomes, strict=True)
            if not self._settle(wait, epoch, outcome, replicated=replicated)
        ]
        if any(isinstance(outcome, NoScriptError) for outcome in outcomes):
            await self._client.script_load(append.text)
        while self._suspects:
            await self._turn(*self._suspects.pop())
        return again

    def _arguments(self, wait: Pending[RedisLog]) -> tuple[list[str], list[Any]]:
        log, key = wait.log, wait.key
        known = [log.epoch, log.newest, log.given, self._terms.window_ms, key.digest.hex() if key is not None else ""]
        receipts = [log.receipt_key(key.scope, key.key)] if key is not None else []
        return append_arguments(log, wait.events, known, receipts)

    def _settle(self, wait: Pending[RedisLog], epoch: str, outcome: Any, *, replicated: bool) -> bool:
        """Answer one publisher; False if nothing was appended and it may be tried again."""
        if isinstance(outcome, NoScriptError):
            return False
        if isinstance(outcome, Exception):
            self._failed(reason_of(outcome))
            _fail(wait, RelayUnavailable(reason_of(outcome)))
            return True
        kind, value = outcome
        if kind == b"turned":
            self._suspects.add((wait.log, epoch))
            return False
        if kind == b"seen":
            self._answer_again(wait, value.decode(), replicated=replicated)
            return True
        receipt = Receipt(int(value), len(wait.events), _own_ids(wait.events))
        wait.log.appended(receipt.first, wait.events)
        if not replicated:
            _fail(wait, RelayUncertain(TOO_FEW))
        elif not wait.answer.done():
            wait.answer.set_result(Appended(receipt.ids(wait.log.epoch), False))
        return True

    @staticmethod
    def _answer_again(wait: Pending[RedisLog], text: str, *, replicated: bool) -> None:
        facts, _, own_ids = text.partition("\n")
        digest, first, events = facts.split(" ")
        assert wait.key is not None
        if digest != wait.key.digest.hex():
            _fail(wait, KeyConflict())
        elif not replicated:
            _fail(wait, RelayUncertain(TOO_FEW))
        elif not wait.answer.done():
            receipt = Receipt(int(first), int(events), own_ids if own_ids.strip("\n") else "")
            wait.answer.set_result(Appended(receipt.ids(wait.log.epoch), True))


def append_arguments(
    log: RedisLog, events: Sequence[Event], known: list[Any], receipts: list[str]
) -> tuple[list[str], list[Any]]:
    """Keys and values of append.lua: only the shards that get an event are named. `known` is what comes first."""
    places = [log.shards_of(event) for event in events]
    touched = sorted(set().union(*places)) if log.split else [0]
    shards = [log.shards[number] for number in touched]
    values = [*known, len(events), len(touched), *[f":{number}" if log.split else "" for number in touched]]
    for event, place in zip(events, places, strict=True):
        values += pack(event)
        values.append(" ".join([str(touched.index(number) + 1) for number in place]) if log.split else "1")
    return [log.facts, log.own_ids, *log.keys_of(shards), *receipts], values


def _own_ids(events: Sequence[Event]) -> str:
    """The publisher's own ids by lines, "" if it brought none."""
    return "\n".join(event.id or "" for event in events) if any(event.id is not None for event in events) else ""


def _fail(wait: Pending[RedisLog], error: Exception) -> None:
    if not wait.answer.done():
        wait.answer.set_exception(error)
