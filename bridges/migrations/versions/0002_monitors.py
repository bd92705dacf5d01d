"""Monitors: tenants and their users, monitors with their checks, alert rules, incidents, and the worker's own."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _number() -> sa.Column[Any]:
    return sa.Column("id", _NUMBER, primary_key=True, autoincrement=True)


def _tenant() -> sa.Column[Any]:
    return sa.Column("tenant_id", _NUMBER, sa.ForeignKey("monitor_tenants.id", ondelete="CASCADE"), nullable=False)


def _monitor(*, nullable: bool) -> sa.Column[Any]:
    return sa.Column("monitor_id", sa.String(24), sa.ForeignKey("monitors.id", ondelete="CASCADE"), nullable=nullable)


def upgrade() -> None:
    """Make the tables."""
    _make_accounts()
    _make_monitors()
    _make_alerts()
    _make_worker()


def _make_accounts() -> None:
    op.create_table(
        "monitor_tenants",
        _number(),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "monitor_users",
        _number(),
        _tenant(),
        sa.Column("email", sa.String(254), nullable=False, unique=True),
        sa.Column("password", sa.String(200), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("monitor_users_by_tenant", "monitor_users", ["tenant_id"])
    op.create_table(
        "monitor_keys",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.LargeBinary(), nullable=False),
    )


def _make_monitors() -> None:
    op.create_table(
        "monitors",
        sa.Column("id", sa.String(24), primary_key=True),
        _tenant(),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("url", sa.String(2000), nullable=False),
        sa.Column("host", sa.String(254), nullable=False),
        sa.Column("interval_seconds", sa.Integer(), nullable=False),
        sa.Column("timeout_seconds", sa.Float(), nullable=False),
        sa.Column("expected_status", sa.Integer()),
        sa.Column("check_ssl", sa.Boolean(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("success", sa.Boolean()),
        sa.Column("latest", sa.Text()),
        sa.Column("checked", sa.Float()),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("changed", sa.Float(), nullable=False),
    )
    op.create_index("monitors_by_tenant", "monitors", ["tenant_id", "created"])
    op.create_index("monitors_by_enabled", "monitors", ["enabled"])
    op.create_table(
        "monitor_checks",
        _number(),
        sa.Column("tenant_id", _NUMBER, nullable=False),
        _monitor(nullable=False),
        sa.Column("checked", sa.Float(), nullable=False),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("status_code", sa.Integer()),
        sa.Column("response_time_ms", sa.Integer()),
        sa.Column("error_message", sa.String(500)),
        sa.Column("ssl_valid", sa.Boolean()),
        sa.Column("ssl_expires", sa.Float()),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("monitor_checks_by_monitor", "monitor_checks", ["monitor_id", "id"])


def _make_alerts() -> None:
    op.create_table(
        "alert_rules",
        sa.Column("id", sa.String(24), primary_key=True),
        _tenant(),
        _monitor(nullable=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("trigger_type", sa.String(20), nullable=False),
        sa.Column("threshold_value", sa.Integer(), nullable=False),
        sa.Column("breaches", sa.Integer(), nullable=False),
        sa.Column("window", sa.Integer(), nullable=False),
        sa.Column("recoveries", sa.Integer(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
    )
    op.create_index("alert_rules_by_tenant", "alert_rules", ["tenant_id", "created"])
    op.create_table(
        "incidents",
        _number(),
        _tenant(),
        sa.Column("monitor_id", sa.String(24), nullable=False),
        sa.Column("monitor_name", sa.String(200), nullable=False),
        sa.Column("alert_rule_id", sa.String(24), nullable=False),
        sa.Column("rule_name", sa.String(200), nullable=False),
        sa.Column("trigger_value", sa.String(700), nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("turn", _NUMBER, nullable=False),
        sa.Column("started", sa.Float(), nullable=False),
        sa.Column("resolved", sa.Float()),
        sqlite_autoincrement=True,
    )
    op.create_index("incidents_by_tenant", "incidents", ["tenant_id", "id"])
    op.create_index("incidents_by_monitor", "incidents", ["monitor_id", "alert_rule_id", "id"])
    is_open = sa.text("status = 'open'")
    columns = ["monitor_id", "alert_rule_id"]
    op.create_index("incidents_open", "incidents", columns, unique=True, sqlite_where=is_open, postgresql_where=is_open)


def _make_worker() -> None:
    op.create_table(
        "monitor_outgoing",
        _number(),
        sa.Column("key", sa.String(32), nullable=False),
        sa.Column("type", sa.String(20), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "monitor_workers",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("seen", sa.Float(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
    )
