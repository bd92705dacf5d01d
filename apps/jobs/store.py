"""Jobs in the database: one row each, changed together with the event that says so.

Owns the table and its statements, and who works on a job: `claimed` is when its worker was last heard of, 0 if it was
given back. Must never decide what an update means (model.py does). `told` is the id of the event that told of the end,
written when the outbox has appended it: while it is not there, the end may be on its way to the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import ujson
from sqlalchemy import (
    Column,
    Float,
    Index,
    String,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    insert,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from apps.jobs.model import FINAL, NewJob, NotItsOwn, State, first_state, job_of, shortest, topic_of
from apps.moments import written
from bridges.database import Database, metadata
from bridges.outbox import Outbox
from server.event import Event

MAX_SILENT = 500

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", String(256), nullable=False),
    Column("wanted", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("progress", Float, nullable=False),
    Column("stage", String(100), nullable=False),
    Column("message", String(1000), nullable=False),
    Column("timestamp", String(32), nullable=False),
    Column("said", Float),
    Column("data", Text),
    Column("worker", String(100)),
    Column("claimed", Float),
    Column("created", Float, nullable=False),
    Column("changed", Float, nullable=False),
    Column("told", String(64)),
    Index("jobs_by_owner", "owner", "created"),
    Index("jobs_by_status", "status", "created"),
)


class Job(NamedTuple):
    """A row: whose it is, what is wanted, how it stands, when it was made and changed (unix seconds), who works on it,
    and the id of the event of its end."""

    owner: str
    wanted: dict[str, Any]
    state: State
    created: float
    changed: float
    worker: str | None
    told: str | None = None

    def facts(self) -> dict[str, Any]:
        """As JSON; of given texts only how many there are."""
        created = written(self.created)
        return self.state.facts() | {"created": created} | self.wanted | {"texts": len(self.wanted.get("texts", ()))}

    def order(self) -> dict[str, Any]:
        """As JSON for whoever works on it: with the texts."""
        return self.facts() | {"texts": self.wanted.get("texts", [])}


class JobStore:
    """`channel` is where a job's events go."""

    def __init__(self, database: Database, outbox: Outbox, channel: str) -> None:
        self._database = database
        self._outbox = outbox
        self._channel = channel

    async def create(self, job_id: str, owner: str, wanted: NewJob) -> State:
        """A new job. That is no event: nobody can have been watching. Raises DatabaseUnavailable, as all of these."""
        state = first_state(job_id, datetime.now(UTC))
        now = time.time()
        async with self._database.writing() as connection:
            await connection.execute(
                insert(jobs).values(
                    id=job_id, owner=owner, wanted=wanted.model_dump_json(), created=now, changed=now, **_columns(state)
                )
            )
        return state

    async def get(self, job_id: str) -> Job | None:
        """One job."""
        async with self._database.reading() as connection:
            row = (await connection.execute(select(jobs).where(jobs.c.id == job_id))).one_or_none()
        return None if row is None else _job(row)

    async def list(self, owner: str | None, status: str | None, limit: int, offset: int) -> Sequence[Job]:
        """The newest first; of one owner, or of all."""
        query = select(jobs).order_by(jobs.c.created.desc(), jobs.c.id).limit(limit).offset(offset)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        if status is not None:
            query = query.where(jobs.c.status == status)
        async with self._database.reading() as connection:
            return [_job(row) for row in await connection.execute(query)]

    async def change(
        self, job_id: str, go_on: Callable[[State], State | None], worker: str | None = None
    ) -> State | None:
        """Let `go_on` say how the job stands from now on (None: as before); None if there is no such job. What it
        raises comes out, and nothing has happened. `worker` is heard of; raises NotItsOwn if the job is another's."""
        async with self._database.writing() as connection:
            row = (await connection.execute(select(jobs).where(jobs.c.id == job_id).with_for_update())).one_or_none()
            if row is None:
                return None
            if worker is not None and row.worker != worker:
                raise NotItsOwn
            state = _job(row).state
            after = go_on(state)
            values: dict[str, Any] = {"claimed": time.time()} if worker is not None else {}
            if after is not None:
                await self._outbox.put(connection, self._channel, [event_of(after)])
                values |= {"changed": time.time(), **_columns(after)}  # behind the event: see `end_waits`
            if values:
                await connection.execute(update(jobs).where(jobs.c.id == job_id).values(values))
        if after is None:
            return state
        self._outbox.wake()
        return after

    async def claim(self, worker: str, abandoned_seconds: float) -> Job | None:
        """The oldest job that waits, was given back, or whose worker has not been heard of for so long; it is this
        worker's now."""
        now = time.time()
        before = now - abandoned_seconds
        silent = or_(jobs.c.claimed.is_(None), jobs.c.claimed < before)
        waiting = and_(jobs.c.status == "pending", silent)
        # Services that never claimed it may be at work on it: it is theirs as long as it changes.
        left = and_(jobs.c.status == "processing", or_(jobs.c.claimed == 0.0, and_(silent, jobs.c.changed < before)))
        oldest = select(jobs).where(or_(waiting, left)).order_by(jobs.c.created, jobs.c.id).limit(1)
        async with self._database.writing() as connection:
            row = (await connection.execute(oldest.with_for_update(skip_locked=True))).one_or_none()
            if row is None:
                return None
            # What the worker before said, by its clock, does not make the next one's words old.
            values = {"worker": worker, "claimed": now, "changed": now, "said": None}
            await connection.execute(update(jobs).where(jobs.c.id == row.id).values(**values))
        return _job(row)

    async def give_back(self, job_id: str, worker: str) -> bool:
        """Let another worker have the job at once; False if it is not this worker's, or has ended."""
        own = and_(jobs.c.id == job_id, jobs.c.worker == worker, not_(jobs.c.status.in_(FINAL)))
        async with self._database.writing() as connection:
            done = await connection.execute(update(jobs).where(own).values(worker=None, claimed=0.0))
        return bool(done.rowcount)

    async def waits_since(self, before: float) -> bool:
        """True if a job that is no worker's was made then or before (unix seconds)."""
        new = and_(jobs.c.status == "pending", jobs.c.claimed.is_(None))
        given_back = and_(not_(jobs.c.status.in_(FINAL)), jobs.c.claimed == 0.0)
        waiting = exists().where(or_(new, given_back), jobs.c.created <= before)
        async with self._database.reading() as connection:
            return bool((await connection.execute(select(waiting))).scalar())

    async def silent_since(self, before: float) -> Sequence[State]:
        """Jobs that have not ended, and of which nobody has said anything since (unix seconds); some of them."""
        silent = and_(jobs.c.changed < before, or_(jobs.c.claimed.is_(None), jobs.c.claimed < before))
        query = select(jobs).where(not_(jobs.c.status.in_(FINAL)), silent).limit(MAX_SILENT)
        async with self._database.reading() as connection:
            return [_job(row).state for row in await connection.execute(query)]

    async def ended(self, job_ids: Sequence[str]) -> Sequence[Job]:
        """Those of these jobs that have come to their end."""
        query = select(jobs).where(jobs.c.id.in_(job_ids), jobs.c.status.in_(FINAL))
        async with self._database.reading() as connection:
            return [_job(row) for row in await connection.execute(query)]

    async def end_waits(self, job: Job) -> bool:
        """True if the end of a job that has ended may not be in the log yet. Of the event and the change, which are of
        one transaction, the event has the earlier time."""
        return job.told is None and await self._outbox.waits(self._channel, job.changed)

    async def told(self, job_id: str, event_id: str) -> None:
        """The end of this job is in the log, with this id."""
        async with self._database.writing() as connection:
            await connection.execute(update(jobs).where(jobs.c.id == job_id).values(told=event_id))

    async def record_ends(self, connection: AsyncConnection, events: Sequence[Event], ids: Sequence[str]) -> None:
        """These events of ours are in the log, with these ids: for the outbox, in its transaction."""
        ends = [
            {"job": job_of(event.topics[0]), "event": event_id}
            for event, event_id in zip(events, ids, strict=True)
            if ujson.loads(event.data)["status"] in FINAL
        ]
        if ends:
            of_job = update(jobs).where(jobs.c.id == bindparam("job"))
            await connection.execute(of_job.values(told=bindparam("event")), ends)

    async def purge(self, before: float) -> int:
        """Forget finished jobs that have not changed since; how many."""
        finished = and_(jobs.c.status.in_(FINAL), jobs.c.changed < before)
        async with self._database.writing() as connection:
            return (await connection.execute(delete(jobs).where(finished))).rowcount


def _columns(state: State) -> dict[str, Any]:
    return {
        "status": state.status,
        "progress": state.progress,
        "stage": state.stage,
        "message": state.message,
        "timestamp": state.timestamp,
        "said": state.said,
        "data": None if state.data is None else ujson.dumps(state.data, ensure_ascii=False),
    }


def _job(row: Any) -> Job:
    data = None if row.data is None else ujson.loads(row.data)
    progress = shortest(row.progress)
    state = State(row.id, row.status, progress, row.stage, row.message, row.timestamp, data, row.said)
    return Job(row.owner, ujson.loads(row.wanted), state, row.created, row.changed, row.worker, row.told)


def event_of(state: State) -> Event:
    """What its readers are told of."""
    return Event((topic_of(state.jobId),), state.text(), private=True)
