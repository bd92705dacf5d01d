"""Alerts: when a rule's incident opens and when it is resolved. Pure.

Owns the rules against flapping: some of several checks have to break a rule before an incident opens (N of M), several
good ones in a row have to come before it is resolved, and for response times there is a band below the threshold that
counts as neither. Only checks after the last turn count, so what opened an incident can't open the next one too.
Must never know of databases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import floor

from apps.monitors.model import Outcome

DAY_SECONDS = 86_400
GOOD_SHARE = 0.9  # of the threshold of response times: below it a check is good again


@dataclass(frozen=True, slots=True)
class Rule:
    """An alert rule."""

    id: str
    name: str
    trigger_type: str
    threshold_value: int
    breaches: int
    window: int
    recoveries: int


def judged(rule: Rule, check: Outcome) -> bool | None:
    """True if the check breaks the rule, False if it is good, None if it says nothing of it."""
    if rule.trigger_type == "down":
        return not check.success
    if rule.trigger_type == "slow_response":
        if not check.success or check.response_time_ms is None:
            return None
        if check.response_time_ms > rule.threshold_value:
            return True
        return False if check.response_time_ms <= rule.threshold_value * GOOD_SHARE else None
    return None if check.ssl_expires is None else _days_left(check) <= rule.threshold_value


def opens(rule: Rule, checks: Sequence[Outcome]) -> str | None:
    """What triggers an incident, if one opens now. `checks` are those since the last incident was resolved, the newest
    first."""
    latest = [verdict for verdict in (judged(rule, check) for check in checks) if verdict is not None][: rule.window]
    if not checks or judged(rule, checks[0]) is not True or sum(latest) < rule.breaches:
        return None
    return trigger_value(rule, checks[0])


def resolves(rule: Rule, checks: Sequence[Outcome]) -> bool:
    """True if the open incident is over. `checks` are those since it opened, the newest first."""
    latest = [verdict for verdict in (judged(rule, check) for check in checks) if verdict is not None]
    return len(latest) >= rule.recoveries and not any(latest[: rule.recoveries])


def trigger_value(rule: Rule, check: Outcome) -> str:
    """What broke the rule, for people."""
    if rule.trigger_type == "down":
        return f"Monitor is down: {check.error_message}" if check.error_message else "Monitor is down"
    if rule.trigger_type == "slow_response":
        return f"Response time: {check.response_time_ms}ms (threshold: {rule.threshold_value}ms)"
    day = datetime.fromtimestamp(check.ssl_expires or 0.0, UTC).date()
    days = floor(_days_left(check))
    if days < 0:
        return f"SSL certificate has expired (on {day})"
    return f"SSL certificate expires in {days} {'day' if days == 1 else 'days'} (on {day})"


def _days_left(check: Outcome) -> float:
    return ((check.ssl_expires or 0.0) - check.checked) / DAY_SECONDS
