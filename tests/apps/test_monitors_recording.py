"""What follows from a check, on SQLite and PostgreSQL: history, incidents and what is said of them. No sockets but the
database's, so nothing has to wait for a worker.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Table

from apps.monitors import tables
from apps.monitors.accounts import Accounts
from apps.monitors.incidents import IncidentStore
from apps.monitors.model import NewMonitor, NewRule, Outcome, Said
from apps.monitors.recorder import TRIM_EVERY, Recorder
from apps.monitors.store import MonitorStore
from bridges.database import Database, metadata
from tests.harness.databases import DATABASES, new_database


class Recording:
    """The stores over a database of their own."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.queue = _Said()
        queue: Any = self.queue
        self.accounts = Accounts(self.database, queue)
        self.incidents = IncidentStore(self.database, queue)
        self.store = MonitorStore(self.database, queue, most=100, host_per_minute=10_000)
        self.recorder = Recorder(self.database, self.queue.put, keep=30)

    async def begin(self) -> tuple[int, str]:
        """A tenant and a monitor."""
        await self.database.start()
        user = await self.accounts.register(f"{uuid.uuid4().hex}@example.com", "", "Tenant")
        monitor = await self.store.create(user.tenant, NewMonitor(name="Shop", url="http://a.example/"), "a.example")
        self.queue.said.clear()
        return user.tenant, str(monitor["id"])


class _Said:
    """Stands in for the queue."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []

    async def put(self, _: Any, said: Sequence[Said]) -> None:
        self.said += [(one.type, one.data) for one in said]

    def wake(self) -> None:
        pass

    def types(self) -> list[str]:
        found = [kind for kind, _ in self.said]
        self.said.clear()
        return found


@pytest.fixture(scope="module", params=DATABASES)
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One of each kind: every test has a tenant of its own in it."""
    return new_database(request, request.param, tmp_path_factory.mktemp("recording"))


def run(work: Any) -> None:
    asyncio.run(work)


def failed(at: float) -> Outcome:
    return Outcome(at, False, 503, 5, "HTTP status 503")


def good(at: float) -> Outcome:
    return Outcome(at, True, 200, 5)


def test_the_tables_are_what_the_migrations_make(recording: str) -> None:
    async def work() -> None:
        database = Database(recording)
        await database.start()

        def differences(connection: Connection) -> list[Any]:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            return list(compare_metadata(context, metadata))

        async with database.reading() as connection:
            found = await connection.run_sync(differences)
        await database.stop()
        mine = {table.name for table in vars(tables).values() if isinstance(table, Table)}
        assert [one for one in found if any(name in str(one) for name in mine)] == []

    run(work())


def test_a_check_and_what_follows_from_it_are_stored_and_said_together(recording: str) -> None:
    """M3: incidents open and are resolved, once each; the board shows it."""

    async def work() -> None:
        with_stores = Recording(recording)
        tenant, monitor = await with_stores.begin()
        await with_stores.incidents.create_rule(tenant, NewRule(name="Down", trigger_type="down"), 10)
        slow = NewRule(name="Slow", trigger_type="slow_response", threshold_value=500)
        await with_stores.incidents.create_rule(tenant, slow, 10)
        with_stores.queue.said.clear()
        told = []
        for at, outcome in enumerate((good, failed, failed, failed, failed, good, failed, good, good)):
            assert await with_stores.recorder.record(monitor, outcome(float(at)))
            told.append(with_stores.queue.types())
        assert [kinds[1:] for kinds in told] == [
            [],
            [],
            [],
            ["incident_created"],
            [],
            [],
            [],
            [],
            ["incident_resolved"],
        ]
        assert {kinds[0] for kinds in told} == {"monitor_check"}
        [incident] = await with_stores.incidents.list(tenant, None, None, 10, 0)
        assert (incident["status"], incident["trigger_value"]) == ("resolved", "Monitor is down: HTTP status 503")
        assert incident["started_at"] < incident["resolved_at"]
        assert await with_stores.incidents.list(tenant, "open", None, 10, 0) == []
        summary = await with_stores.store.summary(tenant)
        assert (summary["up"], summary["open_incidents"]) == (1, 0)
        latest = await with_stores.store.latest(tenant, 10, 0)
        assert [one["checked_at"] for one in latest] == ["1970-01-01T00:00:08.000Z"]
        history = await with_stores.store.checks(tenant, monitor, 3, 1)
        assert [one["success"] for one in history] == [True, False, True]
        await with_stores.database.stop()

    run(work())


