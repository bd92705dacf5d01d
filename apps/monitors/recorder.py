"""Recording: what a check found goes into the history, and what follows from it is said.

Owns the one transaction of a check: the check itself, the monitor's state, incidents that open or are resolved by it,
and the events of all of these, by `say`: into the queue (outgoing.py), the worker's part or, if it is simulated, the
nodes'.

Invariants: nothing is said of what was not stored, and nothing stored is not said; a monitor's checks are recorded one
after the other, whoever records; of a monitor that is gone or paused nothing is recorded; a check whose recording was
in doubt and is tried again is recorded once.
Cost: six statements or so, one transaction; the history of a monitor holds `keep` checks and less than `TRIM_EVERY`
more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import ujson
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from apps.monitors.alerts import Rule, opens, resolves
from apps.monitors.incidents import resolution
from apps.monitors.model import CHECK, CREATED, MAX_WINDOW, Outcome, Said
from apps.monitors.tables import checks, incidents, monitors, rules
from apps.monitors.tenancy import hold_tenant
from bridges.database import Database

TRIM_EVERY = 20
MAX_COUNTED = 100_000

Say = Callable[[AsyncConnection, Sequence[Said]], Awaitable[None]]


class Recorder:
    """See the module's head."""

    def __init__(self, database: Database, say: Say, keep: int) -> None:
        self._database = database
        self._say = say
        self._keep = keep
        self._since_trim: dict[str, int] = {}  # by monitor: by the checks' numbers some would never have their turn

    async def record(self, monitor_id: str, outcome: Outcome) -> bool:
        """Store what a check of a monitor found; False if nobody wants to know any more. Raises DatabaseUnavailable."""
        async with self._database.writing() as connection:
            row = await self._update(connection, monitor_id, outcome)
            if row is None:
                return False
            check = await self._insert(connection, row.tenant_id, monitor_id, outcome)
            said = [Said(row.tenant_id, CHECK, said_of(monitor_id, row.name, outcome))]
            said += await self._judge(connection, row, check)
            await self._say(connection, said)
            if self._is_to_trim(monitor_id):
                await self._trim(connection, monitor_id)
        return True

    @staticmethod
    async def _update(connection: AsyncConnection, monitor_id: str, outcome: Outcome) -> Any:
        """The monitor, whose tenant is held from here on; None if it is gone or paused, or has this check already."""
        news = monitors.c.checked.is_distinct_from(outcome.checked)
        asked = (monitors.c.id == monitor_id) & monitors.c.enabled & news
        tenant = (await connection.execute(select(monitors.c.tenant_id).where(asked))).scalar()
        if tenant is None:
            return None
        await hold_tenant(connection, tenant)
        name = (await connection.execute(select(monitors.c.name).where(asked))).scalar()
        if name is None:
            return None
        latest = ujson.dumps(said_of(monitor_id, name, outcome), ensure_ascii=False, escape_forward_slashes=False)
        values = {"latest": latest, "checked": outcome.checked, "success": outcome.success}
        columns = (monitors.c.id, monitors.c.tenant_id, monitors.c.name)
        done = await connection.execute(update(monitors).where(asked).values(values).returning(*columns))
        return done.one_or_none()

    @staticmethod
    async def _insert(connection: AsyncConnection, tenant: int, monitor_id: str, outcome: Outcome) -> int:
        values = {
            "tenant_id": tenant,
            "monitor_id": monitor_id,
            "checked": outcome.checked,
            "success": outcome.success,
            "status_code": outcome.status_code,
            "response_time_ms": outcome.response_time_ms,
            "error_message": outcome.error_message,
            "ssl_valid": outcome.ssl_valid,
            "ssl_expires": outcome.ssl_expires,
            "simulated": outcome.simulated,
        }
        number: int = (await connection.execute(insert(checks).values(values).returning(checks.c.id))).scalar_one()
        return number

    # --- alerts

    async def _judge(self, connection: AsyncConnection, monitor: Any, check: int) -> Sequence[Said]:
        """Open and resolve incidents; what is to be told of them."""
        mine = (rules.c.monitor_id == monitor.id) | rules.c.monitor_id.is_(None)
        # None goes meanwhile, or an incident could open for a rule that is no more: the tenant is held.
        query = select(rules).where(rules.c.tenant_id == monitor.tenant_id, rules.c.enabled, mine)
        found = (await connection.execute(query.order_by(rules.c.created, rules.c.id))).all()
        if not found:
            return []
        last = await self._last_incidents(connection, monitor.id)
        recent = select(checks).where(checks.c.monitor_id == monitor.id).order_by(checks.c.id.desc()).limit(MAX_WINDOW)
        latest = [(row.id, _outcome(row)) for row in await connection.execute(recent)]
        said: list[Said] = []
        for row in found:
            incident = last.get(row.id)
            since = [outcome for number, outcome in latest if incident is None or number > incident.turn]
            said += await self._turn(connection, monitor, check, _rule(row), incident, since)
        return said

    @staticmethod
    async def _last_incidents(connection: AsyncConnection, monitor_id: str) -> Mapping[str, Any]:
        """The last incident of each rule."""
        last = select(func.max(incidents.c.id)).where(incidents.c.monitor_id == monitor_id)
        query = select(incidents).where(incidents.c.id.in_(last.group_by(incidents.c.alert_rule_id)))
        return {row.alert_rule_id: row for row in await connection.execute(query)}

    async def _turn(
        self, connection: AsyncConnection, monitor: Any, check: int, rule: Rule, incident: Any, since: Sequence[Outcome]
    ) -> Sequence[Said]:
        """Open or resolve an incident, if it is time; `since` are the checks after its last turn."""
        if incident is not None and incident.status == "open":
            if not resolves(rule, since):
                return []
            values = {"status": "resolved", "resolved": since[0].checked, "turn": check}
            await connection.execute(update(incidents).where(incidents.c.id == incident.id).values(values))
            return [_marked(resolution(incident), since[0])]
        trigger = opens(rule, since)
        if trigger is None:
            return []
        facts = {
            "monitor_id": monitor.id,
            "alert_rule_id": rule.id,
            "rule_name": rule.name,
            "trigger_value": trigger,
            "status": "open",
        }
        also = {
            "tenant_id": monitor.tenant_id,
            "monitor_name": monitor.name,
            "turn": check,
            "started": since[0].checked,
        }
        await connection.execute(insert(incidents).values(facts | also))
        return [_marked(Said(monitor.tenant_id, CREATED, facts), since[0])]

    def _is_to_trim(self, monitor_id: str) -> bool:
        """True for a monitor's first check here, and for every so many after it."""
        count = self._since_trim.get(monitor_id, TRIM_EVERY) + 1
        due = count > TRIM_EVERY
        if len(self._since_trim) >= MAX_COUNTED:  # most of them are gone
            self._since_trim.clear()
        self._since_trim[monitor_id] = 1 if due else count
        return due

    async def _trim(self, connection: AsyncConnection, monitor_id: str) -> None:
        """Forget the oldest checks."""
        mine = checks.c.monitor_id == monitor_id
        oldest = select(checks.c.id).where(mine).order_by(checks.c.id.desc()).offset(self._keep).limit(1)
        await connection.execute(delete(checks).where(mine, checks.c.id <= oldest.scalar_subquery()))


def said_of(monitor_id: str, name: str, outcome: Outcome) -> dict[str, Any]:
    """The data of `monitor_check`."""
    return {"monitor_id": monitor_id, "monitor_name": name} | outcome.facts()


def _marked(said: Said, outcome: Outcome) -> Said:
    """As it is, or marked as following from a simulated check."""
    return said._replace(data={**said.data, "simulated": True}) if outcome.simulated else said


def _rule(row: Any) -> Rule:
    return Rule(row.id, row.name, row.trigger_type, row.threshold_value, row.breaches, row.window, row.recoveries)


def _outcome(row: Any) -> Outcome:
    return Outcome(
        row.checked,
        row.success,
        row.status_code,
        row.response_time_ms,
        row.error_message,
        row.ssl_valid,
        row.ssl_expires,
        row.simulated,
    )
