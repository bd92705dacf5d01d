"""The outbox: events written in the same transaction as the change that they tell of.

Owns the rows between the commit and the channel's log. A change and its event cannot part: if the transaction is undone
there is no event, and if the process dies after the commit the event is appended by the next that looks. Must never
know what an event means.

How: rows are read in order by one node at a time (a lease), claimed in batches whose composition is written down, and
appended, a whole batch at once, under the batch's name as idempotency key; then they are deleted, and in the same
transaction whoever wants to know is told where in the log they stand. So a crash anywhere in between leads to the same
batch under the same key, and to one event. Within the window of the keys,
`idempotency_seconds`, that is: a node that comes back later than that after dying between append and delete publishes
twice. One that lives knows what it has appended, however long the database is away.
Order: of the rows' numbers. Transactions that overlap in PostgreSQL may commit in the other order than they took
numbers; what follows from each other never does.

Cost: one small transaction and one append per batch, 500 events at most, whatever the number of writers, and one
transaction more when nothing waits any longer.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import ujson
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Integer,
    String,
    Table,
    Text,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from bridges.database import Database, DatabaseUnavailable, metadata
from bridges.leases import Lease
from server.event import Event
from server.hub import Hub
from server.logs import get_logger
from server.relay.protocol import Appended, Key, RelayUnavailable

BATCH_EVENTS = 500
IDLE_SECONDS = 1.0  # between two looks at a database that only this node writes to: it is woken by its own commits
SHARED_IDLE_SECONDS = 0.05
RETRY_SECONDS = 1.0

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("channel", String(64), nullable=False),
    Column("event", Text, nullable=False),
    Column("batch", String(32)),
    Column("created", Float, nullable=False),
    sqlite_autoincrement=True,
)

log = get_logger("outbox")


class Batch(NamedTuple):
    """Events of one channel that are appended together. `created` is when the first of them was written."""

    name: str
    channel: str
    events: Sequence[Event]
    created: float


class Done(NamedTuple):
    """A batch that is in its log, with the ids of its events there."""

    batch: Batch
    ids: Sequence[str]


# Called with the events of one channel and their ids, in the transaction in which their rows are deleted.
Record = Callable[[AsyncConnection, Sequence[Event], Sequence[str]], Awaitable[None]]


class Outbox:
    """See the module's head. `node` names this node in the lease."""

    def __init__(self, database: Database, hub: Hub, node: str) -> None:
        self._database = database
        self._hub = hub
        self._lease = Lease(database, "outbox", node)
        self._idle_seconds = IDLE_SECONDS if database.sqlite else SHARED_IDLE_SECONDS
        self._written = asyncio.Event()
        self._done: Done | None = None  # appended, and its rows are still there
        self._records: dict[str, Record] = {}
        self.state = "ok"
        self.appended = self.failures = 0
        self.waiting = 0
        self.oldest_seconds = 0.0

    async def put(self, connection: AsyncConnection, channel: str, events: Sequence[Event]) -> None:
        """Write events in the transaction of `connection`. Call `wake` once it is committed."""
        now = time.time()
        rows = [{"channel": channel, "event": _text(event), "created": now} for event in events]
        if rows:
            await connection.execute(insert(outbox), rows)

    def wake(self) -> None:
        """There is something to append."""
        self._written.set()

    def on_appended(self, channel: str, record: Record) -> None:
        """Have `record` write down where the events of a channel stand, on whichever node appends them."""
        self._records[channel] = record

    async def waits(self, channel: str, until: float) -> bool:
        """True if an event of the channel that was written then or before (unix seconds, the writer's clock) may not be
        in its log yet. Raises DatabaseUnavailable."""
        waiting = exists().where(outbox.c.channel == channel, outbox.c.created <= until)
        async with self._database.reading() as connection:
            return bool((await connection.execute(select(waiting))).scalar())

    async def run(self) -> None:
        """Append what is written, for ever."""
        while True:
            self._written.clear()
            wait = self._idle_seconds
            try:
                await self._forget_done()
                if await self._lease.holds():
                    while (batch := await self._next()) is not None:
                        await self._append(batch)
                self.state = "ok"
            except (DatabaseUnavailable, RelayUnavailable) as error:
                if self.state == "ok":
                    log.error("outbox_waits", reason=error.reason)
                self.state = error.reason
                self.failures += 1
                wait = RETRY_SECONDS
            try:
                async with asyncio.timeout(wait):
                    await self._written.wait()
            except TimeoutError:
                pass

    async def stop(self) -> None:
        """Let another node go on at once."""
        try:
            await self._lease.give_up()
        except DatabaseUnavailable:
            pass  # it expires

    async def _append(self, batch: Batch) -> None:
        """Put a batch into its channel's log. Raises RelayUnavailable."""
        self.oldest_seconds = max(0.0, time.time() - batch.created)
        channel = await self._hub.open(batch.channel)
        key = Key("outbox", batch.name, batch.name.encode())
        answer: Appended | Awaitable[Appended] = self._hub.publish(channel, batch.events, key)
        appended = answer if isinstance(answer, Appended) else await answer
        self._done = Done(batch, appended.ids)

    async def _next(self) -> Batch | None:
        """The next batch, and the end of the one that is done, in one transaction. None if nothing waits.

        A batch that was claimed and not finished comes first, be it of a node that died. The rows are locked: a holder
        of the lease that stood still too long, and the node that went on, never give names to the same rows.
        """
        async with self._database.writing() as connection:
            if self._done is not None:
                await self._delete(connection, self._done)
            oldest = select(outbox).order_by(outbox.c.id).limit(BATCH_EVENTS).with_for_update()
            rows = (await connection.execute(oldest)).all()
            waiting = len(rows)
            if waiting == BATCH_EVENTS:
                waiting = (await connection.execute(select(func.count()).select_from(outbox))).scalar() or 0
            batch = await _claimed(connection, rows) or await _claim(connection, rows)
        self._is_forgotten()
        self.waiting = waiting
        if batch is None:
            self.oldest_seconds = 0.0
        return batch

    async def _forget_done(self) -> None:
        """What was appended and could not be deleted, for the database was away, is deleted before anybody looks: this
        node may no longer be the one that appends, and the log may have forgotten the batch's key."""
        if self._done is not None:
            async with self._database.writing() as connection:
                await self._delete(connection, self._done)
            self._is_forgotten()

    async def _delete(self, connection: AsyncConnection, done: Done) -> None:
        deleted = await connection.execute(delete(outbox).where(outbox.c.batch == done.batch.name))
        record = self._records.get(done.batch.channel)
        # Another node that went on with the batch has written it down, and more since.
        if record is not None and deleted.rowcount:
            await record(connection, done.batch.events, done.ids)

    def _is_forgotten(self) -> None:
        if self._done is not None:
            self.appended += len(self._done.batch.events)
            self._done = None

    def metrics(self) -> Iterator[Metric]:
        """What a scrape gets."""
        yield GaugeMetricFamily("ringcast_outbox_waiting", "Events that are not in their log yet.", self.waiting)
        yield GaugeMetricFamily("ringcast_outbox_oldest_seconds", "How long the oldest waits.", self.oldest_seconds)
        yield CounterMetricFamily("ringcast_outbox_appended", "Events appended.", self.appended)
        yield CounterMetricFamily("ringcast_outbox_failures", "Looks that failed.", self.failures)


