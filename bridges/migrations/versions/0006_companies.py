"""Companies: whether each streams, and what nodes hold of each."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "companies",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("streaming", sa.Boolean(), nullable=False),
        sa.Column("changed", sa.Float(), nullable=False, server_default="0"),
    )
    op.create_table(
        "company_nodes",
        sa.Column("node", sa.String(128), primary_key=True),
        sa.Column("streams", sa.Text(), nullable=False),
        sa.Column("until", sa.Float(), nullable=False),
    )
