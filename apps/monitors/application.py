"""The application `monitors`, put together.

Owns the wiring, and what is seen of the worker from here: whether there is one, and its own figures.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.metrics_core import Metric

from apps.app import Surroundings
from apps.monitors.accounts import Accounts
from apps.monitors.broadcasts import Broadcasts
from apps.monitors.handlers import MonitorHandlers
from apps.monitors.incidents import IncidentStore
from apps.monitors.limits import Buckets
from apps.monitors.metrics import metrics
from apps.monitors.model import CHECK, CREATED, RESOLVED, StreamQuery
from apps.monitors.outgoing import Outgoing
from apps.monitors.passwords import Passwords
from apps.monitors.sign_in import SignIn
from apps.monitors.source import DEMO_EMAIL, DEMO_PHRASE, Simulation
from apps.monitors.store import MonitorStore
from apps.monitors.teller import Teller
from apps.monitors.tokens import KEY_BYTES, STREAM_PARAMETER, Tokens
from apps.monitors.watch import Watch
from apps.monitors.workers import Workers
from apps.pages import page_endpoints
from bridges.database import DatabaseUnavailable
from bridges.leases import Turn
from bridges.outbound import Outbound
from handlers.endpoints import Endpoint
from handlers.streams import StreamRoute
from server.logs import get_logger

CHANNEL = "monitors"
STREAM = "/api/v1/stream/events"
PURGE_SECONDS = 600.0

log = get_logger("monitors")


class Monitors:
    """Implements `apps.app.Application`."""

    name = "monitors"
    channel = CHANNEL
    # A first event of the name that clients of such a stream know. Nothing here is for everybody.
    policy: Mapping[str, Any] = {"hello_event": "connected", "anonymous": False}

    def __init__(self, surroundings: Surroundings) -> None:
        settings = self._settings = surroundings.settings
        database, hub = surroundings.database, surroundings.hub
        queue = Outgoing(database, by_node=True)
        self.teller = Teller(queue, hub, CHANNEL)
        self.accounts = Accounts(database, queue)
        self.passwords = Passwords(settings.monitors_password_rounds)
        self.tokens = Tokens(settings, surroundings.cluster._revocations)
        self.incidents = IncidentStore(database, queue)
        self.store = MonitorStore(
            database,
            queue,
            most=settings.monitors_per_tenant,
            host_per_minute=settings.monitors_host_per_minute,
        )
        rate = Buckets(settings.monitors_streams_per_second, settings.monitors_streams_burst)
        self.watch = Watch(
            self.tokens, hub, surroundings.cluster, CHANNEL, most=settings.monitors_max_streams, rate=rate
        )
        self.broadcasts = Broadcasts(settings, self.accounts, self.watch, hub, CHANNEL)
        self.workers = Workers(database)
        # Everybody on this machine may log in as the demo's user: nothing for production.
        self.turn = Turn(database, "monitor_simulation", surroundings.node_name)
        self.simulation: Simulation | None = None
        if settings.simulate and settings.development:
            self.simulation = Simulation(
                self.turn,
                database,
                queue,
                seconds=settings.monitors_simulated_seconds,
                keep_checks=settings.monitors_keep_checks,
            )
        self._outbound = Outbound(ports=settings.monitors_ports, allow_private=settings.monitors_allow_private)
        self.sign_in = SignIn(settings, self.accounts, self.passwords, self.tokens, surroundings.cluster, self._options)
        self.handlers = MonitorHandlers(settings, self.store, self.incidents, self.tokens, self.watch, self._outbound)

    def _options(self) -> dict[str, Any]:
        demo = {"email": DEMO_EMAIL, "password": DEMO_PHRASE} if self.simulation is not None else None
        return {
            "accounts": self.tokens.makes,
            "registration": self.tokens.makes and self._settings.monitors_registration,
            "demo": demo,
            "worker": self.workers.present,
            "min_interval_seconds": self._settings.monitors_min_interval_seconds,
        }

    def endpoints(self) -> Sequence[Endpoint]:
        """What it answers."""
        return [
            *self.sign_in.endpoints(),
            *self.handlers.endpoints(),
            self.broadcasts.endpoint(),
            *page_endpoints("apps.monitors", self.name),
        ]

    def streams(self) -> Sequence[StreamRoute]:
        """What it streams."""
        events = {
            CHECK: "what a check of a monitor found",
            CREATED: "an incident has opened",
            RESOLVED: "an incident is over",
        }
        return [
            StreamRoute(
                STREAM,
                CHANNEL,
                self.watch.admit,
                "The events of the token's tenant; each an object with type, data and tenant_id.",
                StreamQuery,
                events,
                STREAM_PARAMETER,
                own_rules=True,
            )
        ]

    async def start(self) -> None:
        """The key of tokens in development mode, and the demo tenant. Raises DatabaseUnavailable."""
        settings = self._settings
        if settings.development:
            self.tokens.use_own_key(await self.accounts.key("tokens", secrets.token_bytes(KEY_BYTES)))
        elif settings.monitors_secret is None:
            log.warning("no_monitors_secret", meaning="the worker cannot tell this node of anything")
        if self.simulation is not None:
            await self.simulation.prepare(self.accounts, self.passwords, self.store, self.incidents)
        await self.workers.look()

    def tasks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """What runs beside the requests."""
        tasks = {
            "monitors_events": self.teller.run,
            "monitors_streams": self.watch.look_around,
            "monitors_workers": self.workers.run,
            "monitors_purge": self._purge,
        }
        if self.simulation is not None:
            tasks |= {"monitors_turn": self.turn.run, "monitors_simulation": self.simulation.run}
        return tasks

    async def _purge(self) -> None:
        while True:
            try:
                before = time.time() - self._settings.monitors_keep_incident_seconds
                gone = await self.incidents.purge(before)
                if gone:
                    log.info("incidents_forgotten", incidents=gone)
            except DatabaseUnavailable as error:
                log.warning("incidents_not_forgotten", reason=error.reason)
            await asyncio.sleep(PURGE_SECONDS)

    def checks(self) -> Mapping[str, Callable[[], str]]:
        """Whether somebody checks the monitors, and whether changes are told."""
        return {"monitors_worker": lambda: self.workers.state, "monitors_events": lambda: self.teller.state}

    def metrics(self) -> Iterator[Metric]:
        """What a scrape gets."""
        return metrics(self.broadcasts, self.teller, self.watch, self.workers, self.simulation)

    async def stop(self) -> None:
        """Let another node simulate, and let go of threads."""
        await self.turn.stop()
        self.passwords.close()
        self._outbound.close()


def make(surroundings: Surroundings) -> Monitors:
    """The application."""
    return Monitors(surroundings)
