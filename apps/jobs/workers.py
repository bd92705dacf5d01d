"""Workers as the nodes see them: whether there is one that takes jobs.

Owns the table of workers and when each was heard of last: at a claim, or at a report that names it. Every node looks;
a worker that speaks to one is known to all within seconds. Must never know what a worker does.
Cost: a small transaction per worker every `NOTE_SECONDS`, a look every `LOOK_SECONDS` on each node.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from sqlalchemy import Column, Float, String, Table, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from apps.jobs.store import JobStore
from bridges.database import Database, DatabaseUnavailable, metadata

NOTE_SECONDS = 5.0
LOOK_SECONDS = 2.0
PRESENT_SECONDS = 25.0
FORGET_SECONDS = 86_400.0
MAX_NAMES = 1_000

workers = Table(
    "job_workers",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("seen", Float, nullable=False),
)


class Workers:
    """See the module's head."""

    def __init__(self, database: Database, store: JobStore) -> None:
        self._database = database
        self._store = store
        self._noted: OrderedDict[str, float] = OrderedDict()
        self.number = 0
        self.state = "ok"

    async def note(self, name: str) -> None:
        """This worker was heard of. Raises DatabaseUnavailable."""
        now = time.monotonic()
        if now - self._noted.get(name, float("-inf")) < NOTE_SECONDS:
            return
        self._noted[name] = now
        self._noted.move_to_end(name)
        if len(self._noted) > MAX_NAMES:
            self._noted.popitem(last=False)
        self.number = max(self.number, 1)
        seen = time.time()
        async with self._database.writing() as connection:
            known = await connection.execute(update(workers).where(workers.c.name == name).values(seen=seen))
        if not known.rowcount:
            await self._add(name, seen)

    async def _add(self, name: str, seen: float) -> None:
        try:
            async with self._database.writing() as connection:
                await connection.execute(insert(workers).values(name=name, seen=seen))
        except IntegrityError:
            pass  # it spoke to another node in the same moment

    async def look(self) -> None:
        """Count those that are there. Raises DatabaseUnavailable."""
        now = time.time()
        present = select(func.count()).select_from(workers).where(workers.c.seen > now - PRESENT_SECONDS)
        async with self._database.reading() as connection:
            self.number = (await connection.execute(present)).scalar() or 0
        missing = not self.number and await self._store.waits_since(now - PRESENT_SECONDS)
        self.state = "no worker takes the jobs that wait (ringcast job-worker)" if missing else "ok"

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            try:
                await self.look()
            except DatabaseUnavailable:
                pass  # the outbox says so
            await asyncio.sleep(LOOK_SECONDS)

    async def forget(self) -> None:
        """Let go of those that have been gone for long. Raises DatabaseUnavailable."""
        async with self._database.writing() as connection:
            await connection.execute(delete(workers).where(workers.c.seen < time.time() - FORGET_SECONDS))
