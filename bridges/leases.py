"""Leases: of several nodes over one database, one does a thing at a time.

Owns who holds a lease and until when, in the database's own time-free way: whoever finds it expired by its own clock
takes it. Clocks of nodes may differ by less than `LEASE_SECONDS / 3`. A holder that stands still longer than its lease
may find that another has gone on: what is done under a lease must be harmless if it is done twice.
"""

from __future__ import annotations

import time

from sqlalchemy import Column, Float, String, Table, insert, or_, update
from sqlalchemy.exc import IntegrityError

from bridges.database import Database, metadata

LEASE_SECONDS = 6.0
RENEW_SECONDS = 2.0

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
