"""Tending the history: old points are averaged over longer steps, a little at a time.

Owns when, and how much at once. Must never know how it is done (history.py does).
"""

from __future__ import annotations

import asyncio
import time

from apps.prices.history import History
from apps.prices.model import tiers
from bridges.database import DatabaseUnavailable
from bridges.leases import Turn
from server.logs import get_logger

REST_SECONDS = 60.0
# Between two transactions while there is much to do: others want to write too.
BREATH_SECONDS = 0.05

log = get_logger("prices")


class Tending:
    """See the module's head."""

    def __init__(self, history: History, turn: Turn, *, keep_points_seconds: float) -> None:
        self._history = history
        self._turn = turn
        self._tiers = tiers(keep_points_seconds)
        self.rolled = 0

    async def run(self) -> None:
        """Roll up, for ever, when it is this node's turn."""
        while True:
            await self._turn.wait()
            try:
                worked = await self._step()
            except DatabaseUnavailable as error:
                log.warning("history_not_tended", reason=error.reason)
                worked = False
            await asyncio.sleep(BREATH_SECONDS if worked else REST_SECONDS)

    async def _step(self) -> bool:
        """One step of each tier; False if nothing was old enough."""
        gone = 0
        for tier in self._tiers:
            gone += await self._history.roll_up(tier, round(time.time() * 1_000))
        self.rolled += gone
        return gone > 0
