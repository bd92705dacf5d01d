"""The tables of `prices`. Owns their columns; the migration 0005 makes them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table

from bridges.database import metadata

NAME_CHARACTERS = 200

# How each item stands. `changed` is in milliseconds.
items = Table(
    "price_items",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(NAME_CHARACTERS)),
    Column("high", BigInteger),
    Column("low", BigInteger),
    Column("high_time", BigInteger),
    Column("low_time", BigInteger),
    Column("changed", BigInteger, nullable=False),
    Column("simulated", Boolean, nullable=False),
)

# Averages over `step` seconds from `at` (milliseconds) on, of `highs` and `lows` single changes; step 0: one change.
points = Table(
    "price_points",
    metadata,
    Column("item_id", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("high", BigInteger),
    Column("highs", Integer, nullable=False),
    Column("low", BigInteger),
    Column("lows", Integer, nullable=False),
    Index("price_points_by_age", "step", "at"),
    sqlite_with_rowid=False,
)
