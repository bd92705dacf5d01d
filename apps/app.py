"""The shape of an application: what each of the five is made of, and what it is given.

Owns the two interfaces. An application must never know another one, nor how a stream reaches a socket; it declares its
endpoints and streams, and says by events what has changed.

Every application has the same parts: `model.py` (pure: what is valid, what has changed, units), `store.py` (its tables
and statements), `handlers.py` (endpoints and streams), `source.py` (where live data come from, or a simulation that is
marked as one), `page/` (a page without build step), and `application.py`, which puts them together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client.metrics_core import Metric

from bridges.database import Database
from bridges.outbox import Outbox
from config.settings import Settings
from handlers.endpoints import Endpoint
from handlers.response_cache import ResponseCache
from handlers.streams import StreamRoute
from server.cluster import Cluster
from server.finishing import Finisher
from server.hub import Hub


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an application is given. `node_name` is this node's own, for leases."""

    settings: Settings
    database: Database
    outbox: Outbox
    hub: Hub
    finisher: Finisher
    cluster: Cluster
    cache: ResponseCache
    node_name: str


class Application(Protocol):
    """An application. Made without waiting and without a database; `start` comes when both are there."""

    name: str
    channel: str
    # Overrides of the channel's settings, below those that an operator makes (config/channels.py).
    policy: Mapping[str, Any]

    def endpoints(self) -> Sequence[Endpoint]:
        """What it answers."""

    def streams(self) -> Sequence[StreamRoute]:
        """What it streams."""

    async def start(self) -> None:
        """Fill an empty database, load what is kept in memory. Raises DatabaseUnavailable."""

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """What runs as long as the process, by name; each is started again if it dies."""

    def checks(self) -> Mapping[str, Callable[[], str]]:
        """States for /ready, by name: "ok" or what is wrong."""

    def metrics(self) -> Iterator[Metric]:
        """What a scrape gets."""

    async def stop(self) -> None:
        """Let go of what `start` took. The tasks have ended."""
