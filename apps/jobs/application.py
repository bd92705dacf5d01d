"""The application `jobs`, put together.

Owns the wiring, and the forgetting of jobs that ended long ago.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

from apps.app import Surroundings
from apps.jobs.handlers import JobHandlers
from apps.jobs.store import JobStore
from apps.jobs.watch import Watch
from bridges.database import DatabaseUnavailable
from handlers.endpoints import Endpoint
from handlers.streams import StreamRoute
from server.logs import get_logger

CHANNEL = "jobs"
PURGE_SECONDS = 300.0

log = get_logger("jobs")


class Jobs:
    """Implements `apps.app.Application`."""

    name = "jobs"
    channel = CHANNEL
    # At most an hour, as the seed has it; a job's stream is quiet for as long as its work takes.
    policy: Mapping[str, Any] = {"max_age_seconds": 3_600.0, "idle_seconds": 0.0}

    def __init__(self, surroundings: Surroundings) -> None:
        settings = surroundings.settings
        self._keep_seconds = settings.jobs_keep_seconds
        self.store = JobStore(surroundings.database, surroundings.outbox, CHANNEL)
        self.watch = Watch(self.store, surroundings.hub, surroundings.finisher, CHANNEL)
        self.handlers = JobHandlers(
            self.store,
            self.watch,
            per_minute=settings.jobs_per_minute,
            abandoned_seconds=settings.jobs_abandoned_seconds,
        )

    def endpoints(self) -> Sequence[Endpoint]:
        """What it answers."""
        return self.handlers.endpoints()

    def streams(self) -> Sequence[StreamRoute]:
        """What it streams."""
        return self.handlers.streams()

    async def start(self) -> None:
        """Nothing is kept in memory from before."""

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Forgetting."""
        return {"jobs_purge": self._purge}

    async def _purge(self) -> None:
        while True:
            try:
                gone = await self.store.purge(time.time() - self._keep_seconds)
                if gone:
                    log.info("jobs_forgotten", jobs=gone)
            except DatabaseUnavailable as error:
                log.warning("jobs_not_forgotten", reason=error.reason)
            await asyncio.sleep(PURGE_SECONDS)

    def checks(self) -> Mapping[str, Callable[[], str]]:
        """It has none of its own: what it needs is the database, which the outbox speaks for."""
        return {}

    def metrics(self) -> Iterator[Metric]:
        """What a scrape gets."""
        yield CounterMetricFamily("ringcast_jobs_started", "Jobs started.", self.handlers.started)
        yield CounterMetricFamily("ringcast_jobs_updates", "Updates that were news.", self.handlers.updated)
        yield CounterMetricFamily("ringcast_jobs_repeated", "Updates that were no news.", self.handlers.repeated)

    async def stop(self) -> None:
        """Nothing to let go of."""


def make(surroundings: Surroundings) -> Jobs:
    """The application."""
    return Jobs(surroundings)
