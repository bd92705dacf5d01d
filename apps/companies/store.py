"""Companies in the database: which of them have a flag of their own, and which node holds how many streams of each.

Owns the tables and their statements. Must never decide who may stream (flags.py does).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ujson
from sqlalchemy import Boolean, Column, Float, String, Table, Text, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from apps.companies.model import FLAG, MAX_ID_CHARACTERS, flag_topic
from apps.moments import written
from bridges.database import Database, metadata
from bridges.outbox import Outbox
from server.event import Event

FORGET_SECONDS = 60.0

companies = Table(
    "companies",
    metadata,
    Column("id", String(MAX_ID_CHARACTERS), primary_key=True),
    Column("streaming", Boolean, nullable=False),
    Column("changed", Float, nullable=False, server_default="0"),
)
company_nodes = Table(
    "company_nodes",
    metadata,
    Column("node", String(128), primary_key=True),
    Column("streams", Text, nullable=False),
    Column("until", Float, nullable=False),
)


def facts_of(row: Any) -> dict[str, Any]:
    """A row as JSON."""
    return {"companyId": row.id, "streaming": row.streaming, "changed": written(row.changed)}


class CompanyStore:
    """The flags. `channel` is where a change is told of."""

    def __init__(self, database: Database, outbox: Outbox, channel: str) -> None:
        self._database = database
        self._outbox = outbox
        self._channel = channel

    async def with_flag(self, streaming: bool) -> set[str]:
        """The companies whose flag says this. Raises DatabaseUnavailable."""
        async with self._database.reading() as connection:
            return set(await connection.scalars(select(companies.c.id).where(companies.c.streaming.is_(streaming))))

    async def list(self, limit: int, offset: int) -> Sequence[dict[str, Any]]:
        """Companies with a flag, by id. Raises DatabaseUnavailable."""
        wanted = select(companies).order_by(companies.c.id).limit(limit).offset(offset)
        async with self._database.reading() as connection:
            return [facts_of(row) for row in await connection.execute(wanted)]

    async def get(self, company: str) -> dict[str, Any] | None:
        """A company's flag. Raises DatabaseUnavailable."""
        async with self._database.reading() as connection:
            row = (await connection.execute(select(companies).where(companies.c.id == company))).first()
        return None if row is None else facts_of(row)

    async def switch(self, company: str, streaming: bool) -> dict[str, Any]:
        """Set a company's flag, and say so. Raises DatabaseUnavailable."""
        now = time.time()
        told = ujson.dumps({"companyId": company, "streaming": streaming})
        async with self._database.writing() as connection:
            await _put(connection, {"id": company, "streaming": streaming, "changed": now})
            event = Event((flag_topic(company),), told, FLAG, private=True)
            await self._outbox.put(connection, self._channel, [event])
        self._outbox.wake()
        return {"companyId": company, "streaming": streaming, "changed": written(now)}


async def _put(connection: AsyncConnection, values: dict[str, Any]) -> None:
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(companies).values(values)
    await connection.execute(statement.on_conflict_do_update(index_elements=[companies.c.id], set_=values))


class NodeStore:
    """What nodes say of the streams that they hold."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def say(self, node: str, streams: Mapping[str, int], seconds: float) -> None:
        """Of a node, for so long; of those that have been gone for long, nothing more. Raises DatabaseUnavailable."""
        now = time.time()
        values = {"streams": ujson.dumps(streams), "until": now + seconds}
        async with self._database.writing() as connection:
            said = await connection.execute(update(company_nodes).where(company_nodes.c.node == node).values(values))
            if not said.rowcount:
                await connection.execute(insert(company_nodes).values(node=node, **values))
            await connection.execute(delete(company_nodes).where(company_nodes.c.until < now - FORGET_SECONDS))

    async def others(self, node: str) -> Sequence[Mapping[str, int]]:
        """The streams of each other node that is there. Raises DatabaseUnavailable."""
        there = (company_nodes.c.node != node, company_nodes.c.until > time.time())
        wanted = select(company_nodes.c.streams).where(*there)
        async with self._database.reading() as connection:
            return [ujson.loads(text) for text in await connection.scalars(wanted)]

    async def leave(self, node: str) -> None:
        """A node is going. Raises DatabaseUnavailable."""
        async with self._database.writing() as connection:
            await connection.execute(delete(company_nodes).where(company_nodes.c.node == node))
