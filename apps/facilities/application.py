"""The application `facilities`, put together.

Owns the wiring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

from apps.app import Surroundings
from apps.facilities.catalogue import read_facilities, read_procedures, read_providers, text_of
from apps.facilities.handlers import FacilityHandlers
from apps.facilities.invalidation import Invalidation
from apps.facilities.places import Places
from apps.facilities.source import Simulation
from apps.facilities.store import FacilityStore
from apps.facilities.watch import Watch
from apps.pages import page_endpoints
from bridges.leases import Turn
from handlers.endpoints import Endpoint, everybody, readers
from handlers.streams import StreamRoute
from server.logs import get_logger

CHANNEL = "facilities"

log = get_logger("facilities")


class Facilities:
    """Implements `apps.app.Application`."""

    name = "facilities"
    channel = CHANNEL
    # Public, with heartbeats that a page sees; a facility may be quiet for hours.
    policy: Mapping[str, Any] = {"heartbeat_style": "event", "anonymous": True, "idle_seconds": 0.0}

    def __init__(self, surroundings: Surroundings) -> None:
        settings = surroundings.settings
        self.store = FacilityStore(surroundings.database, surroundings.outbox, CHANNEL)
        self.watch = Watch(self.store, CHANNEL)
        invalidation = Invalidation(surroundings.cache, surroundings.node_name)
        surroundings.hub.listen(CHANNEL, invalidation.delivered, invalidation.missed)
        access = everybody if settings.channel(CHANNEL, self.policy).anonymous else readers(CHANNEL)
        self.handlers = FacilityHandlers(
            self.store, invalidation, Places(text_of("places.tsv")), read_providers(), read_procedures(), access
        )
        self.turn = Turn(surroundings.database, "facility_simulation", surroundings.node_name)
        self.simulation = Simulation(self.store, self.turn, settings.facilities_change_seconds, Random())
        self._simulates = settings.simulate

    def endpoints(self) -> Sequence[Endpoint]:
        """What it answers."""
        return [*self.handlers.endpoints(), *page_endpoints("apps.facilities", "facilities")]

    def streams(self) -> Sequence[StreamRoute]:
        """What it streams."""
        return self.watch.streams()

    async def start(self) -> None:
        """Fill an empty database; see which facilities there are."""
        filled = await self.store.fill(read_facilities())
        if filled:
            log.info("facilities_loaded", facilities=filled)
        await self.watch.look()

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """A look at what has come, and the simulation."""
        tasks: dict[str, Callable[[], Awaitable[None]]] = {"facilities_look": self.watch.look_again}
        if self._simulates:
            tasks |= {"facilities_turn": self.turn.run, "facilities_simulation": self.simulation.run}
        return tasks

    def checks(self) -> Mapping[str, Callable[[], str]]:
        """It has none of its own: what it needs is the database, which the outbox speaks for."""
        return {}

    def metrics(self) -> Iterator[Metric]:
        """What a scrape gets."""
        family = CounterMetricFamily("ringcast_facilities_events", "Events made here.", labels=["type", "source"])
        sources: Mapping[str, Counter[str]] = {"request": self.handlers.events, "simulation": self.simulation.events}
        for source, events in sources.items():
            for kind, number in events.items():
                family.add_metric([kind, source], number)
        yield family

    async def stop(self) -> None:
        """Let another node simulate."""
        await self.turn.stop()


def make(surroundings: Surroundings) -> Facilities:
    """The application."""
    return Facilities(surroundings)