async def _claimed(connection: AsyncConnection, rows: Sequence[Any]) -> Batch | None:
    """The batch that one of these rows was given to. It may have more rows than are among these."""
    name = next((row.batch for row in rows if row.batch is not None), None)
    if name is None:
        return None
    every = select(outbox).where(outbox.c.batch == name).order_by(outbox.c.id)
    return _batch(name, (await connection.execute(every)).all())


async def _claim(connection: AsyncConnection, rows: Sequence[Any]) -> Batch | None:
    """The first of these rows, as far as they are of one channel, as a new batch."""
    if not rows:
        return None
    leading = list(takewhile(lambda row: row.channel == rows[0].channel, rows))
    name = uuid.uuid4().hex
    mine = outbox.c.id.in_([row.id for row in leading])
    await connection.execute(update(outbox).where(mine).values(batch=name))
    return _batch(name, leading)


def _batch(name: str, rows: Sequence[Any]) -> Batch:
    return Batch(name, rows[0].channel, [_event(row.event) for row in rows], rows[0].created)


def _text(event: Event) -> str:
    fields: list[object] = [event.topics, event.type, event.id, event.retry_ms, event.private, event.data]
    if event.location is not None:
        fields.append(event.location)
    return ujson.dumps(fields, ensure_ascii=False, escape_forward_slashes=False)


def _event(text: str) -> Event:
    topics, kind, own_id, retry_ms, private, data, *place = ujson.loads(text)
    return Event(tuple(topics), data, kind, own_id, retry_ms, private, tuple(place[0]) if place else None)
