"""Monitors in the database, as their tenants see them: made, changed, looked at, deleted.

Owns these statements; each names the tenant, so that nobody's data are found by another's. A change and the event that
tells of it are one transaction. Must never decide what a check means (recorder.py does).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ujson
from sqlalchemy import Select, case, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from apps.moments import written
from apps.monitors.incidents import resolve_open
from apps.monitors.model import NewMonitor, Said
from apps.monitors.outgoing import Outgoing
from apps.monitors.tables import checks, incidents, monitors, tenants
from apps.monitors.tenancy import TooMany, hold_tenant
from bridges.database import Database

MONITOR_FIELDS = (
    "name", "url", "interval_seconds", "timeout_seconds", "expected_status", "check_ssl", "enabled",
)  # fmt: skip
_RATE_FIELDS = {"url", "interval_seconds", "enabled"}


class MonitorStore:
    """`most` monitors a tenant; `host_per_minute` checks of one host by a tenant. `queue` is where events go."""

    def __init__(self, database: Database, queue: Outgoing, *, most: int, host_per_minute: int) -> None:
        self._database = database
        self._queue = queue
        self._most = most
        self._host_per_minute = host_per_minute

    async def create(self, tenant: int, new: NewMonitor, host: str) -> dict[str, Any]:
        """A new monitor, whose URL has this host. Raises TooMany, NoTenant, DatabaseUnavailable (as all of these)."""
        now = time.time()
        values = new.model_dump() | {"id": secrets.token_hex(12), "tenant_id": tenant, "host": host}
        async with self._database.writing() as connection:
            await hold_tenant(connection, tenant)
            count = select(func.count()).where(monitors.c.tenant_id == tenant)
            if ((await connection.execute(count)).scalar() or 0) >= self._most:
                raise TooMany("name", f"at most {self._most} monitors")
            await connection.execute(insert(monitors).values(values | {"created": now, "changed": now}))
            await self._check_host(connection, tenant, host)
            facts = await self._said(connection, tenant, values["id"], "monitor_created")
        self._queue.wake()
        return facts

    async def change(self, tenant: int, monitor_id: str, fields: Mapping[str, Any]) -> dict[str, Any] | None:
        """Change some fields; how the monitor is then, None if there is no such one. Raises TooMany, NoTenant."""
        new = dict(fields) | {"changed": time.time()}
        async with self._database.writing() as connection:
            await hold_tenant(connection, tenant)
            mine = (monitors.c.id == monitor_id) & (monitors.c.tenant_id == tenant)
            changed = await connection.execute(update(monitors).where(mine).values(new).returning(monitors.c.host))
            row = changed.one_or_none()
            if row is None:
                return None
            if fields.keys() & _RATE_FIELDS:
                await self._check_host(connection, tenant, row.host)
            if fields.get("enabled") is False:
                await self._resolve(connection, incidents.c.monitor_id == monitor_id)
            facts = await self._said(connection, tenant, monitor_id, "monitor_updated")
        self._queue.wake()
        return facts

    async def delete(self, tenant: int, monitor_id: str) -> bool:
        """Forget a monitor, with its checks and the rules that are for it alone; False if there is no such one. Raises
        NoTenant."""
        async with self._database.writing() as connection:
            await hold_tenant(connection, tenant)
            mine = (monitors.c.id == monitor_id) & (monitors.c.tenant_id == tenant)
            if not (await connection.execute(delete(monitors).where(mine))).rowcount:
                return False
            await self._resolve(connection, incidents.c.monitor_id == monitor_id)
            await self._queue.put(connection, [Said(tenant, "monitor_deleted", {"monitor_id": monitor_id})])
        self._queue.wake()
        return True

    async def _check_host(self, connection: AsyncConnection, tenant: int, host: str) -> None:
        rate = func.sum(60.0 / monitors.c.interval_seconds)
        mine = (monitors.c.tenant_id == tenant) & (monitors.c.host == host) & monitors.c.enabled
        if ((await connection.execute(select(rate).where(mine))).scalar() or 0.0) > self._host_per_minute + 0.001:
            raise TooMany("interval_seconds", f"at most {self._host_per_minute} checks of one host in a minute")

    async def _resolve(self, connection: AsyncConnection, condition: Any) -> None:
        await self._queue.put(connection, await resolve_open(connection, condition, time.time()))

    async def _said(self, connection: AsyncConnection, tenant: int, monitor_id: str, kind: str) -> dict[str, Any]:
        """Tell how a monitor is now."""
        [row] = (await connection.execute(_MONITORS.where(monitors.c.id == monitor_id))).all()
        facts = _facts(row)
        told = {"monitor_id": monitor_id} | {name: facts[name] for name in MONITOR_FIELDS}
        await self._queue.put(connection, [Said(tenant, kind, told)])
        return facts

    # --- looking

    async def get(self, tenant: int, monitor_id: str) -> dict[str, Any] | None:
        """A monitor, with what its last check found."""
        query = _MONITORS.where(monitors.c.id == monitor_id, monitors.c.tenant_id == tenant)
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _facts(row)

    async def list(self, tenant: int, limit: int, offset: int) -> tuple[Sequence[dict[str, Any]], int]:
        """Monitors of a tenant, the oldest first, and how many there are in all."""
        mine = monitors.c.tenant_id == tenant
        query = _MONITORS.where(mine).order_by(monitors.c.created, monitors.c.id).limit(limit).offset(offset)
        async with self._database.reading() as connection:
            total = (await connection.execute(select(func.count()).select_from(monitors).where(mine))).scalar() or 0
            return [_facts(row) for row in await connection.execute(query)], total

    async def latest(self, tenant: int, limit: int, offset: int) -> Sequence[dict[str, Any]]:
        """What the last check of each monitor found, in the form of the events' data."""
        mine = (monitors.c.tenant_id == tenant) & monitors.c.latest.is_not(None)
        query = select(monitors.c.latest).where(mine).order_by(monitors.c.created, monitors.c.id)
        async with self._database.reading() as connection:
            rows = await connection.execute(query.limit(limit).offset(offset))
            return [ujson.loads(row.latest) for row in rows]

    async def checks(self, tenant: int, monitor_id: str, limit: int, offset: int) -> Sequence[dict[str, Any]]:
        """Checks of a monitor, the newest first."""
        mine = (checks.c.tenant_id == tenant) & (checks.c.monitor_id == monitor_id)
        query = select(checks).where(mine).order_by(checks.c.id.desc()).limit(limit).offset(offset)
        async with self._database.reading() as connection:
            return [check_facts(row) for row in await connection.execute(query)]

    async def summary(self, tenant: int) -> dict[str, int]:
        """How many monitors stand how, and how many incidents are open."""
        mine = monitors.c.tenant_id == tenant
        is_open = (incidents.c.tenant_id == tenant) & (incidents.c.status == "open")
        query = select(
            func.count(),
            func.count(case((monitors.c.enabled & monitors.c.success, 1))),
            func.count(case((monitors.c.enabled & ~monitors.c.success, 1))),
            func.count(case((monitors.c.enabled, None), else_=1)),
            select(func.count()).select_from(incidents).where(is_open).scalar_subquery(),
        ).where(mine)
        async with self._database.reading() as connection:
            total, working, failing, paused, open_incidents = (await connection.execute(query)).one()
        unknown = total - working - failing - paused
        return {
            "monitors": total, "up": working, "down": failing, "unknown": unknown, "paused": paused,
            "open_incidents": open_incidents,
        }  # fmt: skip


