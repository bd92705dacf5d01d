"""A simulation: believable messages of a few demo companies, for nodes that no NATS is configured for.

Owns the demo companies and what happens in them. Its messages have the form of those from NATS and become events by
the same function; each says `"simulated": true`. One node of several makes them (a lease); while that changes hands,
two may for a moment, which does no harm.

Must never be taken for the real thing, nor speak for a company that is not a demo.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import ujson

from apps.companies.messages import publications
from apps.moments import written
from bridges.database import DatabaseUnavailable
from bridges.leases import Turn
from bridges.mapping import Message
from server.hub import Hub
from server.relay.protocol import Appended, RelayUnavailable

DEMO_COMPANIES = ("demo-aurora", "demo-borealis", "demo-cobalt")
RETRY_SECONDS = 2.0
METRICS = ("integration_score", "participation_rate", "language_progress", "job_readiness", "retention_rate")
FLAGS = ("onboarding", "on_track", "thriving", "ready_for_work", "struggling", "needs_mentor")
MOST_LIKELY = (3, 8, 5, 3, 2, 2)
QUESTIONS = ("confidence", "belonging", "well_being")


@dataclass(slots=True)
class DemoCompany:
    """What one company is up to: figures that drift, people on their way. `chance` is its own."""

    name: str
    chance: random.Random
    _figures: dict[str, float] = field(default_factory=dict)

    def message(self, now: float) -> Message:
        """What happens next."""
        make = self.chance.choices((self._metric, self._journey, self._vis, self._sroi), (6, 4, 2, 1))[0]
        subject, body = make()
        whole = {"companyId": self.name, **body, "timestamp": written(now), "simulated": True}
        return Message(subject, ujson.dumps(whole).encode())

    def _drifted(self, name: str, first: float, step: float, low: float, high: float) -> float:
        """A figure, a little further than before, within its bounds."""
        before = self._figures.get(name, first * self.chance.uniform(0.85, 1.15))
        self._figures[name] = min(high, max(low, before + self.chance.gauss(0.02 * (first - before), step)))
        return self._figures[name]

    def _metric(self) -> tuple[str, dict[str, Any]]:
        name = self.chance.choice(METRICS)
        value = round(self._drifted(name, 0.7, 0.015, 0.05, 0.99), 3)
        return "metrics.calculated", {"metricName": name, "value": value}

    def _sroi(self) -> tuple[str, dict[str, Any]]:
        ratio = round(self._drifted("sroi", 3.4, 0.06, 1.2, 6.0), 2)
        invested = round(self._drifted("invested", 120_000, 900, 60_000, 240_000))
        return "metrics.sroi_calculated", {"value": ratio, "invested": invested, "returned": round(invested * ratio)}

    def _vis(self) -> tuple[str, dict[str, Any]]:
        parts = {name: round(self._drifted(name, 68, 1.5, 5, 98), 1) for name in QUESTIONS}
        return "q2q.completed", {"value": round(sum(parts.values()) / len(parts), 1), "dimensions": parts}

    def _journey(self) -> tuple[str, dict[str, Any]]:
        flag = self.chance.choices(FLAGS, MOST_LIKELY)[0]
        return "journey.flag_updated", {"userId": f"user-{self.chance.randint(1, 60):03}", "flag": flag}


class Simulation:
    """See the module's head. `seconds`: mean time between two messages."""

    def __init__(self, turn: Turn, hub: Hub, *, seconds: float) -> None:
        self._turn = turn
        self._hub = hub
        self._seconds = seconds
        self._companies = [DemoCompany(name, random.Random()) for name in DEMO_COMPANIES]
        self.made = 0

    async def run(self) -> None:
        """Make one message after the other, for ever, when it is this node's turn."""
        while True:
            await self._turn.wait()
            wait = min(random.expovariate(1 / self._seconds), 4 * self._seconds)
            try:
                await self._publish(random.choice(self._companies).message(time.time()))
            except (DatabaseUnavailable, RelayUnavailable):
                wait = RETRY_SECONDS  # /ready says so already
            await asyncio.sleep(wait)

    async def _publish(self, message: Message) -> None:
        for publication in publications(message):
            channel = await self._hub.open(publication.channel)
            answer: Appended | Awaitable[Appended] = self._hub.publish(channel, [publication.event])
            if not isinstance(answer, Appended):
                await answer
            self.made += 1
