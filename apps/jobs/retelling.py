"""Telling again how jobs ended, when their readers may never be told otherwise.

Owns the look for such ends. Must never know how an update becomes an event (store.py).

A log that was lost, or a part of it, may have held the end of a job. Its readers are told of a gap, but no further
update will ever come for them. So what has ended by the database, and is watched on this node, is told once more: as an
event, which ends the streams as the first one would have. The same where somebody watches a job that has ended, and
neither was its end delivered here nor does it wait in the outbox: it stood in another log, or nobody wrote down where.
Invariants: a state may come twice, as everywhere; that nodes tell it together is settled by an idempotency key; it is
tried until it is done.
Cost: nothing until the log is not what it was; then a look at each watched job, `JOBS_AT_A_TIME` together. A look every
`LOOK_SECONDS` at the jobs that have ended and are watched, and whose end has not come.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from apps.jobs.store import Job, JobStore, event_of
from apps.jobs.watch import Watch
from bridges.database import DatabaseUnavailable
from server.finishing import LATE_SECONDS
from server.hub import Hub
from server.logs import get_logger
from server.relay.protocol import Appended, Key, RelayUnavailable

JOBS_AT_A_TIME = 500
LOOK_SECONDS = 0.5
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

    async def after_losses(self) -> None:
        """Wait for a loss of the log, and tell; for ever."""
        while True:
            await self._watch.lost.wait()
            self._watch.lost.clear()
            await _until_done(self._tell_watched)

    async def what_does_not_come(self) -> None:
        """Look after ends that have not been delivered here, as long as there are some; for ever."""
        while True:
            await self._watch.awaited.wait()
            self._watch.awaited.clear()
            while self._watch.ending:
                await _until_done(self._look_at_ends)
                await asyncio.sleep(LOOK_SECONDS)

    async def _tell_watched(self) -> None:
        """Raises DatabaseUnavailable, RelayUnavailable."""
        before = self.told
        watched = list(await self._watch.watchers())
        for first in range(0, len(watched), JOBS_AT_A_TIME):
            for job in await self._store.ended(watched[first : first + JOBS_AT_A_TIME]):
                await self._tell(job)
        if watched:
            log.info("ends_told_again", watched=len(watched), told=self.told - before)

    async def _look_at_ends(self) -> None:
        """Raises DatabaseUnavailable, RelayUnavailable."""
        ending, now = self._watch.ending, time.monotonic()
        for job_id, came in list(ending.items()):
            if now > came + LATE_SECONDS and not self._watch.watching(job_id):
                del ending[job_id]
        looked_at = list(ending)
        for first in range(0, len(looked_at), JOBS_AT_A_TIME):
            for job in await self._store.ended(looked_at[first : first + JOBS_AT_A_TIME]):
                if self._watch.finish(job):
                    ending.pop(job.state.jobId, None)
                elif not await self._store.end_waits(job):
                    await self._tell(job)

    async def _tell(self, job: Job) -> None:
        """Raises DatabaseUnavailable, RelayUnavailable."""
        channel = self._watch.channel
        job_id = job.state.jobId
        key = Key(SCOPE, f"{channel.epoch} {int(time.time() / SAME_SECONDS)} {job_id}", b"")
        answer: Appended | Awaitable[Appended] = self._hub.publish(channel, [event_of(job.state)], key)
        appended = answer if isinstance(answer, Appended) else await answer
        await self._store.told(job_id, appended.ids[0])
        self.told += not appended.replayed


async def _until_done(work: Callable[[], Awaitable[None]]) -> None:
    """Try again, and wait between, while the database or the relay is away."""
    wait = FIRST_WAIT_SECONDS
    while True:
        try:
            return await work()
        except (DatabaseUnavailable, RelayUnavailable) as error:
            log.warning("ends_not_told_again", reason=error.reason)
            await asyncio.sleep(wait * (0.5 + random.random() / 2))
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)
