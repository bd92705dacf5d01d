"""The application `prices`, put together. Owns the wiring, and the choice of the source."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.metrics_core import Metric

from apps.app import Surroundings
from apps.pages import page_endpoints
from apps.prices.handlers import ROOT, PriceHandlers
from apps.prices.history import History
from apps.prices.market import Market
from apps.prices.metrics import metrics
from apps.prices.model import PRICE_UPDATE
from apps.prices.source import Source, Upstream
from apps.prices.store import PriceStore
from apps.prices.sync import Sync
from apps.prices.tending import Tending
from apps.prices.watch import StreamQuery, Watch
from bridges.leases import Turn
from config.settings import Settings
from handlers.endpoints import Endpoint, everybody, readers
from handlers.streams import StreamRoute
from server.logs import get_logger

CHANNEL = "prices"
NO_SOURCE = "there is no source of prices: set prices_upstream, or simulate"

log = get_logger("prices")


class Prices:
    """Implements `apps.app.Application`."""

    name = "prices"
    channel = CHANNEL
    # As clients of such a stream know it, for everybody; one of a rare item may be quiet for as long as it lasts.
    policy: Mapping[str, Any] = {
        "hello_event": "connected",
        "heartbeat_style": "event",
        "anonymous": True,
        "idle_seconds": 0.0,
    }

    def __init__(self, surroundings: Surroundings) -> None:
        settings = self._settings = surroundings.settings
        keep = settings.prices_keep_points_seconds
        store = PriceStore(surroundings.database, surroundings.outbox, CHANNEL)
        history = History(surroundings.database)
        self.turn = Turn(surroundings.database, CHANNEL, surroundings.node_name)
        self.watch = Watch(store, surroundings.hub, CHANNEL, most=settings.prices_max_clients)
        self.tending = Tending(history, self.turn, keep_points_seconds=keep)
        self._source = make_source(settings)
        self.sync = None if self._source is None else Sync(self._source, store, self.turn)
        access = everybody if settings.channel(CHANNEL, self.policy).anonymous else readers(CHANNEL)
        self.handlers = PriceHandlers(store, history, access)

    def endpoints(self) -> Sequence[Endpoint]:
        """What it answers."""
        return [*self.handlers.endpoints(), *page_endpoints("apps.prices", self.name)]

    def streams(self) -> Sequence[StreamRoute]:
        """What it streams."""
        if not self._settings.prices_stream:
            return ()
        events = {
            "connected": "the first event of every stream",
            PRICE_UPDATE: "a price that changed: item_id, high, low, high_time, low_time, timestamp",
            "heartbeat": "nothing has changed for a while",
        }
        admit, later = self.watch.admit, self.watch.admit_later
        return [
            StreamRoute(
                f"{ROOT}/stream", CHANNEL, admit, "Prices as they change.", StreamQuery, events, admit_later=later
            )
        ]

    async def start(self) -> None:
        """Which items there are. Raises DatabaseUnavailable."""
        if self._settings.prices_upstream and not self._settings.prices_contact:
            log.warning("no_prices_contact", meaning="the API's operators do not learn whom to write to")
        await self.watch.start()

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """What runs beside the requests."""
        tasks = {"prices_turn": self.turn.run, "prices_items": self.watch.run, "prices_history": self.tending.run}
        return tasks if self.sync is None else tasks | {"prices_sync": self.sync.run}

    def checks(self) -> Mapping[str, Callable[[], str]]:
        """Whether prices come in."""
        return {"prices_sync": lambda: NO_SOURCE if self.sync is None else self.sync.state}

    def metrics(self) -> Iterator[Metric]:
        """What a scrape gets."""
        return metrics(self.sync, self.tending, self.watch)

    async def stop(self) -> None:
        """Let another node go on at once."""
        await self.turn.stop()
        if self._source is not None:
            self._source.close()


def make_source(settings: Settings) -> Source | None:
    """The source that the settings describe."""
    if settings.prices_upstream:
        return Upstream(
            settings.prices_upstream,
            settings.prices_contact,
            seconds=settings.prices_sync_seconds,
            answer_seconds=settings.prices_upstream_seconds,
        )
    if settings.simulate:
        return Market(
            seconds=settings.prices_simulated_seconds, keep_points_seconds=settings.prices_keep_points_seconds
        )
    return None


def make(surroundings: Surroundings) -> Prices:
    """The application."""
    return Prices(surroundings)
