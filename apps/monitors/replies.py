"""What the endpoints of `monitors` answer, as the API's description shows it.

Owns the form of answers, and nothing that makes them. `simulated` is there for what is made up.
"""

from __future__ import annotations

from typing import Literal

from apps.monitors.model import Trigger
from handlers.endpoints import Answer


class Paged(Answer):
    """A part of what there is."""

    limit: int
    offset: int


# --- monitors


class LastCheck(Answer):
    """What a check found, as its event says it: what is not known is left out."""

    monitor_id: str
    monitor_name: str
    success: bool
    status_code: int | None = None
    response_time_ms: int | None = None
    error_message: str | None = None
    ssl_valid: bool | None = None
    ssl_expires_at: str | None = None
    checked_at: str
    simulated: bool = False


class LastChecks(Paged):
    """The last check of each monitor that has one."""

    checks: list[LastCheck]


class PastCheck(Answer):
    """A check of a monitor's history."""

    id: int
    monitor_id: str
    success: bool
    status_code: int | None
    response_time_ms: int | None
    error_message: str | None
    ssl_valid: bool | None
    ssl_expires_at: str | None
    checked_at: str
    simulated: bool = False


class PastChecks(Paged):
    """A monitor's history."""

    checks: list[PastCheck]


class Monitor(Answer):
    """A monitor, and how it stands."""

    id: str
    name: str
    url: str
    interval_seconds: int
    timeout_seconds: float
    expected_status: int | None
    check_ssl: bool
    enabled: bool
    status: Literal["up", "down", "unknown", "paused"]
    last_check: LastCheck | None
    created_at: str
    updated_at: str
    simulated: bool = False


class Monitors(Paged):
    """A tenant's monitors."""

    monitors: list[Monitor]
    total: int


class MonitorSummary(Answer):
    """How many monitors stand how, open incidents, and the tenant's streams on this node."""

    monitors: int
    up: int
    down: int
    unknown: int
    paused: int
    open_incidents: int
    streams: int


# --- alert rules and incidents


class AlertRule(Answer):
    """An alert rule."""

    id: str
    name: str
    monitor_id: str | None
    trigger_type: Trigger
    threshold_value: int
    breaches: int
    window: int
    recoveries: int
    enabled: bool
    created_at: str


class AlertRules(Paged):
    """A tenant's alert rules."""

    alert_rules: list[AlertRule]


class Incident(Answer):
    """An incident, with the names that its monitor and its rule had when it opened."""

    id: int
    monitor_id: str
    monitor_name: str
    alert_rule_id: str
    rule_name: str
    trigger_value: str
    status: Literal["open", "resolved"]
    started_at: str
    resolved_at: str | None


class Incidents(Paged):
    """A tenant's incidents."""

    incidents: list[Incident]


class Broadcasted(Answer):
    """The event's id, and how many streams of its tenant this node holds."""

    message: str
    clients: int
    id: str


# --- accounts


class Demo(Answer):
    """How one signs in as the demo's user."""

    email: str
    password: str


class SignInOptions(Answer):
    """Whether there are accounts here, and whether one may register; whether a worker is there; what an interval must
    at least be."""

    accounts: bool
    registration: bool
    demo: Demo | None
    worker: bool
    min_interval_seconds: int


class User(Answer):
    """A user."""

    id: int
    email: str
    created_at: str


class Users(Paged):
    """A tenant's users."""

    users: list[User]


class AddedUser(Answer):
    """A user who is new."""

    id: int
    email: str


class Tenant(Answer):
    """A tenant."""

    id: int
    name: str


class SignedIn(Answer):
    """A token, until when it holds, and whose it is."""

    token: str
    expires_at: str
    user: User
    tenant: Tenant
