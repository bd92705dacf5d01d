"""Jobs: one row each, and the workers that were heard of."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(256), nullable=False),
        sa.Column("wanted", sa.Text(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(100), nullable=False),
        sa.Column("message", sa.String(1000), nullable=False),
        sa.Column("timestamp", sa.String(32), nullable=False),
        sa.Column("data", sa.Text()),
        sa.Column("worker", sa.String(100)),
        sa.Column("claimed", sa.Float()),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("changed", sa.Float(), nullable=False),
    )
    op.create_index("jobs_by_owner", "jobs", ["owner", "created"])
    op.create_index("jobs_by_status", "jobs", ["status", "created"])
    op.create_table(
        "job_workers",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("seen", sa.Float(), nullable=False),
    )
