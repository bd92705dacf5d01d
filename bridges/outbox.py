"""The outbox: events written in the same transaction as the change that they tell of.

Owns the rows between the commit and the channel's log. A change and its event cannot part: if the transaction is undone
there is no event, and if the process dies after the commit the event is appended by the next that looks. Must never
know what an event means.

How: rows are read in order by one node at a time (a lease), claimed in batches whose composition is written down, and
appended, a whole batch at once, under the batch's name as idempotency key; then they are deleted. So a crash anywhere
in between leads to the same batch under the same key, and to one event. (Within the window of the keys,
`idempotency_seconds`: a node that comes back later than that after dying between append and delete publishes twice.)
Order: of the rows' numbers. Transactions that overlap in PostgreSQL may commit in the other order than they took
numbers; what follows from each other never does.

Cost: two small transactions and one append per batch, 500 events at most, whatever the number of writers.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Iterator, Sequence
from typing import Any

import ujson
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import BigInteger, Column, Float, Integer, String, Table, Text, delete, func, insert, select, update
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


class Outbox:
    """See the module's head. `node` names this node in the lease."""

    def __init__(self, database: Database, hub: Hub, node: str) -> None:
        self._database = database
        self._hub = hub
        self._lease = Lease(database, "outbox", node)
        self._idle_seconds = IDLE_SECONDS if database.sqlite else SHARED_IDLE_SECONDS
        self._written = asyncio.Event()
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

    async def run(self) -> None:
        """Append what is written, for ever."""
        while True:
            self._written.clear()
            wait = self._idle_seconds
            try:
                if await self._lease.holds():
                    while await self._step():
                        pass
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

    async def _step(self) -> bool:
        """Append the oldest batch; False if there is none."""
        batch = await self._claimed() or await self._claim()
        if not batch:
            self.waiting, self.oldest_seconds = 0, 0.0
            return False
        first = batch[0]
        self.oldest_seconds = max(0.0, time.time() - first.created)
        channel = await self._hub.open(first.channel)
        events = [_event(row.event) for row in batch]
        answer: Appended | Awaitable[Appended] = self._hub.publish(
            channel, events, Key("outbox", first.batch, first.batch.encode())
        )
        if not isinstance(answer, Appended):
            await answer
        async with self._database.writing() as connection:
            await connection.execute(delete(outbox).where(outbox.c.batch == first.batch))
        self.appended += len(batch)
        return True

    async def _claimed(self) -> Sequence[Any]:
        """The oldest batch that was claimed and not finished: by this node a moment ago, or by one that died."""
        async with self._database.reading() as connection:
            name = select(outbox.c.batch).where(outbox.c.batch.is_not(None)).order_by(outbox.c.id).limit(1)
            found = (await connection.execute(name)).scalar()
            if found is None:
                return ()
            rows = select(outbox).where(outbox.c.batch == found).order_by(outbox.c.id)
            return (await connection.execute(rows)).all()

    async def _claim(self) -> Sequence[Any]:
        """The oldest rows of one channel that follow each other, as a batch."""
        async with self._database.writing() as connection:
            rows = (await connection.execute(select(outbox).order_by(outbox.c.id).limit(BATCH_EVENTS))).all()
            mine = [row.id for row in _leading(rows)]
            if not mine:
                return ()
            self.waiting = (await connection.execute(select(func.count()).select_from(outbox))).scalar() or 0
            name = uuid.uuid4().hex
            await connection.execute(update(outbox).where(outbox.c.id.in_(mine)).values(batch=name))
            return (await connection.execute(select(outbox).where(outbox.c.batch == name).order_by(outbox.c.id))).all()

    def metrics(self) -> Iterator[Metric]:
        """What a scrape gets."""
        yield GaugeMetricFamily("ringcast_outbox_waiting", "Events that are not in their log yet.", self.waiting)
        yield GaugeMetricFamily("ringcast_outbox_oldest_seconds", "How long the oldest waits.", self.oldest_seconds)
        yield CounterMetricFamily("ringcast_outbox_appended", "Events appended.", self.appended)
        yield CounterMetricFamily("ringcast_outbox_failures", "Looks that failed.", self.failures)


def _leading(rows: Sequence[Any]) -> Iterator[Any]:
    for row in rows:
        if row.channel != rows[0].channel:
            return
        yield row


def _text(event: Event) -> str:
    fields: list[object] = [event.topics, event.type, event.id, event.retry_ms, event.private, event.data]
    if event.location is not None:
        fields.append(event.location)
    return ujson.dumps(fields, ensure_ascii=False, escape_forward_slashes=False)


def _event(text: str) -> Event:
    topics, kind, own_id, retry_ms, private, data, *place = ujson.loads(text)
    return Event(tuple(topics), data, kind, own_id, retry_ms, private, tuple(place[0]) if place else None)
