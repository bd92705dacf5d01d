"""Telling again how jobs ended, when the relay's log has lost something.

Owns the look for ends that nobody may have been told of. Must never know how an update becomes an event (store.py).

A log that was lost, or a part of it, may have held the end of a job. Its readers are told of a gap, but no further
update will ever come for them. So what has ended by the database, and is watched on this node, is told once more: as an
event, which ends the streams as the first one would have. Invariants: a state may come twice, as everywhere; that nodes
tell it together is settled by an idempotency key; it is tried until it is done.
Cost: nothing until the log is not what it was; then a look at each watched job, `JOBS_AT_A_TIME` together.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable

from apps.jobs.store import JobStore, event_of
from apps.jobs.watch import Watch
from bridges.database import DatabaseUnavailable
from server.hub import Hub
from server.logs import get_logger
from server.relay.protocol import Appended, Key, RelayUnavailable

JOBS_AT_A_TIME = 500
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 10.0
SAME_SECONDS = 60  # nodes notice within that of each other; at its border an end may be told twice
SCOPE = "jobs_retold"

log = get_logger("jobs")


class Retelling:
    """See the module's head."""

    def __init__(self, store: JobStore, watch: Watch, hub: Hub) -> None:
        self._store = store
        self._watch = watch
        self._hub = hub
        self.told = 0

    async def run(self) -> None:
        """Wait for a loss, and tell; for ever."""
        wait = FIRST_WAIT_SECONDS
        while True:
            await self._watch.lost.wait()
            self._watch.lost.clear()
            try:
                await self._tell()
                wait = FIRST_WAIT_SECONDS
            except (DatabaseUnavailable, RelayUnavailable) as error:
                log.warning("ends_not_told_again", reason=error.reason)
                self._watch.lost.set()
                await asyncio.sleep(wait * (0.5 + random.random() / 2))
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    async def _tell(self) -> None:
        """Raises DatabaseUnavailable, RelayUnavailable."""
        channel = self._watch.channel
        watched = list(await self._watch.watchers())
        for first in range(0, len(watched), JOBS_AT_A_TIME):
            for state in await self._store.ended(watched[first : first + JOBS_AT_A_TIME]):
                key = Key(SCOPE, f"{channel.epoch} {int(time.time() / SAME_SECONDS)} {state.jobId}", b"")
                answer: Appended | Awaitable[Appended] = self._hub.publish(channel, [event_of(state)], key)
                if not isinstance(answer, Appended):
                    await answer
                self.told += 1
        if watched:
            log.info("ends_told_again", watched=len(watched), told=self.told)
