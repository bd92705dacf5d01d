"""The database: a task that is cancelled amid a statement holds nobody up."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import uvloop
from sqlalchemy import insert, select, update

from bridges.database import Database
from bridges.leases import leases

ROUNDS = 60


def test_a_writer_that_is_cancelled_anywhere_lets_go_of_the_file(tmp_path: Path) -> None:
    """Also while something still holds its traceback: else whoever stops next waits for as long as SQLite does."""

    async def write(database: Database, name: str) -> None:
        async with database.writing() as connection:
            for number in range(1_000):
                new = insert(leases).values(name=f"{name} {number}", holder="a", until=0.0).returning(leases.c.name)
                found = (await connection.execute(new)).scalar_one()
                (await connection.execute(select(leases).limit(300))).all()
                (await connection.execute(update(leases).where(leases.c.name == found).values(until=1.0)))

    async def work() -> None:
        database = Database(f"sqlite:{tmp_path}/cancelled.db")
        await database.start()
        kept: list[BaseException] = []
        for number in range(ROUNDS):
            writer = asyncio.create_task(write(database, str(number)))
            await asyncio.sleep(0.0003 * number)
            writer.cancel()
            try:
                await writer
            except asyncio.CancelledError as error:
                kept.append(error)
            began = time.monotonic()
            async with database.writing() as connection:
                await connection.execute(insert(leases).values(name=f"then {number}", holder="b", until=0.0))
            assert time.monotonic() - began < 5
        assert len(kept) == ROUNDS
        async with database.reading() as connection:
            left = (await connection.execute(select(leases.c.holder))).scalars().all()
        assert left == ["b"] * ROUNDS  # and nothing of what was broken off
        await database.stop()

    uvloop.run(work())
