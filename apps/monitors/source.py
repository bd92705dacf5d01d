"""A simulation: believable checks for the demo tenant, where no worker has to run to see something.

Owns the demo tenant and what its sites are up to. Everything that it makes is marked as simulated, in the events, the
history and the monitors; a worker leaves such tenants alone. Only in development mode, for everybody knows how to log
in. One node of several simulates (a lease).

Must never be taken for the real thing: it goes the same way from the recording on, and no step of it asks anybody.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from apps.monitors.accounts import Accounts, Taken
from apps.monitors.incidents import IncidentStore
from apps.monitors.model import NewMonitor, NewRule, Outcome
from apps.monitors.outgoing import Outgoing
from apps.monitors.passwords import Passwords
from apps.monitors.recorder import Recorder
from apps.monitors.store import MonitorStore
from apps.monitors.tables import monitors, tenants
from bridges.database import Database, DatabaseUnavailable
from bridges.leases import Turn
from server.logs import get_logger

DEMO_EMAIL = "demo@example.com"
DEMO_PHRASE = "look-around"  # no secret: the page shows it
HISTORY = 40
DAY_SECONDS = 86_400
SPARE_DAYS = 30
RETRY_SECONDS = 2.0
# Name, path and how long its certificates are, in days. The last one's is always nearly over.
SITES = (
    ("Shop", "https://shop.example/", 90),
    ("Checkout", "https://shop.example/checkout", 90),
    ("Accounts", "https://accounts.example/login", 60),
    ("API", "https://api.example/v1/status", 75),
    ("Search", "https://search.example/", 84),
    ("Images", "https://images.example/ping", 45),
    ("Partner feed", "http://feed.partner.example/latest.xml", 0),
    ("Old blog", "https://blog.example/", 10),
)
RULES = (
    {"name": "Site is down", "trigger_type": "down"},
    {"name": "Slow", "trigger_type": "slow_response", "threshold_value": 900, "breaches": 3, "window": 5},
    {"name": "Certificate runs out", "trigger_type": "ssl_expiry", "threshold_value": 14},
)

log = get_logger("monitors")


@dataclass(slots=True)
class Site:
    """What one site is up to. `chance` is its own, so that sites do not fall ill together."""

    url: str
    chance: random.Random
    certificate_days: int = 90
    usual_ms: float = 0.0
    trouble: str = ""
    left: int = 0
    _drift: float = field(default=0.0)

    def __post_init__(self) -> None:
        self.usual_ms = self.chance.uniform(60, 420)

    def check(self, now: float) -> Outcome:
        """What a check at this time finds."""
        self._live()
        valid, expires = self._certificate(now)
        if self.trouble == "refused":
            return Outcome(now, False, error_message="the connection was refused", simulated=True)
        if self.trouble == "silent":
            return Outcome(now, False, error_message="no whole answer within 10 s", simulated=True)
        milliseconds = self._milliseconds(now) * (3.5 if self.trouble == "slow" else 1.0)
        status = self.chance.choice((500, 502, 503)) if self.trouble == "broken" else 200
        problem = None if status == 200 else f"HTTP status {status}"
        return Outcome(now, status == 200, status, round(milliseconds), problem, valid, expires, simulated=True)

    def _live(self) -> None:
        """Now and then something goes wrong for a while."""
        if self.left:
            self.left -= 1
        elif self.trouble:
            self.trouble = ""
        elif self.chance.random() < 0.012:
            self.trouble = self.chance.choice(("broken", "refused", "silent", "slow", "slow"))
            self.left = self.chance.randint(3, 9)

    def _milliseconds(self, now: float) -> float:
        self._drift = 0.8 * self._drift + self.chance.gauss(0, 0.08)
        busy = 1 + 0.25 * math.sin(2 * math.pi * (now % DAY_SECONDS) / DAY_SECONDS)
        return max(8.0, self.usual_ms * busy * math.exp(self._drift) + self.chance.expovariate(1 / 12))

    def _certificate(self, now: float) -> tuple[bool | None, float | None]:
        """It is renewed a month before it is over, or by somebody who forgets."""
        if not self.url.startswith("https:") or not self.certificate_days:
            return None, None
        period = self.certificate_days * DAY_SECONDS
        spare = SPARE_DAYS * DAY_SECONDS if self.certificate_days > SPARE_DAYS else 0
        return True, float((now // period + 1) * period + spare)


class Simulation:
    """See the module's head. `seconds` between two checks."""

    def __init__(self, turn: Turn, database: Database, queue: Outgoing, *, seconds: float, keep_checks: int) -> None:
        self._turn = turn
        self._database = database
        self._queue = queue
        self._recorder = Recorder(database, queue.put, keep_checks)
        self._seconds = seconds
        self._sites: dict[str, Site] = {}
        self.made = 0

    async def prepare(
        self, accounts: Accounts, passwords: Passwords, store: MonitorStore, incidents: IncidentStore
    ) -> None:
        """Make the demo tenant, if it is not there. Raises DatabaseUnavailable."""
        if await accounts.by_email(DEMO_EMAIL) is not None:
            return
        kept = await passwords.hashed(DEMO_PHRASE)
        try:
            user = await accounts.register(DEMO_EMAIL, kept, "Demo", simulated=True)
        except Taken:
            return  # another node was faster
        for rule in RULES:
            await incidents.create_rule(user.tenant, NewRule.model_validate(rule), len(RULES))
        for name, url, _ in SITES:
            host = url.split("/")[2]
            await store.create(user.tenant, NewMonitor(name=name, url=url, interval_seconds=10), host)
        log.info("demo_tenant_made", tenant=user.tenant, monitors=len(SITES))

    async def run(self) -> None:
        """Check one site after the other, for ever, when it is this node's turn."""
        for number in itertools.count():
            await self._turn.wait()
            wait = self._seconds
            try:
                rows = await self._monitors()
                if rows:
                    await self._check(rows[number % len(rows)])
            except DatabaseUnavailable:
                wait = RETRY_SECONDS  # /ready says so already
            await asyncio.sleep(wait)

    async def _monitors(self) -> Sequence[Any]:
        query = select(monitors.c.id, monitors.c.url, monitors.c.checked).join_from(monitors, tenants)
        wanted = query.where(tenants.c.simulated, monitors.c.enabled).order_by(monitors.c.created, monitors.c.id)
        async with self._database.reading() as connection:
            rows = (await connection.execute(wanted)).all()
        there = {row.id for row in rows}
        self._sites = {name: site for name, site in self._sites.items() if name in there}
        return rows

    async def _check(self, row: Any) -> None:
        site = self._sites.get(row.id)
        if site is None:
            days = next((days for _, url, days in SITES if url == row.url), 90)
            site = self._sites[row.id] = Site(row.url, random.Random(zlib.crc32(row.id.encode())), days)
        now = time.time()
        if row.checked is None:  # something to look at from the beginning
            for number in range(HISTORY, 0, -1):
                await self._recorder.record(row.id, site.check(now - number * 10))
        await self._recorder.record(row.id, site.check(now))
        self.made += 1
        self._queue.wake()