@pytest.mark.parametrize("end", ["rule deleted", "rule paused", "monitor paused", "monitor deleted"])
def test_an_incident_is_over_when_nobody_looks_any_more(recording: str, end: str) -> None:
    """And its tenant is told; nothing is recorded of a monitor that is gone or paused."""

    async def work() -> None:
        stores = Recording(recording)
        tenant, monitor = await stores.begin()
        rule = await stores.incidents.create_rule(tenant, NewRule(name="Down", trigger_type="down"), 10)
        for at in range(3):
            await stores.recorder.record(monitor, failed(float(at)))
        assert stores.queue.types()[-1] == "incident_created"
        if end == "rule deleted":
            assert await stores.incidents.delete_rule(tenant, rule["id"])
        elif end == "rule paused":
            await stores.incidents.change_rule(tenant, rule["id"], {"enabled": False})
        elif end == "monitor paused":
            await stores.store.change(tenant, monitor, {"enabled": False})
        else:
            assert await stores.store.delete(tenant, monitor)
        assert stores.queue.types()[0] == "incident_resolved"
        [incident] = await stores.incidents.list(tenant, None, None, 10, 0)
        assert incident["status"] == "resolved"
        assert await stores.recorder.record(monitor, failed(3.0)) is end.startswith("rule")
        if end == "monitor paused":  # what was before the pause does not count after it
            await stores.store.change(tenant, monitor, {"enabled": True})
            stores.queue.said.clear()
            await stores.recorder.record(monitor, failed(4.0))
            assert stores.queue.types() == ["monitor_check"]
        await stores.database.stop()

    run(work())


def test_two_workers_at_once_open_one_incident(recording: str) -> None:
    async def work() -> None:
        first, second = Recording(recording), Recording(recording)
        tenant, monitor = await first.begin()
        await second.database.start()
        await first.incidents.create_rule(tenant, NewRule(name="Down", trigger_type="down", breaches=2), 10)
        for at in range(0, 20, 2):
            both = (
                first.recorder.record(monitor, failed(float(at))),
                second.recorder.record(monitor, failed(at + 1.0)),
            )
            await asyncio.gather(*both)
        said = first.queue.types() + second.queue.types()
        assert said.count("incident_created") == 1
        assert said.count("monitor_check") == 20
        assert len(await first.incidents.list(tenant, None, None, 10, 0)) == 1
        await first.database.stop()
        await second.database.stop()

    run(work())


def test_the_history_of_a_monitor_is_bounded(recording: str) -> None:
    """M3"""

    async def work() -> None:
        stores = Recording(recording)
        tenant, monitor = await stores.begin()
        for at in range(30 + 3 * TRIM_EVERY):
            await stores.recorder.record(monitor, good(float(at)))
        kept = await stores.store.checks(tenant, monitor, 500, 0)
        assert 30 <= len(kept) < 30 + TRIM_EVERY
        assert kept[0]["checked_at"].endswith("01:29.000Z")
        await stores.database.stop()

    run(work())


def test_the_history_of_each_of_several_monitors_is_bounded(recording: str) -> None:
    """M3: in whatever order they are checked."""

    async def work() -> None:
        stores = Recording(recording)
        tenant, first = await stores.begin()
        second = await stores.store.create(tenant, NewMonitor(name="b", url="http://b.example/"), "b.example")
        for at in range(30 + 2 * TRIM_EVERY):
            for monitor in (first, str(second["id"])):
                await stores.recorder.record(monitor, good(float(at)))
        for monitor in (first, str(second["id"])):
            assert 30 <= len(await stores.store.checks(tenant, monitor, 500, 0)) < 30 + TRIM_EVERY
        await stores.database.stop()

    run(work())


def test_a_check_whose_recording_was_in_doubt_is_recorded_once(recording: str) -> None:
    """M3: the database may have done it and gone before it said so."""

    async def work() -> None:
        stores = Recording(recording)
        tenant, monitor = await stores.begin()
        assert await stores.recorder.record(monitor, failed(time.time()))
        again = failed(time.time())
        assert await stores.recorder.record(monitor, again)
        assert not await stores.recorder.record(monitor, again)
        assert len(await stores.store.checks(tenant, monitor, 10, 0)) == 2
        assert stores.queue.types() == ["monitor_check"] * 2
        await stores.database.stop()

    run(work())


def test_incidents_are_forgotten_when_they_are_long_over(recording: str) -> None:
    async def work() -> None:
        stores = Recording(recording)
        tenant, monitor = await stores.begin()
        await stores.incidents.create_rule(tenant, NewRule(name="Down", trigger_type="down"), 10)
        now = time.time() + 10_000
        await stores.incidents.purge(now - 1_000)  # of other tests
        for number, outcome in enumerate((failed, failed, failed, good, good, failed, failed, failed)):
            await stores.recorder.record(monitor, outcome(now - 100 + number))
        assert await stores.incidents.purge(now - 200) == 0
        assert await stores.incidents.purge(now) == 1
        [left] = await stores.incidents.list(tenant, None, None, 10, 0)
        assert left["status"] == "open"
        await stores.database.stop()

    run(work())
