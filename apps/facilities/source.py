"""A simulation: facilities whose state nobody reports change as such facilities do.

Owns when something changes, and that one node of several does it (a lease). Takes the way of every change: row, search
index and events in one transaction. Its events say that they are simulated, and what somebody has reported on is left
alone. Must never be taken for the real thing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from random import Random

from apps.facilities.model import Facility
from apps.facilities.rhythm import next_state
from apps.facilities.store import FacilityStore
from bridges.database import DatabaseUnavailable
from bridges.leases import Turn

RETRY_SECONDS = 2.0


class Simulation:
    """See the module's head. `seconds`: mean time between two changes."""

    def __init__(self, store: FacilityStore, turn: Turn, seconds: float, chance: Random) -> None:
        self._store = store
        self._turn = turn
        self._seconds = seconds
        self._chance = chance
        self.events: Counter[str] = Counter()

    async def run(self) -> None:
        """Change one facility after the other, for ever, when it is this node's turn."""
        while True:
            await self._turn.wait()
            wait = self._chance.expovariate(1 / self._seconds)
            try:
                await self._change()
            except DatabaseUnavailable:
                wait = RETRY_SECONDS  # /ready says so already
            await asyncio.sleep(wait)

    async def _change(self) -> None:
        facility_id = await self._store.any_simulated(self._chance.random())
        if facility_id is not None:
            changed = await self._store.change(facility_id, self._next)
            self.events.update(changed.kinds if changed is not None else ())

    def _next(self, before: Facility) -> Facility:
        return next_state(before, datetime.now(UTC), self._chance) if before.simulated else before
