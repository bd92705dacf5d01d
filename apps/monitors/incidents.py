"""Alert rules and incidents in the database, as their tenants see them.

Owns these statements; each names the tenant. A rule that goes takes its open incidents along: they are resolved, and
their tenant is told, behind all that was found before (outgoing.py). Must never decide when an incident opens
(alerts.py does).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from apps.moments import written
from apps.monitors.model import RESOLVED, NewRule, Said, rule_problem
from apps.monitors.outgoing import Outgoing
from apps.monitors.tables import checks, incidents, monitors, rules
from apps.monitors.tenancy import TooMany, hold_tenant
from bridges.database import Database

RULE_FIELDS = (
    "name", "monitor_id", "trigger_type", "threshold_value", "breaches", "window", "recoveries", "enabled",
)  # fmt: skip


class NoMonitor(Exception):
    """The tenant has no such monitor."""


class NotTogether(Exception):
    """The values of a rule do not go together."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


async def resolve_open(connection: AsyncConnection, condition: Any, now: float) -> Sequence[Said]:
    """Resolve open incidents, whatever their checks say; what is to be told of them. Checks until now don't count for
    the next one."""
    last = select(func.max(checks.c.id)).where(checks.c.monitor_id == incidents.c.monitor_id).scalar_subquery()
    query = (
        update(incidents)
        .where(incidents.c.status == "open", condition)
        .values(status="resolved", resolved=now, turn=func.coalesce(last, incidents.c.turn))
        .returning(incidents)
    )
    return [resolution(row) for row in (await connection.execute(query)).all()]


def resolution(row: Any) -> Said:
    """What is told when an incident is resolved."""
    facts = {
        "monitor_id": row.monitor_id,
        "alert_rule_id": row.alert_rule_id,
        "rule_name": row.rule_name,
        "status": "resolved",
    }
    return Said(row.tenant_id, RESOLVED, facts)


class IncidentStore:
    """`queue` is where a tenant's events go."""

    def __init__(self, database: Database, queue: Outgoing) -> None:
        self._database = database
        self._queue = queue

    async def create_rule(self, tenant: int, new: NewRule, most: int) -> dict[str, Any]:
        """A new rule. Raises NoMonitor, NoTenant, NotTogether, TooMany if the tenant has `most` of them, and
        DatabaseUnavailable (as all of these)."""
        values = new.model_dump() | {"id": secrets.token_hex(12), "tenant_id": tenant, "created": time.time()}
        _check(values)
        async with self._database.writing() as connection:
            await hold_tenant(connection, tenant)
            if new.monitor_id is not None:
                mine = select(monitors.c.id).where(monitors.c.id == new.monitor_id, monitors.c.tenant_id == tenant)
                if (await connection.execute(mine)).scalar() is None:
                    raise NoMonitor
            count = select(func.count()).where(rules.c.tenant_id == tenant)
            if ((await connection.execute(count)).scalar() or 0) >= most:
                raise TooMany("name", f"at most {most} alert rules")
            await connection.execute(insert(rules).values(values))
            await self._queue.put(connection, [_told(tenant, "alert_rule_created", values)])
        self._queue.wake()
        return {name: values[name] for name in ("id", *RULE_FIELDS)} | {"created_at": written(values["created"])}

    async def change_rule(self, tenant: int, rule_id: str, fields: Mapping[str, Any]) -> dict[str, Any] | None:
        """Change some fields; how the rule is then, None if there is no such one. Raises NotTogether, NoTenant."""
        async with self._database.writing() as connection:
            await hold_tenant(connection, tenant)
            mine = (rules.c.id == rule_id) & (rules.c.tenant_id == tenant)
            changed = await connection.execute(update(rules).where(mine).values(dict(fields)).returning(rules))
            row = changed.one_or_none()
            if row is None:
                return None
            _check(row._mapping)
            said = [] if row.enabled else await self._resolved(connection, rule_id)
            await self._queue.put(connection, [*said, _told(tenant, "alert_rule_updated", row._mapping)])
        self._queue.wake()
        return _rule(row)

    async def delete_rule(self, tenant: int, rule_id: str) -> bool:
        """Forget a rule; False if there is no such one. Raises NoTenant."""
        async with self._database.writing() as connection:
            await hold_tenant(connection, tenant)
            mine = (rules.c.id == rule_id) & (rules.c.tenant_id == tenant)
            if not (await connection.execute(delete(rules).where(mine))).rowcount:
                return False
            deleted = Said(tenant, "alert_rule_deleted", {"alert_rule_id": rule_id})
            await self._queue.put(connection, [*await self._resolved(connection, rule_id), deleted])
        self._queue.wake()
        return True

    @staticmethod
    async def _resolved(connection: AsyncConnection, rule_id: str) -> Sequence[Said]:
        return await resolve_open(connection, incidents.c.alert_rule_id == rule_id, time.time())

    # --- looking

    async def rule(self, tenant: int, rule_id: str) -> dict[str, Any] | None:
        """One rule."""
        query = select(rules).where(rules.c.id == rule_id, rules.c.tenant_id == tenant)
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _rule(row)

    async def rules(self, tenant: int, monitor_id: str | None, limit: int, offset: int) -> Sequence[dict[str, Any]]:
        """The rules of a tenant, the oldest first; or those that hold for one monitor."""
        query = select(rules).where(rules.c.tenant_id == tenant).order_by(rules.c.created, rules.c.id)
        if monitor_id is not None:
            query = query.where((rules.c.monitor_id == monitor_id) | rules.c.monitor_id.is_(None))
        async with self._database.reading() as connection:
            return [_rule(row) for row in await connection.execute(query.limit(limit).offset(offset))]

    async def incident(self, tenant: int, incident_id: int) -> dict[str, Any] | None:
        """One incident."""
        query = select(incidents).where(incidents.c.id == incident_id, incidents.c.tenant_id == tenant)
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _incident(row)

    async def list(
        self, tenant: int, status: str | None, monitor_id: str | None, limit: int, offset: int
    ) -> Sequence[dict[str, Any]]:
        """The incidents of a tenant, the newest first."""
        query = select(incidents).where(incidents.c.tenant_id == tenant).order_by(incidents.c.id.desc())
        if status is not None:
            query = query.where(incidents.c.status == status)
        if monitor_id is not None:
            query = query.where(incidents.c.monitor_id == monitor_id)
        async with self._database.reading() as connection:
            return [_incident(row) for row in await connection.execute(query.limit(limit).offset(offset))]

    async def purge(self, before: float) -> int:
        """Forget incidents that were resolved before; how many."""
        old = delete(incidents).where(incidents.c.status == "resolved", incidents.c.resolved < before)
        async with self._database.writing() as connection:
            return (await connection.execute(old)).rowcount


def _check(values: Mapping[str, Any]) -> None:
    problem = rule_problem(values["trigger_type"], values["threshold_value"], values["breaches"], values["window"])
    if problem is not None:
        raise NotTogether(*problem)


def _told(tenant: int, kind: str, values: Mapping[str, Any]) -> Said:
    return Said(tenant, kind, {"alert_rule_id": values["id"]} | {name: values[name] for name in RULE_FIELDS})


def _rule(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("id", *RULE_FIELDS)} | {"created_at": written(row.created)}


def _incident(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "monitor_id": row.monitor_id,
        "monitor_name": row.monitor_name,
        "alert_rule_id": row.alert_rule_id,
        "rule_name": row.rule_name,
        "trigger_value": row.trigger_value,
        "status": row.status,
        "started_at": written(row.started),
        "resolved_at": None if row.resolved is None else written(row.resolved),
    }
