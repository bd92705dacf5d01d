"""Facilities in a database, without a server: a change is whole or has not happened."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from apps.facilities import watch
from apps.facilities.catalogue import read_facilities
from apps.facilities.model import Facility
from apps.facilities.store import FacilityStore
from apps.facilities.watch import Watch
from bridges.database import Database, DatabaseUnavailable
from handlers.streams import StreamCall
from server.event import Event
from tests.harness.databases import DATABASES, new_database


class Written:
    """An outbox that notes what is put, or takes nothing."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.full = False

    async def put(self, _: object, channel: str, events: Sequence[Event]) -> None:
        assert channel == "facilities"
        if self.full:
            raise RuntimeError("no")
        self.events += events

    def wake(self) -> None:
        pass


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return Database(new_database(request, request.param, tmp_path))


def renamed(before: Facility) -> Facility:
    return replace(before, name="Zebra", avg_wait_minutes=99)


def test_a_change_the_search_index_and_the_events_are_one(database: Database) -> None:
    """F4, F10: if one of them fails there is none of them."""

    async def play() -> None:
        await database.start()
        outbox = Written()
        store = FacilityStore(database, cast(Any, outbox), "facilities")
        given = read_facilities()[:3]
        assert [await store.fill(given), await store.fill(given)] == [3, 0]
        outbox.full = True
        with pytest.raises(RuntimeError):
            await store.change("fac_001", renamed)
        assert await store.get("fac_001") == given[0]
        assert await store.suggest("zebra", 5) == []
        outbox.full = False
        changed = await store.change("fac_001", renamed)
        assert changed is not None
        assert changed.kinds == ["wait_time_update"]
        assert [one.id for one in await store.suggest("zeb", 5)] == ["fac_001"]
        assert len(outbox.events) == 1
        assert await store.change("fac_009", renamed) is None
        await database.stop()

    asyncio.run(play())


def test_two_changes_at_once_both_happen(database: Database) -> None:
    """F4: one after the other, also for the events."""

    async def play() -> None:
        await database.start()
        outbox = Written()
        store = FacilityStore(database, cast(Any, outbox), "facilities")
        await store.fill(read_facilities()[:1])

        def longer(before: Facility) -> Facility:
            return replace(before, avg_wait_minutes=before.avg_wait_minutes + 1)

        await asyncio.gather(*(store.change("fac_001", longer) for _ in range(20)))
        after = await store.get("fac_001")
        assert after is not None
        assert after.avg_wait_minutes == 55
        assert len(outbox.events) == 20
        await database.stop()

    asyncio.run(play())


def test_a_facility_that_comes_later_can_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """F1: and a database that is away for a while takes nothing back."""

    class Store:
        looks = 0

        async def ids(self) -> frozenset[str]:
            self.looks += 1
            if self.looks == 2:
                raise DatabaseUnavailable("away")
            return frozenset(["fac_001"] if self.looks == 1 else ["fac_001", "fac_new"])

    monkeypatch.setattr(watch, "LOOK_SECONDS", 0)

    async def play() -> None:
        watching = Watch(cast(Any, Store()), "facilities")
        one, _ = watching.streams()

        def admitted(facility_id: str) -> bool:
            request = cast(Any, SimpleNamespace(query=""))
            return one.admit(StreamCall(request, {"id": facility_id}, {}, cast(Any, None))) is not None

        await watching.look()
        assert [admitted("fac_001"), admitted("fac_new")] == [True, False]
        looking = asyncio.create_task(watching.look_again())
        async with asyncio.timeout(10):
            while not admitted("fac_new"):
                assert admitted("fac_001")
                await asyncio.sleep(0)
        looking.cancel()

    asyncio.run(play())
