"""Whose turn it is: of several nodes over one database one looks at prices and tends the history.

Owns the lease's renewal, apart from the work, which may take longer than the lease lasts. Must never know what the work
is.
"""

from __future__ import annotations

import asyncio

from bridges.database import Database, DatabaseUnavailable
from bridges.leases import RENEW_SECONDS, Lease
from server.logs import get_logger

log = get_logger("prices")


class Turn:
    """`number` counts this node's turns: who finds another number than before knows that others may have been at it."""

    def __init__(self, database: Database, name: str, node: str) -> None:
        self._lease = Lease(database, name, node)
        self._mine = asyncio.Event()
        self.number = 0

    @property
    def mine(self) -> bool:
        return self._mine.is_set()

    async def wait(self) -> int:
        """Until it is this node's turn; the turn's number."""
        await self._mine.wait()
        return self.number

    async def run(self) -> None:
        """Take the lease, and keep it, for ever."""
        while True:
            try:
                held = await self._lease.holds()
            except DatabaseUnavailable:
                held = False  # /ready says so: the outbox finds it out too
            if held and not self.mine:
                self.number += 1
                self._mine.set()
                log.info("prices_turn_began")
            elif self.mine and not held:
                self._mine.clear()
                log.info("prices_turn_ended")
            await asyncio.sleep(RENEW_SECONDS)

    async def stop(self) -> None:
        """Let another node go on at once."""
        self._mine.clear()
        try:
            await self._lease.give_up()
        except DatabaseUnavailable:
            pass  # it expires
