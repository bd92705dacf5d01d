"""The application `companies`, put together.

Owns the wiring, and where messages come from: NATS where it is configured, otherwise a simulation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from apps.app import Surroundings
from apps.companies.flags import Flags
from apps.companies.handlers import CompanyHandlers
from apps.companies.messages import CHANNEL, publications
from apps.companies.model import EVENTS, SUBJECTS, StreamQuery
from apps.companies.presence import Presence
from apps.companies.source import Simulation
from apps.companies.store import CompanyStore, NodeStore
from apps.companies.tally import Tally
from apps.companies.watch import Watch
from apps.pages import page_endpoints
from bridges.leases import Turn
from bridges.mapping import Mapping as MessageMapping
from config.bridges import NatsStream
from handlers.endpoints import Endpoint
from handlers.streams import StreamRoute

if TYPE_CHECKING:
    from bridges.bridge import Bridge
    from bridges.running import Sources

STREAM = "/stream/updates"
FUNCTION = "apps.companies.messages:publications"


class Companies:
    """Implements `apps.app.Application`, and brings a bridge (bridges/running.py)."""

    name = "companies"
    channel = CHANNEL
    # A day's replay, bounded by its bytes alone; a reader that is 100 events behind loses the oldest of them.
    policy: Mapping[str, Any] = {
        "heartbeat_style": "comment",
        "heartbeat_seconds": 30.0,
        "idle_seconds": 900.0,
        "lag_events": 100,
        "lag_policy": "gap",
        "retain_events": 0,
        "retain_seconds": 86_400.0,
        "ring_seconds": 86_400.0,
        "anonymous": False,
    }

    def __init__(self, surroundings: Surroundings) -> None:
        settings, database, hub = surroundings.settings, surroundings.database, surroundings.hub
        store = CompanyStore(database, surroundings.outbox, CHANNEL)
        self.flags = Flags(store, hub, surroundings.finisher, CHANNEL, default=settings.companies_streaming)
        self.presence = Presence(NodeStore(database), hub, CHANNEL, surroundings.node_name)
        self.tally = Tally(hub, CHANNEL)
        self.watch = Watch(self.flags)
        self.handlers = CompanyHandlers(store, self.flags, self.presence, self.tally, self._source_state)
        self._bridge: Bridge | None = None
        self.turn = Turn(database, "company_simulation", surroundings.node_name)
        self.simulation: Simulation | None = None
        if settings.simulate and settings.nats_url is None:
            self.simulation = Simulation(self.turn, hub, seconds=settings.companies_change_seconds)

    def _source_state(self) -> str:
        return "ok" if self._bridge is None else self._bridge.state

    def bridges(self, sources: Sources) -> Sequence[Bridge]:
        """The bridge from NATS, if it is configured."""
        settings = sources.settings
        if settings.nats_url is None:
            return ()
        mappings = [MessageMapping(subject, function=publications) for subject in SUBJECTS]
        if not settings.companies_nats_stream:
            self._bridge = sources.nats(self.name, mappings)
        else:
            wanted = NatsStream.model_validate(
                {
                    "name": self.name,
                    "mappings": [{"source": subject, "function": FUNCTION} for subject in SUBJECTS],
                    "stream": settings.companies_nats_stream,
                    "durable": self.name,
                    "create": True,
                    "subjects": list(SUBJECTS),
                }
            )
            self._bridge = sources.jetstream(self.name, mappings, wanted)
        return [self._bridge]

    def endpoints(self) -> Sequence[Endpoint]:
        """What it answers."""
        return [*self.handlers.endpoints(), *page_endpoints("apps.companies", self.name)]

    def streams(self) -> Sequence[StreamRoute]:
        """What it streams."""
        admit = self.watch.admit
        return [StreamRoute(STREAM, CHANNEL, admit, "The events of one company.", StreamQuery, EVENTS, own_rules=True)]

    async def start(self) -> None:
        """Know the flags before anybody is admitted. Raises DatabaseUnavailable."""
        await self.flags.load()

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """What runs beside the requests."""
        tasks = {
            "companies_flags": self.flags.run,
            "companies_presence": self.presence.run,
            "companies_tally": self.tally.run,
        }
        if self.simulation is not None:
            tasks |= {"companies_turn": self.turn.run, "companies_simulation": self.simulation.run}
        return tasks

    def checks(self) -> Mapping[str, Callable[[], str]]:
        """Whether the flags are known. The bridge speaks for itself."""
        return {"companies_flags": lambda: self.flags.state}

    def metrics(self) -> Iterator[Metric]:
        """What a scrape gets of this node. No label names a company: there is no bound on how many there are."""
        here = self.presence.here()
        yield GaugeMetricFamily("ringcast_companies_streams", "Streams of companies.", sum(here.values()))
        yield GaugeMetricFamily("ringcast_companies_active", "Companies with streams.", len(here))
        refused = CounterMetricFamily(
            "ringcast_companies_refused", "Streams refused: another company's, or switched off.", labels=["reason"]
        )
        for reason, count in self.watch.refused.items():
            refused.add_metric([reason], count)
        yield refused
        if self.simulation is not None:
            yield CounterMetricFamily("ringcast_companies_simulated", "Events made up.", self.simulation.made)

    async def stop(self) -> None:
        """Leave, and let another node simulate."""
        await self.turn.stop()
        await self.presence.leave()


def make(surroundings: Surroundings) -> Companies:
    """The application."""
    return Companies(surroundings)
