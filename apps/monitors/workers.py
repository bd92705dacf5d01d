"""The workers, as a node sees them: by what they write of themselves.

Owns the look at their rows, and whether one is missed. Must never know how they work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import ujson
from sqlalchemy import select

from apps.monitors.tables import monitors, tenants, workers
from bridges.database import Database, DatabaseUnavailable

LOOK_SECONDS = 3.0
MISSED_SECONDS = 15.0


class Workers:
    """`state` is "ok" or what is wrong; `facts` are those of the worker that is at work."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.facts: Mapping[str, Any] = {}
        self.present = False
        self.state = "ok"

    async def run(self) -> None:
        """Look now and then, for ever."""
        while True:
            try:
                await self.look()
            except DatabaseUnavailable as error:
                self.state = error.reason
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """See who is there. Raises DatabaseUnavailable."""
        real = select(monitors.c.id).join_from(monitors, tenants).where(monitors.c.enabled, ~tenants.c.simulated)
        recent = select(workers.c.facts).where(workers.c.seen > time.time() - MISSED_SECONDS)
        async with self._database.reading() as connection:
            found = [ujson.loads(row.facts) for row in await connection.execute(recent)]
            wanted = (await connection.execute(real.limit(1))).scalar() is not None
        self.facts = next((facts for facts in found if facts["active"]), {})
        self.present = bool(self.facts)
        if self.present:
            server = self.facts["server"]
            self.state = "ok" if server == "ok" else f"the worker cannot send: {server}"
        else:
            self.state = "no worker checks the monitors (ringcast monitor-worker)" if wanted else "ok"
