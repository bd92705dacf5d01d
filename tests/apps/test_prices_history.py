"""The history of prices in either database: averages of the database's own, and what becomes of old points."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Protocol

import pytest

from apps.prices import history as history_module
from apps.prices.history import History
from apps.prices.model import DAY, Point, Quote, Tier, averaged, begin_of, single
from apps.prices.store import PriceStore, add_points
from bridges.database import Database
from bridges.outbox import outbox
from server.event import Event
from tests.harness.databases import DATABASES, new_database

START_MS = begin_of(1_736_859_296_070, DAY)
TIER = Tier(0, 3_600, 300)


class Told:
    """An outbox that remembers what was put into it."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def put(self, _: object, __: str, events: list[Event]) -> None:
        self.events += events

    def wake(self) -> None:
        pass


class Work(Protocol):
    """What a test does with a database."""

    def __call__(self, database: Database) -> Coroutine[Any, Any, None]: ...


class Do(Protocol):
    """Does it."""

    def __call__(self, work: Work) -> None: ...


@pytest.fixture(scope="module", params=DATABASES)
def do(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Do:
    """`do(work)` with a database; each test uses other items."""
    folder: Path = tmp_path_factory.mktemp("prices")
    setting = new_database(request, request.param, folder)

    def done(work: Work) -> None:
        async def run() -> None:
            database = Database(setting)
            await database.start()
            try:
                await work(database)
            finally:
                await database.stop()

        asyncio.run(run())

    return done


def store_of(database: Database) -> tuple[PriceStore, Told]:
    told = Told()
    return PriceStore(database, told, "prices"), told  # type: ignore[arg-type]


async def put(database: Database, item_id: int, points: list[Point], step_seconds: int = 0) -> None:
    async with database.writing() as connection:
        await add_points(connection, step_seconds, [(item_id, point) for point in points])


def wandering(count: int, seconds: int) -> list[Point]:
    """Points that differ, some with a side unknown."""
    return [
        single(
            START_MS + n * seconds * 1_000 + 7, None if n % 7 == 0 else 1_000 + n * n % 311, None if n % 5 == 0 else n
        )
        for n in range(count)
    ]


def expected(points: list[Point], step_seconds: int) -> list[Point]:
    """The averages, as this file understands them."""
    steps: dict[int, list[Point]] = {}
    for point in points:
        steps.setdefault(begin_of(point.at_ms, step_seconds), []).append(point)
    found = []
    for begin, members in steps.items():
        highs = [point.high for point in members if point.high is not None]
        lows = [point.low for point in members if point.low is not None]
        found.append(averaged(begin, sum(highs), len(highs), sum(lows), len(lows)))
    return found


def test_the_database_averages_over_the_steps_of_a_period(do: Do) -> None:
    """P4: one point for each step with a change in it, oldest first; nulls count for nothing."""
    points = wandering(600, 47)

    async def work(database: Database) -> None:
        history = History(database)
        await put(database, 1, points)
        for step_seconds in (60, 300, 1_800, 7_200):
            found = await history.sampled(1, START_MS, step_seconds)
            assert list(found) == expected(points, step_seconds)
        half = points[300].at_ms
        assert list(await history.single(1, half)) == points[300:]
        assert await history.before(1, half) == points[299]
        assert await history.before(1, START_MS) is None
        assert list(await history.sampled(99, 0, 60)) == []

    do(work)


def test_old_points_are_averaged_and_charts_stay_as_they_were(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: a little at a time, with their weights, so that averages of averages are those of single changes."""
    monkeypatch.setattr(history_module, "ROLL_ITEMS", 2)
    points = wandering(400, 31)

    async def work(database: Database) -> None:
        history = History(database)
        for item_id in (11, 12, 13):
            await put(database, item_id, points)
        before = [await history.sampled(item_id, START_MS, 1_800) for item_id in (11, 12, 13)]
        now = points[-1].at_ms + 3_600_000
        turns = []
        while gone := await history.roll_up(TIER, now):
            turns.append(gone)
        assert max(turns) <= 2 * 10  # the points of one step of two items
        assert await history.roll_up(TIER, now) == 0
        for item_id, sampled in zip((11, 12, 13), before, strict=True):
            kept = await history.single(item_id, START_MS)
            edge = begin_of(now - 3_600_000, 300)
            assert [point.at_ms for point in kept if point.at_ms >= edge] == [
                point.at_ms for point in points if point.at_ms >= edge
            ]
            old = [point for point in points if point.at_ms < edge]
            assert [point for point in kept if point.at_ms < edge] == expected(old, 300)
            again = await history.sampled(item_id, START_MS, 1_800)
            assert [(one.at_ms, one.highs, one.lows) for one in again] == [
                (one.at_ms, one.highs, one.lows) for one in sampled
            ]
            for one, other in zip(again, sampled, strict=True):  # rounded once more
                assert abs((one.high or 0) - (other.high or 0)) <= 1
                assert abs((one.low or 0) - (other.low or 0)) <= 1

    do(work)


def test_a_step_that_was_averaged_already_is_replaced(do: Do) -> None:
    """P4: a clock that was put back does not stop the tending."""

    async def work(database: Database) -> None:
        history = History(database)
        await put(database, 21, [single(START_MS, 5, 5)], 300)
        await put(database, 21, [single(START_MS + 5, 9, 9)])
        while await history.roll_up(TIER, START_MS + DAY * 1_000):
            pass
        assert list(await history.single(21, 0)) == [single(START_MS, 9, 9)]

    do(work)


def test_a_change_its_point_and_its_event_are_one(do: Do) -> None:
    """P3: what is news is stored and told together; the same answer twice changes nothing."""

    async def work(database: Database) -> None:
        store, told = store_of(database)
        seen = {31: Quote(10, 9, 5, 5), 32: Quote(None, None, None, None)}
        news = await store.record(seen, {31: "Bow"}, START_MS, simulated=False)
        assert [price.item_id for price in news] == [31, 32]
        assert await store.record(seen, {31: "Bow"}, START_MS + 1_000, simulated=False) == []
        # A clock that was put back: the second change is after the first all the same.
        [price] = await store.record({31: Quote(11, 9, 6, 5)}, {}, START_MS - 5_000, simulated=False)
        assert (price.changed_ms, price.name) == (START_MS + 1, "Bow")
        assert [event.topics[0] for event in told.events] == ["items/31", "items/32", "items/31"]
        history = History(database)
        assert list(await history.single(31, 0)) == [single(START_MS, 10, 9), single(START_MS + 1, 11, 9)]
        assert list(await history.single(32, 0)) == []
        assert await store.get(31) == price

    do(work)


def test_an_event_that_can_not_be_told_undoes_the_change(do: Do) -> None:
    """P3: the outbox, the item and its history are in one transaction."""

    class Full(Told):
        async def put(self, connection: Any, channel: str, events: list[Event]) -> None:
            row = {"channel": channel, "event": events[0].data, "created": 0.0}
            await connection.execute(outbox.insert(), row)
            raise RuntimeError("no room")

    async def work(database: Database) -> None:
        store = PriceStore(database, Full(), "prices")  # type: ignore[arg-type]
        with pytest.raises(RuntimeError):
            await store.record({41: Quote(10, 9, 5, 5)}, {}, START_MS, simulated=False)
        assert await store.get(41) is None
        assert list(await History(database).single(41, 0)) == []
        async with database.reading() as connection:
            assert (await connection.execute(outbox.select())).all() == []

    do(work)


def test_items_are_found_by_name_and_listed_in_pages(do: Do) -> None:
    """P4: a search is for text, whatever characters it has."""

    async def work(database: Database) -> None:
        store, _ = store_of(database)
        names = {51: "Rune 100% sword", 52: "rune_bow", 53: "Shark"}
        await store.record(dict.fromkeys(names, Quote(1, 1, 1, 1)), names, START_MS, simulated=False)
        found, total = await store.list(frozenset(names), "RUNE", 1, 1)
        assert ([price.item_id for price in found], total) == ([52], 2)
        assert [price.item_id for price in (await store.list(frozenset(names), "%", 9, 0))[0]] == [51]
        assert [price.item_id for price in (await store.list(frozenset(names), "_", 9, 0))[0]] == [52]
        await store.rename({53: "Raw shark"})
        renamed = await store.get(53)
        assert renamed is not None and renamed.name == "Raw shark"

    do(work)


def test_what_was_made_up_is_forgotten_and_what_is_real_is_not(do: Do) -> None:
    """P3: one database never holds both for long."""

    async def work(database: Database) -> None:
        store, _ = store_of(database)
        await store.record({61: Quote(1, 1, 1, 1)}, {}, START_MS, simulated=False)
        await store.record({62: Quote(1, 1, 1, 1)}, {}, START_MS, simulated=True)
        assert await store.has_real()
        assert await store.forget_simulated() == 1
        assert await store.get(62) is None
        assert list(await History(database).single(62, 0)) == []
        assert await store.get(61) is not None
        assert await store.forget_simulated() == 0

    do(work)
