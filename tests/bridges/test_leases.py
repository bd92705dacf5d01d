"""Leases over SQLite and PostgreSQL: one node has one, keeps it for as long as it wants, and another takes it over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import structlog

from bridges.database import Database, DatabaseUnavailable
from bridges.leases import Lease, Turn
from tests.bridges.conftest import until
from tests.harness.databases import DATABASES, new_database
from tests.server.relay.bench import run
from tests.server.relay.bench import until as eventually

LEASE_SECONDS = 2.0


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The setting of an empty database."""
    return new_database(request, request.param, tmp_path)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are soon over."""
    monkeypatch.setattr("bridges.leases.LEASE_SECONDS", LEASE_SECONDS)
    monkeypatch.setattr("bridges.leases.RENEW_SECONDS", 0.02)


class Nodes:
    """Turns of several nodes, and the tasks that keep them."""

    def __init__(self, database: Database, count: int) -> None:
        self.turns = [Turn(database, "thing", str(number)) for number in range(count)]
        self._tasks = [asyncio.create_task(turn.run()) for turn in self.turns]

    def having_it(self) -> list[Turn]:
        return [turn for turn in self.turns if turn.mine]

    async def die(self, turn: Turn) -> None:
        """Its node does nothing any more."""
        task = self._tasks[self.turns.index(turn)]
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def stop(self) -> None:
        for turn in self.turns:
            await self.die(turn)
            await turn.stop()


@asynccontextmanager
async def running(database: str, count: int = 3) -> AsyncIterator[Nodes]:
    shared = Database(database)
    with structlog.testing.capture_logs():
        await shared.start()
        nodes = Nodes(shared, count)
        try:
            yield nodes
        finally:
            await nodes.stop()
            await shared.stop()


def test_a_lease_is_held_by_one_and_taken_over_when_it_expires(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridges.leases.LEASE_SECONDS", LEASE_SECONDS)
    monkeypatch.setattr("bridges.leases.RENEW_SECONDS", 0.0)

    async def main() -> None:
        shared = Database(database)
        await shared.start()
        leases = [Lease(shared, "thing", str(number)) for number in range(5)]
        held = [await lease.holds() for lease in leases]
        assert held == [True, False, False, False, False]
        assert await leases[0].holds()
        await eventually(leases[3].holds)
        assert not await leases[0].holds()
        assert await Lease(shared, "other", "0").holds()
        await shared.stop()

    run(main())


@pytest.mark.usefixtures("brief")
def test_a_turn_lasts_although_nothing_is_done_in_it_for_longer_than_a_lease(database: str) -> None:
    """A simulation that makes something once an hour is no second node's."""

    async def main() -> None:
        async with running(database) as nodes:
            await until(nodes.having_it)
            mine = nodes.having_it()
            assert len(mine) == 1
            assert await mine[0].wait() == 1
            end = time.monotonic() + 2 * LEASE_SECONDS
            while time.monotonic() < end:
                assert nodes.having_it() == mine
                await asyncio.sleep(0.01)
            assert sorted(turn.number for turn in nodes.turns) == [0, 0, 1]

    run(main())


@pytest.mark.usefixtures("brief")
def test_a_turn_goes_to_another_when_its_node_stops_or_dies(database: str) -> None:
    async def main() -> None:
        async with running(database) as nodes:
            await until(nodes.having_it)
            first = nodes.having_it()[0]
            await nodes.die(first)
            await first.stop()
            assert not first.mine
            await until(nodes.having_it)
            second = nodes.having_it()[0]
            await nodes.die(second)
            await until(lambda: len(nodes.having_it()) == 2)  # the dead one would still believe it
            assert [turn.number for turn in nodes.turns] == [1, 1, 1]

    run(main())


@pytest.mark.usefixtures("brief")
def test_without_the_database_it_is_nobodys_turn_and_then_a_new_one(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with running(database, 1) as nodes:
            turn = nodes.turns[0]
            assert await turn.wait() == 1
            with monkeypatch.context() as patched:

                async def gone(_: Lease) -> bool:
                    raise DatabaseUnavailable("away")

                patched.setattr(Lease, "holds", gone)
                await until(lambda: not turn.mine)
            assert await turn.wait() == 2

    run(main())
