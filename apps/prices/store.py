"""Prices in the database: how each item stands, changed together with its history and the event that says so.

Owns the statements on items. Must never decide what is news (model.py does) or where prices come from.

Invariants: a change, the point it makes in the history, and its event are in one transaction; items are locked while
they are compared, so whoever records the same answer twice changes nothing the second time.
Cost: five statements for `CHUNK` items at most, about 10 ms, most of them in the database's own thread or process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from apps.prices.model import Point, Price, Quote, advance, single
from apps.prices.source import Past
from apps.prices.tables import items, points
from bridges.database import Database
from bridges.outbox import Outbox

CHUNK = 250


class PriceStore:
    """`channel` is where events go. All methods raise DatabaseUnavailable."""

    def __init__(self, database: Database, outbox: Outbox, channel: str) -> None:
        self._database = database
        self._outbox = outbox
        self._channel = channel

    # --- looking

    async def known(self) -> dict[int, Price]:
        """All items."""
        async with self._database.reading() as connection:
            return {row.id: _price(row) for row in await connection.execute(select(items))}

    async def ids(self, among: frozenset[int] | None = None) -> frozenset[int]:
        """Which items there are, of all or among some."""
        wanted = select(items.c.id) if among is None else select(items.c.id).where(items.c.id.in_(among))
        async with self._database.reading() as connection:
            return frozenset((await connection.execute(wanted)).scalars())

    async def get(self, item_id: int) -> Price | None:
        """One item."""
        async with self._database.reading() as connection:
            row = (await connection.execute(select(items).where(items.c.id == item_id))).one_or_none()
        return None if row is None else _price(row)

    async def list(
        self, ids: frozenset[int] | None, search: str, limit: int, offset: int
    ) -> tuple[Sequence[Price], int]:
        """Items of these ids (None: of any) whose name holds a text, by id; and how many there are in all."""
        wanted = select(items)
        if ids is not None:
            wanted = wanted.where(items.c.id.in_(ids))
        if search:
            wanted = wanted.where(func.lower(items.c.name).contains(search.lower(), autoescape=True))
        async with self._database.reading() as connection:
            total = (await connection.execute(select(func.count()).select_from(wanted.subquery()))).scalar() or 0
            rows = await connection.execute(wanted.order_by(items.c.id).limit(limit).offset(offset))
            return [_price(row) for row in rows], total

    # --- changing

    async def record(
        self, seen: Mapping[int, Quote], names: Mapping[int, str], now_ms: int, *, simulated: bool
    ) -> Sequence[Price]:
        """Take what was seen of some items, `CHUNK` at most; what of it was news."""
        async with self._database.writing() as connection:
            rows = await connection.execute(select(items).where(items.c.id.in_(seen)).with_for_update())
            known = {row.id: _price(row) for row in rows}
            news = list(_news(seen, known, names, now_ms, simulated))
            await self._write(connection, [one for one in news if one.item_id not in known], items.insert())
            key = items.c.id == bindparam("key")
            await self._write(connection, [one for one in news if one.item_id in known], update(items).where(key))
            fresh = [(one.item_id, single(one.changed_ms, one.quote.high, one.quote.low)) for one in news]
            await add_points(connection, 0, [(item, point) for item, point in fresh if point.highs or point.lows])
            await self._outbox.put(connection, self._channel, [one.event() for one in news])
        self._outbox.wake()
        return news

    @staticmethod
    async def _write(connection: AsyncConnection, prices: Sequence[Price], statement: Any) -> None:
        if prices:
            inserting = statement.is_insert
            await connection.execute(statement, [_columns(one, "id" if inserting else "key") for one in prices])

    async def fill(self, price: Price, past: Past) -> None:
        """A new item with a history: points with the seconds that each stands for."""
        async with self._database.writing() as connection:
            await connection.execute(insert(items), _columns(price, "id"))
            for step in {step for step, _ in past}:
                await add_points(connection, step, [(price.item_id, point) for own, point in past if own == step])
            await self._outbox.put(connection, self._channel, [price.event()])
        self._outbox.wake()

    async def rename(self, names: Mapping[int, str]) -> None:
        """Names of items that are there. That is no event: nobody's price has changed."""
        rows = [{"key": item_id, "name": name} for item_id, name in names.items()]
        for start in range(0, len(rows), CHUNK):
            async with self._database.writing() as connection:
                statement = update(items).where(items.c.id == bindparam("key"))
                await connection.execute(statement, rows[start : start + CHUNK])

    async def has_real(self) -> bool:
        """True if any item is not made up."""
        async with self._database.reading() as connection:
            found = await connection.execute(select(items.c.id).where(items.c.simulated.is_(False)).limit(1))
            return found.one_or_none() is not None

    async def forget_simulated(self) -> int:
        """Forget what was made up, with its history; how many items."""
        async with self._database.reading() as connection:
            made_up = [*(await connection.execute(select(items.c.id).where(items.c.simulated))).scalars()]
        for item_id in made_up:
            async with self._database.writing() as connection:
                await connection.execute(delete(points).where(points.c.item_id == item_id))
                await connection.execute(delete(items).where(items.c.id == item_id))
        return len(made_up)


async def add_points(connection: AsyncConnection, step_seconds: int, new: Sequence[tuple[int, Point]]) -> None:
    """Add points of items to the history."""
    rows = [
        {
            "item_id": item_id,
            "at": point.at_ms,
            "step": step_seconds,
            "high": point.high,
            "highs": point.highs,
            "low": point.low,
            "lows": point.lows,
        }
        for item_id, point in new
    ]
    if rows:
        await connection.execute(insert(points), rows)


def _news(
    seen: Mapping[int, Quote], known: Mapping[int, Price], names: Mapping[int, str], now_ms: int, simulated: bool
) -> Iterator[Price]:
    for item_id, quote in seen.items():
        before = known.get(item_id)
        after = advance(None if before is None else before.quote, quote)
        if after is not None:
            # A clock that is put back must not put a point before the last one.
            moment = now_ms if before is None else max(now_ms, before.changed_ms + 1)
            name = names.get(item_id, None if before is None else before.name)
            yield Price(item_id, name, after, moment, simulated)


def _columns(price: Price, key: str) -> dict[str, Any]:
    quote = price.quote
    return {
        key: price.item_id,
        "name": price.name,
        "high": quote.high,
        "low": quote.low,
        "high_time": quote.high_time,
        "low_time": quote.low_time,
        "changed": price.changed_ms,
        "simulated": price.simulated,
    }


def _price(row: Any) -> Price:
    return Price(row.id, row.name, Quote(row.high, row.low, row.high_time, row.low_time), row.changed, row.simulated)
