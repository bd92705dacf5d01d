"""Monitors: what nodes change waits in one queue with what the worker finds, by tenant. What is written by a worker of
before has no tenant, and is sent as it was."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Change the table."""
    op.add_column("monitor_outgoing", sa.Column("tenant_id", _NUMBER, nullable=False, server_default="0"))
    op.add_column("monitor_outgoing", sa.Column("by_node", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index("monitor_outgoing_by_tenant", "monitor_outgoing", ["tenant_id", "id"])
    op.create_index("monitor_outgoing_by_node", "monitor_outgoing", ["by_node", "id"])
    rows = sa.table("monitor_outgoing", sa.column("id"), sa.column("body"), sa.column("tenant_id"))
    connection = op.get_bind()
    for row in connection.execute(sa.select(rows.c.id, rows.c.body)).all():
        tenant = json.loads(row.body)["tenant_id"]
        connection.execute(sa.update(rows).where(rows.c.id == row.id).values(tenant_id=tenant))
