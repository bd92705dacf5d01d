"""Jobs: progress is any number, and what the last update said of its own time stands apart from what was told."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Change the table."""
    with op.batch_alter_table("jobs") as jobs:
        jobs.alter_column("progress", type_=sa.Float(), existing_type=sa.Integer(), existing_nullable=False)
        jobs.add_column(sa.Column("said", sa.Float()))
