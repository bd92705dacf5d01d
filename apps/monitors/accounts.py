"""Accounts in the database: tenants, their users, and the key of tokens in development mode.

Owns their statements. Must never see a password, only what is kept of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from apps.moments import written
from apps.monitors.model import Said
from apps.monitors.outgoing import Outgoing
from apps.monitors.tables import keys, tenants, users
from apps.monitors.tenancy import TooMany, hold_tenant
from bridges.database import Database

MAX_USERS = 100


class User(NamedTuple):
    """A user, and the tenant that is theirs."""

    id: int
    tenant: int
    tenant_name: str
    email: str
    password: str
    created: float

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {"id": self.id, "email": self.email, "created_at": written(self.created)}


class Taken(Exception):
    """There is a user with this e-mail address."""


class Accounts:
    """`queue` is where a tenant's events go."""

    def __init__(self, database: Database, queue: Outgoing) -> None:
        self._database = database
        self._queue = queue

    async def register(self, email: str, password: str, tenant_name: str, *, simulated: bool = False) -> User:
        """A new tenant with its first user. Raises Taken, DatabaseUnavailable (as all of these)."""
        now = time.time()
        values = {"name": tenant_name, "simulated": simulated, "created": now}
        try:
            async with self._database.writing() as connection:
                tenant = (await connection.execute(insert(tenants).values(values).returning(tenants.c.id))).scalar_one()
                user = await connection.execute(
                    insert(users)
                    .values(tenant_id=tenant, email=email, password=password, created=now)
                    .returning(users.c.id)
                )
                return User(user.scalar_one(), tenant, tenant_name, email, password, now)
        except IntegrityError:
            raise Taken from None

    async def by_email(self, email: str) -> User | None:
        """The user with this e-mail address."""
        return await self._one(users.c.email == email)

    async def by_id(self, user: int) -> User | None:
        """The user with this number."""
        return await self._one(users.c.id == user)

    async def _one(self, condition: Any) -> User | None:
        async with self._database.reading() as connection:
            row = (await connection.execute(_USERS.where(condition))).one_or_none()
        return None if row is None else User(*row)

    async def list(self, tenant: int, limit: int, offset: int) -> Sequence[User]:
        """The users of a tenant."""
        query = _USERS.where(users.c.tenant_id == tenant).order_by(users.c.id).limit(limit).offset(offset)
        async with self._database.reading() as connection:
            return [User(*row) for row in await connection.execute(query)]

    async def add(self, tenant: int, email: str, password: str) -> int:
        """One more user of a tenant; the number. Raises Taken, TooMany, NoTenant."""
        now = time.time()
        try:
            async with self._database.writing() as connection:
                await hold_tenant(connection, tenant)
                count = select(func.count()).where(users.c.tenant_id == tenant)
                if ((await connection.execute(count)).scalar() or 0) >= MAX_USERS:
                    raise TooMany("email", f"at most {MAX_USERS} users")
                new = insert(users).values(tenant_id=tenant, email=email, password=password, created=now)
                user: int = (await connection.execute(new.returning(users.c.id))).scalar_one()
                said = Said(tenant, "user_created", {"user_id": user, "email": email})
                await self._queue.put(connection, [said])
        except IntegrityError:
            raise Taken from None
        self._queue.wake()
        return user

    async def remove(self, tenant: int, user: int) -> bool:
        """Forget a user of a tenant; False if there is no such user. Raises NoTenant."""
        async with self._database.writing() as connection:
            await hold_tenant(connection, tenant)
            gone = delete(users).where(users.c.id == user, users.c.tenant_id == tenant)
            if not (await connection.execute(gone)).rowcount:
                return False
            await self._queue.put(connection, [Said(tenant, "user_deleted", {"user_id": user})])
        self._queue.wake()
        return True

    async def has_tenant(self, tenant: int) -> bool:
        """True if there is a tenant of this number."""
        async with self._database.reading() as connection:
            found = await connection.execute(select(tenants.c.id).where(tenants.c.id == tenant))
            return found.scalar() is not None

    async def key(self, name: str, fresh: bytes) -> bytes:
        """The key of this name; `fresh` if there is none yet, for all nodes."""
        query = select(keys.c.value).where(keys.c.name == name)
        async with self._database.reading() as connection:
            found: bytes | None = (await connection.execute(query)).scalar()
        if found is not None:
            return found
        try:
            async with self._database.writing() as connection:
                await connection.execute(insert(keys).values(name=name, value=fresh))
        except IntegrityError:
            return await self.key(name, fresh)  # another node was faster
        return fresh


_USERS = select(
    users.c.id, users.c.tenant_id, tenants.c.name, users.c.email, users.c.password, users.c.created
).join_from(users, tenants)
