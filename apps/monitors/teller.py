"""Telling: what a node has changed for a tenant goes into the log, behind all that was before it.

Owns the way of the nodes' own rows from the queue (outgoing.py, whose rules it follows) to the log. Where results of
the worker stand before them the worker has `WORKER_SECONDS` to send them; then the node does it, under the same keys.
So a change is told at once as a rule, after these seconds where the worker is away, cannot reach a node or has a long
queue, and never before an incident that it ends. All nodes do this, without a lease: a node that dies leaves nothing
that another does not find within `IDLE_SECONDS`.

Must never know what an event means.
Cost: a look at the queue every `IDLE_SECONDS`, and an append for each event; `BATCH` of one tenant before the next
tenant's turn.
"""

from __future__ import annotations

import time
from typing import Any

from apps.monitors.broadcasts import key_of
from apps.monitors.model import topic_of
from apps.monitors.outgoing import BATCH, Outgoing, Waiting, is_fresh
from bridges.database import DatabaseUnavailable
from server.event import Event, InvalidEvent
from server.hub import Hub
from server.logs import get_logger
from server.relay.protocol import Appended, KeyConflict, RelayUnavailable

IDLE_SECONDS = 1.0
SOON_SECONDS = 0.05  # where something waits for the worker
RETRY_SECONDS = 1.0
WORKER_SECONDS = 2.0

log = get_logger("monitors")


class Teller:
    """See the module's head."""

    def __init__(self, queue: Outgoing, hub: Hub, channel: str) -> None:
        self._queue = queue
        self._hub = hub
        self._channel = channel
        self._held_up: dict[int, float] = {}  # tenants, and since when (the loop's clock) the worker has had its time
        self.state = "ok"
        self.told = 0
        self.oldest_seconds = 0.0

    async def run(self) -> None:
        """Tell what is to be told, for ever."""
        while True:
            self._queue.written.clear()
            wait = IDLE_SECONDS
            try:
                if await self._tell():
                    wait = SOON_SECONDS
                self.state = "ok"
            except (DatabaseUnavailable, RelayUnavailable) as error:
                if self.state == "ok":
                    log.error("changes_not_told", reason=error.reason)
                self.state = error.reason
                wait = RETRY_SECONDS
            await self._queue.rest(wait)

    async def _tell(self) -> bool:
        """Tell every tenant something; True if there is more."""
        await self._queue.forget()
        waiting = await self._queue.waiting()
        self.oldest_seconds = max(0.0, time.time() - min((one.created for one in waiting), default=time.time()))
        there = {one.tenant for one in waiting}
        self._held_up = {tenant: since for tenant, since in self._held_up.items() if tenant in there}
        return any([await self._tell_one(one) for one in waiting])

    async def _tell_one(self, waiting: Waiting) -> bool:
        """Tell a tenant what stands up to the nodes' last row; True if there is more of it."""
        read = time.monotonic()
        rows = await self._queue.of_tenant(waiting.tenant, waiting.last)
        try:
            for row in rows:
                if not (is_fresh(read) and (row.by_node or self._worker_had_its_time(waiting.tenant, read))):
                    return True
                await self._append(row)
                self._queue.settle(row)
        finally:
            await self._queue.forget()
        if len(rows) == BATCH:
            return True
        self._held_up.pop(waiting.tenant, None)
        return False

    def _worker_had_its_time(self, tenant: int, now: float) -> bool:
        return now - self._held_up.setdefault(tenant, now) >= WORKER_SECONDS

    async def _append(self, row: Any) -> None:
        """Put a row into the log. Raises RelayUnavailable."""
        event = Event((topic_of(row.tenant_id),), row.body, row.type, private=True)
        channel = await self._hub.open(self._channel)
        try:
            answer = self._hub.publish(channel, [event], key_of(row.key, row.body.encode()))
            appended = answer if isinstance(answer, Appended) else await answer
        except (InvalidEvent, KeyConflict) as error:  # it stays wrong, and would hold up all that comes after it
            log.error("event_not_told", type=row.type, reason=type(error).__name__)
            return
        self.told += not appended.replayed
