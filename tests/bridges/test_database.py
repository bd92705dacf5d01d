"""The database: who is cancelled amid a statement, or stands still amid a transaction, holds nobody up; and what it
can't do for now is told apart from what it will never do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import structlog
import uvloop
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import DBAPIError

import bridges.database
from bridges.database import Database, DatabaseUnavailable, is_of_values
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


# --- what it can't do for now


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    await database.start()
    try:
        yield database
    finally:
        await database.stop()


async def write(database: Database, name: str) -> None:
    async with database.writing() as connection:
        await connection.execute(insert(leases).values(name=name, holder="x", until=0.0))


async def say(database: Database, statement: str) -> None:
    async with database.writing() as connection:
        await connection.execute(text(statement))


def raising(state: str) -> str:
    """A statement to which PostgreSQL answers with this state."""
    return f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$"


@pytest.mark.parametrize(
    "state",
    [
        "08006", "25006", "25P03", "25P04", "28000", "28P01", "3D000", "3F000", "40001", "40003", "40P01", "42501",
        "42703", "42P01", "53100", "53300", "55006", "55P03", "57014", "57P01", "57P03", "58030", "XX000", "XX001",
    ],
)  # fmt: skip
def test_what_a_server_refuses_for_now_is_for_later(postgres: PostgresServer, state: str) -> None:
    async def work() -> None:
        async with opened(postgres.url("states")) as database:
            with structlog.testing.capture_logs(), pytest.raises(DatabaseUnavailable, match=state):
                await say(database, raising(state))
            await write(database, state)

    uvloop.run(work())


@pytest.mark.parametrize(
    ("state", "of_values"), [("22003", True), ("22021", True), ("54000", True), ("23505", False), ("42601", False)]
)
def test_what_a_server_will_never_do_is_an_error_of_its_own(
    postgres: PostgresServer, state: str, of_values: bool
) -> None:
    """Of the values, or of the statement: whoever has the values can do nothing about that."""

    async def work() -> None:
        async with opened(postgres.url("states")) as database:
            with pytest.raises(DBAPIError) as caught:
                await say(database, raising(state))
            assert is_of_values(caught.value) == of_values

    uvloop.run(work())


def test_a_text_that_postgresql_cannot_hold_is_of_the_values(postgres: PostgresServer) -> None:
    async def work() -> None:
        async with opened(postgres.url("values")) as database:
            with pytest.raises(DBAPIError) as caught:
                await write(database, "with a \0")
            assert is_of_values(caught.value)

    uvloop.run(work())


def test_a_database_that_was_read_only_is_written_to_again_at_once(postgres: PostgresServer) -> None:
    """As behind a failover. What is connected would stay read-only; so it is let go."""

    async def work() -> None:
        async with opened(postgres.url("standby")) as database:
            postgres.set_read_only("standby")
            for name in ("b", "c"):
                with pytest.raises(DatabaseUnavailable, match="25006"):
                    await write(database, name)
            postgres.set_writable("standby")
            await write(database, "d")
            async with database.reading() as connection:
                assert (await connection.execute(select(leases.c.name))).scalars().all() == ["d"]

    uvloop.run(work())


def test_whose_password_is_not_taken_any_more_is_to_come_later(postgres: PostgresServer) -> None:
    async def work() -> None:
        url = postgres.url("locked_out").replace("ringcast@", "visitor:first@")
        postgres.tell("CREATE ROLE visitor LOGIN PASSWORD 'first'", "ALTER DATABASE locked_out OWNER TO visitor")
        rules = postgres.folder / "data" / "pg_hba.conf"
        rules.write_text(f"host locked_out visitor 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        postgres.tell("SELECT pg_reload_conf()")
        async with opened(url) as database:
            postgres.tell("ALTER ROLE visitor PASSWORD 'second'")
            await until_refused(url)
            postgres.end_sessions("locked_out")
            with pytest.raises(DatabaseUnavailable, match="28P01"):
                await write(database, "b")
            postgres.tell("ALTER ROLE visitor PASSWORD 'first'")
            await write(database, "c")

    uvloop.run(work())


async def until_refused(url: str) -> None:
    """Until nobody gets in by this URL who is not in yet: a start says so as everything else does."""
    async with asyncio.timeout(20):
        while True:
            late, reason = Database(url), ""
            try:
                await late.start()
            except DatabaseUnavailable as error:
                reason = error.reason
            await late.stop()
            if reason:
                break
    assert "28P01" in reason


@pytest.mark.parametrize(("setting", "state"), [("statement_timeout", "57014"), ("lock_timeout", "55P03")])
def test_what_waits_longer_than_the_server_lets_it_is_for_later(
    postgres: PostgresServer, setting: str, state: str
) -> None:
    async def work() -> None:
        url = postgres.url(setting)
        postgres.tell(f"ALTER DATABASE {setting} SET {setting} = '200ms'")
        async with opened(url) as database:
            await write(database, "a")
            async with database.writing() as holding:
                await holding.execute(update(leases).values(until=1.0))
                with pytest.raises(DatabaseUnavailable, match=state):
                    await say(database, "UPDATE leases SET until = 2")
            await write(database, "b")

    uvloop.run(work())


def test_of_two_transactions_in_each_others_way_one_is_for_later(postgres: PostgresServer) -> None:
    async def work() -> None:
        url = postgres.url("crossing")
        postgres.tell("ALTER DATABASE crossing SET deadlock_timeout = '20ms'")
        async with opened(url) as database:
            await write(database, "a")
            await write(database, "b")
            met = asyncio.Barrier(2)

            async def cross(*names: str) -> str:
                try:
                    async with database.writing() as connection:
                        for name in names:
                            await connection.execute(update(leases).where(leases.c.name == name).values(holder="y"))
                            if name == names[0]:
                                await met.wait()
                except DatabaseUnavailable as error:
                    return error.reason
                return ""

            reasons = sorted(await asyncio.gather(cross("a", "b"), cross("b", "a")))
            assert reasons[0] == "" and "40P01" in reasons[1]

    uvloop.run(work())


def test_while_a_table_is_away_everybody_is_to_come_later(postgres: PostgresServer) -> None:
    """As while a backup is brought in: no message and no request is at fault. What is missing is in the journal."""

    async def work() -> None:
        async with opened(postgres.url("restored")) as database:
            await say(database, "ALTER TABLE leases RENAME TO elsewhere")
            with structlog.testing.capture_logs() as lines, pytest.raises(DatabaseUnavailable, match="42P01"):
                await write(database, "b")
            assert [line["reason"] for line in lines] == ['relation "leases" does not exist']
            await say(database, "ALTER TABLE elsewhere RENAME TO leases")
            await write(database, "c")

    uvloop.run(work())


def test_what_a_migration_of_another_node_makes_stale_is_for_later_at_most(postgres: PostgresServer) -> None:
    async def work() -> None:
        async with opened(postgres.url("migrated")) as database, opened(postgres.url("migrated")) as newer:
            await write(database, "a")
            query = select(leases.c.until)
            async with database.reading() as connection:
                await connection.execute(query)
            await say(newer, "ALTER TABLE leases ALTER COLUMN until TYPE real")
            with pytest.raises(DatabaseUnavailable, match="does not answer"):
                async with database.reading() as connection:
                    await connection.execute(query)
            async with database.reading() as connection:
                assert (await connection.execute(query)).scalars().all() == [0.0]

    uvloop.run(work())


def test_who_gets_no_connection_in_time_is_to_come_later(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridges.database, "POOL_CONNECTIONS", 1)
    monkeypatch.setattr(bridges.database, "ANSWER_SECONDS", 0.5)

    async def work() -> None:
        async with opened(postgres.url("crowded")) as database, AsyncExitStack() as everybody:
            for _ in range(11):  # one, and ten more while there is a rush
                await everybody.enter_async_context(database.reading())
            with pytest.raises(DatabaseUnavailable):
                await everybody.enter_async_context(database.reading())
            await everybody.aclose()
            await write(database, "b")

    uvloop.run(work())
