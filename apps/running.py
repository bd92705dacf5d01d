"""The applications that run in this node, and the database that they share.

Owns which ones there are, their order at start and stop, and what of them is seen at /ready, /stats and /metrics. Must
never know what one of them does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any

from apps.app import Application, Surroundings
from apps.pages import PAGES, shared_endpoints
from bridges.database import Database
from bridges.outbox import Outbox
from config.settings import Settings
from handlers.cache_making import make_response_cache
from handlers.endpoints import Endpoint
from handlers.openapi import openapi_endpoint
from handlers.streams import StreamRoute
from server.cluster import Cluster
from server.node import Node

Keep = Callable[[str, Callable[[], Awaitable[None]]], None]


class Applications:
    """See the module's head."""

    def __init__(self, settings: Settings, node: Node, cluster: Cluster) -> None:
        self._node = node
        self.cache = make_response_cache(settings)
        self.database = Database(settings.database.get_secret_value())
        self.outbox = Outbox(self.database, node.hub, cluster.name)
        surroundings = Surroundings(
            settings, self.database, self.outbox, node.hub, node.finisher, cluster, self.cache, cluster.name
        )
        self.all: list[Application] = [
            import_module(f"apps.{name}.application").make(surroundings) for name in settings.apps
        ]
        for application in self.all:
            node.checks.update(application.checks())
            node.more_metrics.append(application.metrics)
        if self.all:
            node.checks["outbox"] = lambda: self.outbox.state
            node.more_metrics.append(self.outbox.metrics)
            node.checks["response_cache"] = self.cache.state
            node.more_metrics.append(self.cache.metrics)
            node.more_stats["response_cache"] = self.cache.facts
            node.more_stats["applications"] = lambda: [application.name for application in self.all]

    @property
    def policies(self) -> Mapping[str, Mapping[str, Any]]:
        """Overrides of channels' settings."""
        return {application.channel: application.policy for application in self.all}

    @property
    def endpoints(self) -> list[Endpoint]:
        """All endpoints, what their pages share, and their description."""
        own = [endpoint for application in self.all for endpoint in application.endpoints()]
        described = openapi_endpoint([one for one in own if one.tag != PAGES], self.streams)
        return [*own, *(shared_endpoints() if self.all else []), described]

    @property
    def streams(self) -> list[StreamRoute]:
        """All streams."""
        return [route for application in self.all for route in application.streams()]

    async def start(self, keep: Keep) -> None:
        """Open the database and start everything; `keep` runs a task for ever. Raises DatabaseUnavailable."""
        if not self.all:
            return
        await self.database.start()
        keep("outbox", self.outbox.run)
        for application in self.all:
            await application.start()
            for name, work in application.tasks().items():
                keep(name, work)

    async def stop(self) -> None:
        """End everything; the tasks have ended."""
        await self.cache.stop()
        for application in reversed(self.all):
            await application.stop()
        if self.all:
            await self.outbox.stop()
            await self.database.stop()
