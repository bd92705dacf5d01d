"""The table of jobs: what the migrations make of an empty database and of one with jobs in it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from apps.jobs.model import State
from apps.jobs.store import JobStore, jobs
from apps.jobs.workers import workers
from bridges.database import MIGRATIONS, Database, metadata, url_of
from bridges.outbox import Outbox
from tests.harness.databases import DATABASES, new_database

BEFORE = "0006"  # progress was a whole number
ROW = """INSERT INTO jobs (id, owner, wanted, status, progress, stage, message, timestamp, data, created, changed)
VALUES ('a1', 'me', '{"topics": ["x"]}', 'processing', 40, 's', 'm', '2026-11-21T12:00:00.000Z', '{"a": 1}', 1, 1)"""


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty one of each kind."""
    return new_database(request, request.param, tmp_path)


async def with_a_job_of_before(database: str) -> None:
    """Leave it as an earlier version had it, with a job."""
    url = url_of(database)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = make_url(url)
    await asyncio.to_thread(command.upgrade, config, BEFORE)
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text(ROW))
    await engine.dispose()


def differences(connection: Connection) -> list[Any]:
    """Where the tables are not as they are declared."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata))


@pytest.mark.parametrize("used", [False, True])
def test_the_tables_are_what_the_migrations_make_and_jobs_outlive_them(database: str, used: bool) -> None:
    async def work() -> None:
        if used:
            await with_a_job_of_before(database)
        one = Database(database)
        await one.start()
        async with one.reading() as connection:
            found = await connection.run_sync(differences)
        kept = await JobStore(one, cast(Outbox, None), "jobs").get("a1")
        await one.stop()
        assert [one for one in found if any(table.name in str(one) for table in (jobs, workers))] == []
        state = State("a1", "processing", 40, "s", "m", "2026-11-21T12:00:00.000Z", {"a": 1})
        assert (kept and kept.state) == (state if used else None)

    asyncio.run(work())
