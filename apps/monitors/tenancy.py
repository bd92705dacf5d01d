"""Tenancy: what a tenant may have, and that there is such a tenant at all.

Owns the lock under which a tenant's things are counted and changed: two requests at once don't both find room, and what
is said of them is said in the order of the commits. It is the first lock of every transaction that says something.
"""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from apps.monitors.tables import tenants


class TooMany(Exception):
    """The tenant has as many as it may have. `field` and `reason` say what of."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


class NoTenant(Exception):
    """There is no tenant of this number: the token is an issuer's who knows of others."""


async def hold_tenant(connection: AsyncConnection, tenant: int) -> None:
    """Let nobody else count or change what this tenant has, or say anything of it, until the transaction ends. Raises
    NoTenant."""
    # A write, because that is what SQLite takes its lock for.
    same = update(tenants).where(tenants.c.id == tenant).values(name=tenants.c.name)
    if not (await connection.execute(same)).rowcount:
        raise NoTenant