_MONITORS: Select[Any] = select(monitors, tenants.c.simulated).join_from(monitors, tenants)


def _facts(row: Any) -> dict[str, Any]:
    """A monitor as JSON."""
    latest = None if row.latest is None else ujson.loads(row.latest)
    facts = {
        "id": row.id,
        **{name: getattr(row, name) for name in MONITOR_FIELDS},
        "status": _status(row.enabled, latest),
        "last_check": latest,
        "created_at": written(row.created),
        "updated_at": written(row.changed),
    }
    return facts | {"simulated": True} if row.simulated else facts


def _status(enabled: bool, latest: Mapping[str, Any] | None) -> str:
    if not enabled:
        return "paused"
    return "unknown" if latest is None else "up" if latest["success"] else "down"


def check_facts(row: Any) -> dict[str, Any]:
    """A check as JSON; what is not known is null."""
    facts = {
        "id": row.id,
        "monitor_id": row.monitor_id,
        "success": row.success,
        "status_code": row.status_code,
        "response_time_ms": row.response_time_ms,
        "error_message": row.error_message,
        "ssl_valid": row.ssl_valid,
        "ssl_expires_at": None if row.ssl_expires is None else written(row.ssl_expires),
        "checked_at": written(row.checked),
    }
    return facts | {"simulated": True} if row.simulated else facts
