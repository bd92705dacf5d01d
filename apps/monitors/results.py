"""Results: what checks have found, until it is stored.

Owns the list in memory and its bound: while the database is away results wait here, in order, and when there are too
many the oldest go, which is counted and said. Must never know how anything is stored.

Invariants: a result that can't be stored for a reason of its own holds up no other; what was found under a lease that
another worker has taken meanwhile is not stored, for that one has checked on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from apps.monitors.model import Outcome
from bridges.database import DatabaseUnavailable
from server.logs import get_logger

RETRY_SECONDS = 1.0

log = get_logger("monitor_worker")


class Results:
    """`most` wait. `store` puts one into the database, and `is_ours` tells whether this worker is still the one that
    may; both raise DatabaseUnavailable. Construct on a running loop."""

    def __init__(
        self, most: int, store: Callable[[str, Outcome], Awaitable[None]], is_ours: Callable[[], Awaitable[bool]]
    ) -> None:
        self._most = most
        self._store = store
        self._is_ours = is_ours
        self._waiting: deque[tuple[str, Outcome]] = deque()
        self._something = asyncio.Event()
        self._empty = asyncio.Event()
        self._away = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, monitor_id: str, outcome: Outcome) -> None:
        """One more."""
        self._waiting.append((monitor_id, outcome))
        if len(self._waiting) > self._most:
            self._waiting.popleft()
            self.dropped += 1
        self._empty.clear()
        self._something.set()

    def give_up(self) -> None:
        """Another worker is at work."""
        if self._waiting:
            self.dropped += len(self._waiting)
            log.error("results_dropped", results=len(self._waiting), reason="another worker is at work")
            self._waiting.clear()

    async def all_stored(self) -> None:
        """Wait until none waits."""
        if self._waiting:
            await self._empty.wait()

    async def run(self) -> None:
        """Store what is added, for ever."""
        while True:
            self._something.clear()
            while self._waiting:
                await self._store_first()
            self._empty.set()
            await self._something.wait()

    async def _store_first(self) -> None:
        monitor_id, outcome = first = self._waiting[0]
        try:
            if not await self._is_ours():
                self.give_up()
                return
            await self._store(monitor_id, outcome)
        except DatabaseUnavailable as error:
            if not self._away:
                log.error("results_not_stored", reason=error.reason)
            self._away = True
            await asyncio.sleep(RETRY_SECONDS)
            return
        except Exception:
            log.exception("result_not_stored", monitor=monitor_id)
            self.dropped += 1
        if self._waiting and self._waiting[0] is first:  # it may have been dropped meanwhile
            self._waiting.popleft()
        if self._away:
            log.info("results_stored_again", waiting=len(self._waiting), dropped=self.dropped)
            self._away = False
