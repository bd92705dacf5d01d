"""The database: who is cancelled amid a statement, or stands still amid a transaction, holds nobody up."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import uvloop
from sqlalchemy import insert, select, update

import bridges.database
from bridges.database import Database, DatabaseUnavailable
from bridges.leases import leases
from tests.harness.postgres import PostgresServer

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


def test_who_stands_still_within_a_transaction_loses_it_and_its_locks(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridges.database, "ANSWER_SECONDS", 0.5)

    async def stand_still(database: Database, holding: asyncio.Event, go_on: asyncio.Event) -> None:
        async with database.writing() as connection:
            await connection.execute(update(leases).values(until=1.0))
            holding.set()
            await go_on.wait()

    async def work() -> None:
        url = postgres.url("standing_still")
        frozen = Database(url)
        await frozen.start()
        async with frozen.writing() as connection:
            await connection.execute(insert(leases).values(name="a", holder="a", until=0.0))
        monkeypatch.setattr(bridges.database, "ANSWER_SECONDS", 10.0)
        other = Database(url)
        await other.start()
        holding, go_on = asyncio.Event(), asyncio.Event()
        standing = asyncio.create_task(stand_still(frozen, holding, go_on))
        await holding.wait()
        async with other.writing() as connection:
            await connection.execute(update(leases).values(until=2.0))
        go_on.set()
        with pytest.raises(DatabaseUnavailable):
            await standing
        async with other.reading() as connection:
            assert (await connection.execute(select(leases.c.until))).scalar_one() == 2.0
        await frozen.stop()
        await other.stop()

    uvloop.run(work())
