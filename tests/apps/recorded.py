"""Checks that were made without a worker: as the worker stores them, and what it would tell of them. Knows no test."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from apps.monitors.model import Outcome, Said
from apps.monitors.recorder import Recorder
from bridges.database import Database

KEEP = 100


def recorded(database: str, monitor_id: str, *outcomes: Outcome) -> list[Said]:
    """Store what checks of a monitor found; what is to be told of them, in order."""
    said: list[Said] = []

    async def keep(_: AsyncConnection, more: Sequence[Said]) -> None:
        said.extend(more)

    async def record() -> None:
        opened = Database(database)
        await opened.start()
        try:
            for outcome in outcomes:
                assert await Recorder(opened, keep, KEEP).record(monitor_id, outcome)
        finally:
            await opened.stop()

    asyncio.run(record())
    return said
