"""Jobs: where in the log their end stands. Of those that ended before, nobody knows: their end is told once more to the
next that watches."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Change the table."""
    op.add_column("jobs", sa.Column("told", sa.String(64)))
