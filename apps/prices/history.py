"""The history of prices: points for charts, downsampled by the database, and made coarser as they get old.

Owns the statements on points but for their adding (store.py, with the change that makes them). Must never know who
asks.

Invariants: a chart's point is the average of all single changes in its step, also of those that are only kept as
averages by now (they carry how many they stand for). What is averaged over is replaced in one transaction.
Cost: a chart reads one item's points of its period by the primary key; a turn of rolling up reads one step of time of
`ROLL_ITEMS` items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from apps.prices.model import Point, Tier, averaged, begin_of
from apps.prices.store import add_points
from apps.prices.tables import points
from bridges.database import Database

MAX_POINTS = 5_000
ROLL_ITEMS = 500

_SUMS = (
    func.sum(points.c.high * points.c.highs),
    func.sum(points.c.highs),
    func.sum(points.c.low * points.c.lows),
    func.sum(points.c.lows),
)


class History:
    """See the module's head. All methods raise DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sampled(self, item_id: int, since_ms: int, step_seconds: int) -> Sequence[Point]:
        """One point for each step in which there was a change, oldest first; the newest `MAX_POINTS` + 1 of them."""
        starts = (points.c.at - points.c.at % (step_seconds * 1_000)).label("starts")
        wanted = (
            select(starts, *_SUMS)
            .where(points.c.item_id == item_id, points.c.at >= since_ms)
            .group_by("starts")  # by its name: PostgreSQL takes the expression with other parameters for another one
            .order_by(starts.desc())
            .limit(MAX_POINTS + 1)
        )
        async with self._database.reading() as connection:
            return [averaged(*row) for row in reversed((await connection.execute(wanted)).all())]

    async def single(self, item_id: int, since_ms: int) -> Sequence[Point]:
        """Points as they are kept, oldest first; the newest `MAX_POINTS` + 1 of them."""
        wanted = _points().where(points.c.item_id == item_id, points.c.at >= since_ms)
        return await self._read(wanted.order_by(points.c.at.desc()).limit(MAX_POINTS + 1))

    async def before(self, item_id: int, since_ms: int) -> Point | None:
        """The last point before a moment: how things stood then."""
        wanted = _points().where(points.c.item_id == item_id, points.c.at < since_ms)
        found = await self._read(wanted.order_by(points.c.at.desc()).limit(1))
        return found[0] if found else None

    async def _read(self, wanted: Any) -> Sequence[Point]:
        async with self._database.reading() as connection:
            return [Point(*row) for row in reversed((await connection.execute(wanted)).all())]

    async def roll_up(self, tier: Tier, now_ms: int) -> int:
        """Average the oldest points of a tier over its next step, of some items; how many points went. 0: all that are
        old enough are done."""
        end = begin_of(now_ms - round(tier.keep_seconds * 1_000), tier.into_seconds)
        async with self._database.writing() as connection:
            oldest = select(func.min(points.c.at)).where(points.c.step == tier.step_seconds, points.c.at < end)
            first = (await connection.execute(oldest)).scalar()
            return 0 if first is None else await self._roll(connection, tier, begin_of(first, tier.into_seconds))

    @staticmethod
    async def _roll(connection: AsyncConnection, tier: Tier, begin: int) -> int:
        fine = (
            (points.c.step == tier.step_seconds)
            & (points.c.at >= begin)
            & (points.c.at < begin + tier.into_seconds * 1_000)
        )
        grouped = select(points.c.item_id, *_SUMS).where(fine).group_by(points.c.item_id)
        rows = (await connection.execute(grouped.order_by(points.c.item_id).limit(ROLL_ITEMS))).all()
        if not rows:
            return 0  # another node was faster
        number: int = (await connection.execute(delete(points).where(fine, _among(rows)))).rowcount
        # There is one already where a clock was put back; what came last counts.
        coarse = (points.c.step == tier.into_seconds) & (points.c.at == begin)
        await connection.execute(delete(points).where(coarse, _among(rows)))
        await add_points(connection, tier.into_seconds, [(row.item_id, averaged(begin, *row[1:])) for row in rows])
        return number


def _among(rows: Sequence[Any]) -> Any:
    return points.c.item_id.in_([row.item_id for row in rows])


def _points() -> Any:
    return select(points.c.at, points.c.high, points.c.highs, points.c.low, points.c.lows)
