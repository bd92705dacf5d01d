"""What tenants are yet to be told, from the transaction in which it became true to its place in the log.

Owns the table `monitor_outgoing`: one queue for what the worker finds and for what nodes change, because what is in two
queues comes in any order: an incident that is resolved before it opens stays open for who reads.

Invariant: a tenant's events enter the log once each, in the order in which what they tell of was committed, whoever
sends them, however many do so at once, and whoever dies meanwhile. It follows from four rules.
1. Who puts an event in here holds the tenant (tenancy.py) from before the first lock of the transaction to its end. So
   the numbers of a tenant's rows rise with the commits, also in PostgreSQL, and all locks are taken in one order.
2. An event is sent when all that stand before it of its tenant are in the log, and not earlier.
3. It is sent under its own key, by whomever. The second time is none, so the order is that of the first time.
4. Nobody sends what was read more than `FRESH_SECONDS` ago: a process that stood still for longer than keys are
   remembered (`idempotency_seconds`) reads again first.

Who sends: the worker what is the worker's, up to the first event of a node (sender.py); nodes what is the nodes', with
all that stands before it, but not at once where that is the worker's (teller.py). So what a tenant changes waits for no
worker that is away.
Limits: what is too much, or wrong, is dropped (sender.py); who dies between sending and deleting, and is followed by
nobody for `idempotency_seconds`, tells it twice.

Cost: for each change and check one more statement, which makes the changes of one tenant wait for one another; for each
look at the queue one index look-up per row.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete, exists, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from apps.monitors.model import Said
from apps.monitors.tables import outgoing
from bridges.database import Database

BATCH = 100
FRESH_SECONDS = 30.0  # longer than the database may take to answer, a fraction of the default of `idempotency_seconds`


class Waiting(NamedTuple):
    """What nodes have to tell of a tenant: the number of the last such row, and when the first was written."""

    tenant: int
    last: int
    created: float


class Outgoing:
    """`by_node`: what is put in here is a node's, else a worker's. Construct on a running loop."""

    def __init__(self, database: Database, *, by_node: bool) -> None:
        self._database = database
        self._by_node = by_node
        self._settled: list[int] = []  # rows that were taken, or never will be, and are still there
        self.written = asyncio.Event()

    async def put(self, connection: AsyncConnection, said: Sequence[Said]) -> None:
        """Put something in the queue, in the transaction of `connection`, which holds the tenant. Call `wake` once it
        is committed."""
        now = time.time()
        rows = [
            {
                "key": uuid.uuid4().hex,
                "tenant_id": one.tenant,
                "type": one.type,
                "body": one.body(),
                "by_node": self._by_node,
                "created": now,
            }
            for one in said
        ]
        if rows:
            await connection.execute(insert(outgoing), rows)

    def wake(self) -> None:
        """There is something to send."""
        self.written.set()

    async def rest(self, seconds: float) -> None:
        """Until something is put in here, or for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self.written.wait()
        except TimeoutError:
            pass

    # --- what may be sent

    async def of_workers(self) -> Sequence[Any]:
        """The oldest rows that a worker may send now."""
        before = outgoing.alias()
        earlier = (before.c.tenant_id == outgoing.c.tenant_id) & (before.c.id < outgoing.c.id)
        held_up = exists().where(earlier, before.c.by_node)
        query = select(outgoing).where(~outgoing.c.by_node, ~held_up).order_by(outgoing.c.id).limit(BATCH)
        async with self._database.reading() as connection:
            return (await connection.execute(query)).all()

    async def waiting(self) -> Sequence[Waiting]:
        """The tenants that nodes have to tell something."""
        columns = outgoing.c.tenant_id, func.max(outgoing.c.id), func.min(outgoing.c.created)
        query = select(*columns).where(outgoing.c.by_node).group_by(outgoing.c.tenant_id)
        async with self._database.reading() as connection:
            return [Waiting(*row) for row in await connection.execute(query)]

    async def of_tenant(self, tenant: int, last: int) -> Sequence[Any]:
        """The oldest rows of a tenant, up to this one."""
        query = select(outgoing).where(outgoing.c.tenant_id == tenant, outgoing.c.id <= last)
        async with self._database.reading() as connection:
            return (await connection.execute(query.order_by(outgoing.c.id).limit(BATCH))).all()

    # --- what was sent

    def settle(self, row: Any) -> None:
        """This row was taken, or will never be."""
        self._settled.append(row.id)

    async def forget(self) -> None:
        """Delete what is settled. If the database is away it is remembered: the log may forget the keys meanwhile."""
        if self._settled:
            async with self._database.writing() as connection:
                await remove(connection, outgoing.c.id.in_(self._settled))
            self._settled.clear()


async def remove(connection: AsyncConnection, condition: Any, limit: int | None = None) -> int:
    """Delete rows, the oldest first; how many. Several may be at it, so all lock them in the order of their numbers."""
    oldest = select(outgoing.c.id).where(condition).order_by(outgoing.c.id).limit(limit).with_for_update()
    numbers = (await connection.execute(oldest)).scalars().all()
    if not numbers:
        return 0
    return (await connection.execute(delete(outgoing).where(condition, outgoing.c.id <= numbers[-1]))).rowcount


def is_fresh(read: float) -> bool:
    """False if what was read then (the loop's clock) has to be read again before it is sent."""
    return time.monotonic() - read < FRESH_SECONDS
