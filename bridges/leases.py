"""Leases: of several nodes over one database, one does a thing at a time.

Owns who holds a lease and until when, in the database's own time-free way: whoever finds it expired by its own clock
takes it. Clocks of nodes may differ by less than `LEASE_SECONDS / 3`. A holder that stands still longer than its lease
may find that another has gone on: what is done under a lease must be harmless if it is done twice.

A `Lease` is kept by asking it often enough, which suits who looks at the database all the time anyway. A `Turn` keeps
one by itself, in a task of its own: for work that rests between its steps, or takes a step, for longer than the lease
lasts. Must never know what the work is.
Cost: a small transaction every `RENEW_SECONDS` on every node.
"""

from __future__ import annotations

import asyncio
import time

from sqlalchemy import Column, Float, String, Table, insert, or_, update
from sqlalchemy.exc import IntegrityError

from bridges.database import Database, DatabaseUnavailable, metadata
from server.logs import get_logger

LEASE_SECONDS = 6.0
RENEW_SECONDS = 2.0

log = get_logger("leases")

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("until", Float, nullable=False),
)


class Lease:
    """One lease as one node sees it. `holder` names the node."""

    def __init__(self, database: Database, name: str, holder: str) -> None:
        self._database = database
        self._name = name
        self._holder = holder
        self._asked = 0.0
        self.held = False

    async def holds(self) -> bool:
        """True if this node has the lease: taken, renewed, or known to be held for a while yet. Raises
        DatabaseUnavailable."""
        now = time.monotonic()
        if not self._asked or now - self._asked > RENEW_SECONDS:
            self.held = await self._take()
            self._asked = now
        return self.held

    async def _take(self) -> bool:
        now = time.time()
        mine = (
            update(leases)
            .where(leases.c.name == self._name, or_(leases.c.holder == self._holder, leases.c.until < now))
            .values(holder=self._holder, until=now + LEASE_SECONDS)
        )
        async with self._database.writing() as connection:
            if (await connection.execute(mine)).rowcount:
                return True
        try:
            async with self._database.writing() as connection:
                first = insert(leases).values(name=self._name, holder=self._holder, until=now + LEASE_SECONDS)
                await connection.execute(first)
        except IntegrityError:
            return False  # somebody else has it
        return True

    async def give_up(self) -> None:
        """Let another have it at once. Raises DatabaseUnavailable."""
        if self.held:
            self.held = False
            async with self._database.writing() as connection:
                await connection.execute(
                    update(leases).where(leases.c.name == self._name, leases.c.holder == self._holder).values(until=0.0)
                )


class Turn:
    """Whose turn something is. `number` counts this node's turns: who finds another number than before knows that
    others may have been at it."""

    def __init__(self, database: Database, name: str, node: str) -> None:
        self._lease = Lease(database, name, node)
        self._name = name
        self._mine = asyncio.Event()
        self.number = 0

    @property
    def mine(self) -> bool:
        return self._mine.is_set()

    async def wait(self) -> int:
        """Until it is this node's turn; the turn's number."""
        await self._mine.wait()
        return self.number

    async def run(self) -> None:
        """Take the lease, and keep it, for ever."""
        while True:
            try:
                held = await self._lease.holds()
            except DatabaseUnavailable:
                held = False  # /ready says so: the outbox finds it out too
            if held and not self.mine:
                self.number += 1
                self._mine.set()
                log.info("turn_began", lease=self._name)
            elif self.mine and not held:
                self._mine.clear()
                log.info("turn_ended", lease=self._name)
            await asyncio.sleep(RENEW_SECONDS)

    async def stop(self) -> None:
        """Let another node go on at once. `run` has ended."""
        self._mine.clear()
        try:
            await self._lease.give_up()
        except DatabaseUnavailable:
            pass  # it expires
