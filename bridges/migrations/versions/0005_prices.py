"""Prices: one row for each item, and the points of its history."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "price_items",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(200)),
        sa.Column("high", sa.BigInteger()),
        sa.Column("low", sa.BigInteger()),
        sa.Column("high_time", sa.BigInteger()),
        sa.Column("low_time", sa.BigInteger()),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "price_points",
        sa.Column("item_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("step", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("high", sa.BigInteger()),
        sa.Column("highs", sa.Integer(), nullable=False),
        sa.Column("low", sa.BigInteger()),
        sa.Column("lows", sa.Integer(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("price_points_by_age", "price_points", ["step", "at"])
