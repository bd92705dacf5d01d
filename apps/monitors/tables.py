"""The tables of `monitors`. Owns their form; bridges/migrations/versions/0002_monitors.py and 0009 make them.

Times are unix seconds. What belongs to a tenant carries the tenant's number, so that every statement can name it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    false,
)

from bridges.database import metadata

_NUMBER = BigInteger().with_variant(Integer(), "sqlite")

tenants = Table(
    "monitor_tenants",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("name", String(200), nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("created", Float, nullable=False),
    sqlite_autoincrement=True,
)

users = Table(
    "monitor_users",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("tenant_id", _NUMBER, ForeignKey("monitor_tenants.id", ondelete="CASCADE"), nullable=False),
    Column("email", String(254), nullable=False, unique=True),
    Column("password", String(200), nullable=False),
    Column("created", Float, nullable=False),
    Index("monitor_users_by_tenant", "tenant_id"),
    sqlite_autoincrement=True,
)

# What the application keeps to itself: the key of its tokens in development mode.
keys = Table(
    "monitor_keys",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

# `latest` is what the last check found, as its event says it, made at `checked`; `success` is of it.
monitors = Table(
    "monitors",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("tenant_id", _NUMBER, ForeignKey("monitor_tenants.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(200), nullable=False),
    Column("url", String(2000), nullable=False),
    Column("host", String(254), nullable=False),
    Column("interval_seconds", Integer, nullable=False),
    Column("timeout_seconds", Float, nullable=False),
    Column("expected_status", Integer),
    Column("check_ssl", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("success", Boolean),
    Column("latest", Text),
    Column("checked", Float),
    Column("created", Float, nullable=False),
    Column("changed", Float, nullable=False),
    Index("monitors_by_tenant", "tenant_id", "created"),
    Index("monitors_by_enabled", "enabled"),
)

checks = Table(
    "monitor_checks",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("tenant_id", _NUMBER, nullable=False),
    Column("monitor_id", String(24), ForeignKey("monitors.id", ondelete="CASCADE"), nullable=False),
    Column("checked", Float, nullable=False),
    Column("success", Boolean, nullable=False),
    Column("status_code", Integer),
    Column("response_time_ms", Integer),
    Column("error_message", String(500)),
    Column("ssl_valid", Boolean),
    Column("ssl_expires", Float),
    Column("simulated", Boolean, nullable=False),
    Index("monitor_checks_by_monitor", "monitor_id", "id"),
    sqlite_autoincrement=True,
)

rules = Table(
    "alert_rules",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("tenant_id", _NUMBER, ForeignKey("monitor_tenants.id", ondelete="CASCADE"), nullable=False),
    Column("monitor_id", String(24), ForeignKey("monitors.id", ondelete="CASCADE")),
    Column("name", String(200), nullable=False),
    Column("trigger_type", String(20), nullable=False),
    Column("threshold_value", Integer, nullable=False),
    Column("breaches", Integer, nullable=False),
    Column("window", Integer, nullable=False),
    Column("recoveries", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created", Float, nullable=False),
    Index("alert_rules_by_tenant", "tenant_id", "created"),
)

# They outlive their rule and their monitor. `turn` is the check after which the next turn is looked for: that of the
# opening while it is open, then that of the resolution.
incidents = Table(
    "incidents",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("tenant_id", _NUMBER, ForeignKey("monitor_tenants.id", ondelete="CASCADE"), nullable=False),
    Column("monitor_id", String(24), nullable=False),
    Column("monitor_name", String(200), nullable=False),
    Column("alert_rule_id", String(24), nullable=False),
    Column("rule_name", String(200), nullable=False),
    Column("trigger_value", String(700), nullable=False),
    Column("status", String(10), nullable=False),
    Column("turn", _NUMBER, nullable=False),
    Column("started", Float, nullable=False),
    Column("resolved", Float),
    Index("incidents_by_tenant", "tenant_id", "id"),
    Index("incidents_by_monitor", "monitor_id", "alert_rule_id", "id"),
    sqlite_autoincrement=True,
)
# Never two open ones of a rule and a monitor, whoever writes.
Index(
    "incidents_open",
    incidents.c.monitor_id,
    incidents.c.alert_rule_id,
    unique=True,
    sqlite_where=incidents.c.status == "open",
    postgresql_where=incidents.c.status == "open",
)

# What is yet to be told, in order. `key` is the idempotency key of the sending; `by_node` is false for the worker's.
outgoing = Table(
    "monitor_outgoing",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("key", String(32), nullable=False),
    Column("type", String(20), nullable=False),
    Column("body", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("tenant_id", _NUMBER, nullable=False, server_default="0"),
    Column("by_node", Boolean, nullable=False, server_default=false()),
    Index("monitor_outgoing_by_tenant", "tenant_id", "id"),
    Index("monitor_outgoing_by_node", "by_node", "id"),
    sqlite_autoincrement=True,
)

# What workers say of themselves.
workers = Table(
    "monitor_workers",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("seen", Float, nullable=False),
    Column("facts", Text, nullable=False),
)
