"""The application `jobs`, put together.

Owns the wiring, the giving up of jobs that nobody does, and the forgetting of those that ended long ago.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from apps.app import Surroundings
from apps.jobs.handlers import JobHandlers
from apps.jobs.model import Finished, Update
from apps.jobs.presence import Presence
from apps.jobs.reports import Reports
from apps.jobs.retelling import Retelling
from apps.jobs.source import Simulation
from apps.jobs.store import JobStore
from apps.jobs.targets import relay_redis, updates_redis
from apps.jobs.watch import Watch
from apps.jobs.workers import Workers
from apps.pages import page_endpoints
from bridges.database import DatabaseUnavailable
from bridges.leases import Turn
from bridges.mapping import Mapping as Mapped
from handlers.endpoints import Endpoint
from handlers.streams import StreamRoute
from server.logs import get_logger

if TYPE_CHECKING:
    from bridges.bridge import Bridge
    from bridges.running import Sources

CHANNEL = "jobs"
UPDATES = "job:*:updates"
PURGE_SECONDS = 300.0
GIVEN_UP = "given up: nothing was heard of it for too long"

log = get_logger("jobs")


class Jobs:
    """Implements `apps.app.Application`."""

    name = "jobs"
    channel = CHANNEL
    # At most an hour, as the seed has it; a job's stream is quiet for as long as its work takes.
    policy: Mapping[str, Any] = {"max_age_seconds": 3_600.0, "idle_seconds": 0.0}

    def __init__(self, surroundings: Surroundings) -> None:
        settings = self._settings = surroundings.settings
        database = surroundings.database
        self.store = JobStore(database, surroundings.outbox, CHANNEL)
        surroundings.outbox.on_appended(CHANNEL, self.store.record_ends)
        self.watch = Watch(
            self.store,
            surroundings.hub,
            surroundings.finisher,
            CHANNEL,
            per_minute=settings.jobs_streams_per_minute,
        )
        self.retelling = Retelling(self.store, self.watch, surroundings.hub)
        self.workers = Workers(database, self.store)
        self.presence = Presence(
            relay_redis(settings),
            settings.redis_prefix,
            surroundings.node_name,
            self.watch.watchers,
            self.watch.watching,
        )
        abandoned_seconds = settings.jobs_abandoned_seconds
        self.handlers = JobHandlers(
            self.store,
            self.watch,
            self.workers,
            self.presence,
            per_minute=settings.jobs_per_minute,
            abandoned_seconds=abandoned_seconds,
        )
        self.reports = Reports(self.handlers.hear)
        self.turn = Turn(database, "jobs_simulation", surroundings.node_name)
        self.simulation: Simulation | None = None
        # Somebody's real work is not to be made up.
        if settings.simulate and settings.development:
            self.simulation = Simulation(
                self.store,
                self.workers,
                self.turn,
                self.handlers.report,
                name=surroundings.node_name,
                seconds=settings.jobs_simulated_seconds,
                abandoned_seconds=abandoned_seconds,
            )

    def endpoints(self) -> Sequence[Endpoint]:
        """What it answers."""
        return [*self.handlers.endpoints(), *page_endpoints("apps.jobs", self.name)]

    def streams(self) -> Sequence[StreamRoute]:
        """What it streams."""
        return self.handlers.streams()

    def bridges(self, sources: Sources) -> Sequence[Bridge]:
        """Updates that services publish in Redis and in Google Pub/Sub, where the settings name them."""
        found: list[Bridge] = []
        target = updates_redis(self._settings)
        if target is not None:
            found.append(sources.redis("jobs_redis", [Mapped(UPDATES, handler=self.reports.from_redis)], target))
        subscription = self._settings.jobs_pubsub_subscription
        if subscription:
            push = sources.pusher() if self._settings.jobs_pubsub_delivery == "push" else None
            mappings = [Mapped(subscription, handler=self.reports.from_pubsub)]
            found.append(sources.pubsub("jobs_pubsub", mappings, push=push))
        return found

    async def start(self) -> None:
        """Look whether there is a worker. Raises DatabaseUnavailable."""
        await self.workers.look()

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """What runs beside the requests."""
        tasks = {
            "jobs_purge": self._purge,
            "jobs_workers": self.workers.run,
            "jobs_presence": self.presence.run,
            "jobs_ends_lost": self.retelling.after_losses,
            "jobs_ends_awaited": self.retelling.what_does_not_come,
        }
        if self.simulation is not None:
            tasks |= {"jobs_turn": self.turn.run, "jobs_simulation": self.simulation.run}
        return tasks

    async def _purge(self) -> None:
        keep_seconds = self._settings.jobs_keep_seconds
        while True:
            try:
                await self._clear(time.time() - keep_seconds)
            except DatabaseUnavailable as error:
                log.warning("jobs_not_forgotten", reason=error.reason)
            await asyncio.sleep(min(PURGE_SECONDS, keep_seconds))

    async def _clear(self, before: float) -> None:
        """Raises DatabaseUnavailable."""
        gone = await self.store.purge(before)
        if gone:
            log.info("jobs_forgotten", jobs=gone)
        for state in await self.store.silent_since(before):
            end = Update(status="failed", progress=state.progress, stage="failed", message=GIVEN_UP)
            with suppress(Finished):  # somebody was faster
                await self.handlers.report(state.jobId, end)
        await self.workers.forget()

    def checks(self) -> Mapping[str, Callable[[], str]]:
        """Whether somebody does the jobs, and whether it is known who watches them."""
        return {"jobs_worker": lambda: self.workers.state, "jobs_presence": lambda: self.presence.state}

    def metrics(self) -> Iterator[Metric]:
        """What a scrape gets."""
        yield CounterMetricFamily("ringcast_jobs_started", "Jobs started.", self.handlers.started)
        yield CounterMetricFamily("ringcast_jobs_updates", "Updates that were news.", self.handlers.updated)
        yield CounterMetricFamily("ringcast_jobs_repeated", "Updates that were no news.", self.handlers.repeated)
        yield CounterMetricFamily(
            "ringcast_jobs_refused", "Updates in messages that were refused.", self.reports.refused
        )
        yield CounterMetricFamily("ringcast_jobs_retold", "Ends that were told again.", self.retelling.told)
        yield GaugeMetricFamily("ringcast_jobs_watched", "Jobs that streams of this node watch.", self.presence.jobs)
        yield GaugeMetricFamily("ringcast_jobs_streams", "Streams of jobs on this node.", self.presence.streams)
        yield CounterMetricFamily(
            "ringcast_jobs_streams_refused", "Streams refused for an owner's limit.", self.watch.refused
        )
        yield GaugeMetricFamily("ringcast_jobs_workers", "Workers that were heard of lately.", self.workers.number)
        if self.simulation is not None:
            yield CounterMetricFamily("ringcast_jobs_simulated", "Jobs that were simulated.", self.simulation.made)

    async def stop(self) -> None:
        """Let go of the simulation and of what was registered."""
        if self.simulation is not None:
            await self.simulation.stop()
        await self.turn.stop()
        await self.presence.stop()


def make(surroundings: Surroundings) -> Jobs:
    """The application."""
    return Jobs(surroundings)
