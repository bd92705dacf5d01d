"""Monitors, alert rules, checks and incidents: what is valid, and how it is said. Pure.

Owns the bodies that come in, and the form of the events (M4): `data:` holds an object with `type`, `data` and
`tenant_id`, as the clients of the seed read it. Must never know of databases, requests or sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

import ujson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from apps.moments import written
from handlers.endpoints import Body, Page, Query, Safe
from handlers.fields import MAX_LAST
from server.event import Event

CHECK, CREATED, RESOLVED = "monitor_check", "incident_created", "incident_resolved"
MAX_WINDOW = 50
MAX_TENANT = 2**53
_ID = r"^[0-9a-f]{24}$"


def _check_moment(value: str) -> str:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("must be a time such as 2026-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError("must have a time zone")
    return value


Moment = Annotated[str, StringConstraints(max_length=40), AfterValidator(_check_moment)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200), Safe]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2_000), Safe]
Id = Annotated[str, StringConstraints(pattern=_ID)]
Whole = Annotated[int, Field(strict=True)]
Interval = Annotated[Whole, Field(ge=1, le=86_400)]
Flag = Annotated[bool, Field(strict=True)]
Timeout = Annotated[float, Field(ge=1, le=10, strict=True)]
Status = Annotated[Whole, Field(ge=100, le=599)]
Few = Annotated[Whole, Field(ge=1, le=MAX_WINDOW)]
Threshold = Annotated[Whole, Field(ge=0, le=1_000_000)]
Trigger = Literal["down", "slow_response", "ssl_expiry"]


class NewMonitor(Body):
    """A monitor. Without `expected_status` any answer from 200 to 399 is a good one."""

    name: Name
    url: Url
    interval_seconds: Interval = 60
    timeout_seconds: Timeout = 10.0
    expected_status: Status | None = None
    check_ssl: Flag = True
    enabled: Flag = True


class MonitorChange(NewMonitor):
    """Fields that change; the others stay."""

    name: Name = ""
    url: Url = ""


class NewRule(Body):
    """An alert rule: an incident opens when at least `breaches` of the last `window` checks break it, the newest one
    among them, and is resolved after `recoveries` good checks in a row. Without `monitor_id` it is for all monitors of
    the tenant. `threshold_value`: milliseconds for `slow_response`, days for `ssl_expiry`, nothing for `down`."""

    name: Name
    trigger_type: Trigger
    threshold_value: Threshold = 0
    monitor_id: Id | None = None
    breaches: Few = 3
    window: Few = 3
    recoveries: Few = 2
    enabled: Flag = True

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """One look at a certificate is enough to know its end; the window is as long as it has to be. Several good
        ones in a row are still needed, for of several machines behind a name one may have the old certificate."""
        if isinstance(values, dict):
            if values.get("trigger_type") == "ssl_expiry":
                values = {"breaches": 1} | values
            breaches = values.get("breaches", 3)
            values = {"window": breaches if isinstance(breaches, int) else 3} | values
        return values


class RuleChange(Body):
    """Fields that change; the others stay."""

    name: Name = ""
    threshold_value: Threshold = 0
    breaches: Few = 3
    window: Few = 3
    recoveries: Few = 2
    enabled: Flag = True


def rule_problem(trigger_type: str, threshold_value: int, breaches: int, window: int) -> tuple[str, str] | None:
    """The field and the reason, if a rule's values do not go together."""
    if trigger_type == "down" and threshold_value:
        return "threshold_value", "must be left out: a monitor is down or it is not"
    if trigger_type != "down" and not threshold_value:
        return "threshold_value", "must be more than 0"
    if window < breaches:
        return "window", "must be at least as many checks as breaches"
    return None


class RuleList(Page):
    """Which alert rules to list."""

    monitor_id: Id | None = None


class IncidentList(Page):
    """Which incidents to list."""

    status: Literal["open", "resolved"] | None = None
    monitor_id: Id | None = None


class StreamQuery(Query):
    """Parameters of the stream, beside the token and the cursor."""

    token: str | None = Field(None, description="The token, for clients that can't send a header.")
    types: str | None = Field(None, description="Only events of these types, with commas between them.")
    last: Annotated[int, Field(ge=1, le=MAX_LAST)] | None = Field(
        None, description="Begin with the last so many events."
    )


# --- what the worker reports


class Facts(BaseModel):
    """The `data` of an event, as it comes from the worker."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    monitor_id: Name
    simulated: Flag | None = None


class CheckFacts(Facts):
    """The `data` of `monitor_check`. The seed's own example has the id alone, so everything else may be left out."""

    monitor_name: Name | None = None
    success: Flag | None = None
    status_code: Status | None = None
    response_time_ms: Annotated[Whole, Field(ge=0, le=10**9)] | None = None
    error_message: Annotated[str, StringConstraints(max_length=500), Safe] | None = None
    ssl_valid: Flag | None = None
    ssl_expires_at: Moment | None = None
    checked_at: Moment | None = None


class CreatedFacts(Facts):
    """The `data` of `incident_created`."""

    alert_rule_id: Name
    rule_name: Name
    trigger_value: Annotated[str, StringConstraints(max_length=500), Safe]
    status: Literal["open"] = "open"


class ResolvedFacts(Facts):
    """The `data` of `incident_resolved`."""

    alert_rule_id: Name
    rule_name: Name
    status: Literal["resolved"] = "resolved"


class Broadcast(Body):
    """What the worker sends: `data` as its type has it (see FACTS)."""

    type: Literal["monitor_check", "incident_created", "incident_resolved"]
    data: dict[str, Any]
    tenant_id: Annotated[Whole, Field(ge=1, le=MAX_TENANT)]


FACTS: Mapping[str, type[Facts]] = {CHECK: CheckFacts, CREATED: CreatedFacts, RESOLVED: ResolvedFacts}


# --- what is said


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check found. Times are unix seconds."""

    checked: float
    success: bool
    status_code: int | None = None
    response_time_ms: int | None = None
    error_message: str | None = None
    ssl_valid: bool | None = None
    ssl_expires: float | None = None
    simulated: bool = False

    def facts(self) -> dict[str, Any]:
        """In the words of the seed; what is not known is left out."""
        facts = {
            "success": self.success,
            "status_code": self.status_code,
            "response_time_ms": self.response_time_ms,
            "error_message": self.error_message,
            "ssl_valid": self.ssl_valid,
            "ssl_expires_at": None if self.ssl_expires is None else written(self.ssl_expires),
            "checked_at": written(self.checked),
            "simulated": self.simulated or None,
        }
        return {name: value for name, value in facts.items() if value is not None}


class Said(NamedTuple):
    """Something that is told to a tenant."""

    tenant: int
    type: str
    data: Mapping[str, Any]

    def body(self) -> str:
        """What `data:` holds, and what the worker sends."""
        value = {"type": self.type, "data": self.data, "tenant_id": self.tenant}
        return ujson.dumps(value, ensure_ascii=False, escape_forward_slashes=False)

    def event(self) -> Event:
        """As an event that nobody but the tenant can read."""
        return Event((topic_of(self.tenant),), self.body(), self.type, private=True)


def topic_of(tenant: int) -> str:
    """The topic of all that is a tenant's."""
    return f"tenants/{tenant}"
