"""A simulation: facilities whose state nobody reports change as such facilities do.

Owns when something changes, and that one node of several does it (a lease). Takes the way of every change: row, search
index and events in one transaction. Its events say that they are simulated, and what somebody has reported on is left
alone. Must never be taken for the real thing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime
from random import Random

from apps.facilities.model import Facility
from apps.facilities.rhythm import next_state
from apps.facilities.store import FacilityStore
from bridges.database import DatabaseUnavailable
from bridges.leases import RENEW_SECONDS, Lease

RETRY_SECONDS = 2.0


class Simulation:
    """See the module's head. `seconds`: mean time between two changes."""

    def __init__(self, store: FacilityStore, lease: Lease, seconds: float, chance: Random) -> None:
        self._store = store
        self._lease = lease
        self._seconds = seconds
        self._chance = chance
        self._due = 0.0
        self.events: Counter[str] = Counter()

    async def run(self) -> None:
        """Change one facility after the other, for ever."""
        while True:
            try:
                wait = await self._step()
            except DatabaseUnavailable:
                wait = RETRY_SECONDS  # /ready says so already
            await asyncio.sleep(wait)

    async def _step(self) -> float:
        """Change something if it is time to; how long until the next look. The lease is kept between changes, however
        rare they are."""
        if not await self._lease.holds():
            return RENEW_SECONDS
        if time.monotonic() >= self._due:
            await self._change()
            self._due = time.monotonic() + self._chance.expovariate(1 / self._seconds)
        return min(RENEW_SECONDS, max(0.0, self._due - time.monotonic()))

    async def _change(self) -> None:
        facility_id = await self._store.any_simulated(self._chance.random())
        if facility_id is not None:
            changed = await self._store.change(facility_id, self._next)
            self.events.update(changed.kinds if changed is not None else ())

    def _next(self, before: Facility) -> Facility:
        return next_state(before, datetime.now(UTC), self._chance) if before.simulated else before

    async def stop(self) -> None:
        """Let another node go on at once."""
        try:
            await self._lease.give_up()
        except DatabaseUnavailable:
            pass  # it expires
