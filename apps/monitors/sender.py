"""Sending: what the worker has found out goes to a node, in order, one at a time.

Owns the worker's part of the queue (outgoing.py, whose rules it follows) between a check's transaction and the node's
acknowledgement, its bound, and the request. So a worker that is killed loses nothing that it stored, and what it may
have sent already it sends again under the same idempotency key, which makes it one event (within the node's
`idempotency_seconds`). A worker that lives knows what was taken, however long the database is away. What stands behind
a node's own event of its tenant waits for that, and others go on. While no node takes anything at most `keep` results
wait; then the oldest checks go first, incidents last, and it is counted and said.

Must never stop the worker: a request takes `seconds` at most, and the queue fills meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from apps.monitors.model import CHECK, Said
from apps.monitors.outgoing import Outgoing, is_fresh, remove
from apps.monitors.tables import outgoing
from bridges.database import Database
from server.logs import get_logger

PATH = "/internal/broadcast"
PROOF_HEADER = "X-Internal-Secret"
IDLE_SECONDS = 1.0
SOON_SECONDS = 0.05  # where something waits for a node
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0
# What is wrong with a result stays wrong. Anything else (a secret that is yet to be set, a node that starts) may pass.
HOPELESS = (400, 409, 413, 415, 422)

log = get_logger("monitor_worker")


class Sender:
    """`servers` are asked in turn when one does not take what is sent. `secret` None: none is shown."""

    def __init__(
        self, database: Database, servers: Sequence[str], secret: str | None, *, seconds: float, keep: int
    ) -> None:
        self._database = database
        self._servers = list(servers)
        self._headers = {"Content-Type": "application/json"} | ({PROOF_HEADER: secret} if secret else {})
        self._seconds = seconds
        self._keep = keep
        self._client = SimpleAsyncHTTPClient(force_instance=True, max_clients=1, max_body_size=65_536)
        self._queue = Outgoing(database, by_node=False)
        self.state = "ok"
        self.sent = self.refused = self.dropped = self.waiting = 0

    async def put(self, connection: AsyncConnection, said: Sequence[Said]) -> None:
        """Put something in the queue, in the transaction of `connection`. Call `wake` once it is committed."""
        await self._queue.put(connection, said)
        self.waiting += len(said)

    def wake(self) -> None:
        """There is something to send."""
        self._queue.wake()

    async def run(self, wanted: Callable[[], bool]) -> None:
        """Send what is in the queue, as long as it is wanted. Raises DatabaseUnavailable."""
        wait = FIRST_WAIT_SECONDS
        while wanted():
            self._queue.written.clear()
            await self._queue.forget()
            read = time.monotonic()
            rows = await self._oldest()
            if not rows:
                await self._queue.rest(SOON_SECONDS if self.waiting else IDLE_SECONDS)
                continue
            if await self._send(rows, read):
                wait = FIRST_WAIT_SECONDS
                continue
            await self.bound()
            await asyncio.sleep(wait * (0.5 + random.random() / 2))
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    async def _oldest(self) -> Sequence[Any]:
        async with self._database.reading() as connection:
            await self._count(connection)
        return await self._queue.of_workers()

    async def _count(self, connection: AsyncConnection) -> int:
        mine = select(func.count()).where(~outgoing.c.by_node)
        self.waiting = (await connection.execute(mine)).scalar() or 0
        return self.waiting

    async def _send(self, rows: Sequence[Any], read: float) -> bool:
        """Send rows, which were read then, in order until one is not taken; False if there was one."""
        try:
            for row in rows:
                if not is_fresh(read):
                    break
                if not await self._post(row):
                    return False
                self._queue.settle(row)
            return True
        finally:
            await self._queue.forget()

    async def _post(self, row: Any) -> bool:
        """True if the row is settled: it was taken, or will never be."""
        request = HTTPRequest(
            self._servers[0] + PATH,
            "POST",
            self._headers | {"Idempotency-Key": row.key},
            row.body,
            connect_timeout=self._seconds,
            request_timeout=self._seconds,
            follow_redirects=False,
            decompress_response=False,
        )
        try:
            await self._client.fetch(request)
        except HTTPClientError as error:
            if error.code in HOPELESS:
                self.refused += 1
                log.error("result_refused", status=error.code, type=row.type)
                return True
            reason = f"answered {error.code}" if error.code < 599 else "did not answer"
        except OSError as error:
            reason = f"does not answer ({type(error).__name__})"
        else:
            self.sent += 1
            self._note("ok")
            return True
        self._note(f"{self._servers[0]} {reason}")
        self._servers.append(self._servers.pop(0))
        return False

    def _note(self, state: str) -> None:
        """One line when it turns."""
        if (state == "ok") != (self.state == "ok"):
            if state == "ok":
                log.info("server_takes_results_again", waiting=self.waiting, dropped=self.dropped)
            else:
                log.error("server_takes_no_results", reason=state)
        self.state = state

    async def bound(self) -> None:
        """Drop what is too much: the oldest checks, then whatever is oldest. Raises DatabaseUnavailable."""
        # Our number may be that of a moment before the last transaction. While nothing is taken the true one counts.
        if self.state == "ok" and self.waiting <= self._keep:
            return
        async with self._database.reading() as connection:
            if await self._count(connection) <= self._keep:
                return
        async with self._database.writing() as connection:
            for only in (outgoing.c.type == CHECK, outgoing.c.id > 0):
                count = await self._count(connection)
                if count <= self._keep:
                    return
                gone = await remove(connection, ~outgoing.c.by_node & only, count - self._keep)
                self.dropped += gone
                self.waiting = count - gone
                if gone:
                    log.error("results_dropped", results=gone, kept=self._keep, all=self.dropped)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()
