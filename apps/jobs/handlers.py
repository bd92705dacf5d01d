"""Jobs over HTTP: start one, look at it, report on it, take one to work on, give it back.

Owns the endpoints and who may use them: everybody with a token starts jobs and sees their own; reporting, taking and
giving back are for services (tokens with `ringcast.operate`). Must never know how a job is stored.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from apps.jobs.limits import PerMinute
from apps.jobs.model import Finished, GoesBack, JobList, NewJob, NotItsOwn, State, Update, Worker, advance
from apps.jobs.presence import Presence
from apps.jobs.replies import Jobs, JobState, OneJob, Order, Started
from apps.jobs.store import JobStore
from apps.jobs.watch import Watch, owned
from apps.jobs.workers import Workers
from handlers.answers import Refused
from handlers.endpoints import Body, Call, Endpoint, Reply, conflict, invalid, not_found, operators, signed_in
from handlers.streams import StreamRoute
from server.endings import RATE_LIMITED

ROOT = "/api/v1/jobs"
# Five texts of 20,000 characters may be 400 KB, and 600 KB from a client that escapes what is not ASCII.
MAX_NEW_JOB_BYTES = 1 << 20
NOT_ITS_OWN = "the job is another worker's"


class Claim(Body):
    """Who takes a job, or gives it back."""

    worker: Worker


class JobHandlers:
    """The endpoints and the stream."""

    def __init__(
        self,
        store: JobStore,
        watch: Watch,
        workers: Workers,
        presence: Presence,
        *,
        per_minute: int,
        abandoned_seconds: float,
    ) -> None:
        self._store = store
        self._watch = watch
        self._workers = workers
        self._presence = presence
        self._limit = PerMinute(per_minute)
        self._abandoned_seconds = abandoned_seconds
        self.started = self.updated = self.repeated = 0

    def endpoints(self) -> Sequence[Endpoint]:
        """See the module's head."""
        tag = "jobs"
        one = f"{ROOT}/{{jobId}}"
        return [
            Endpoint(
                "POST", ROOT, self._start, "Start a job.", body=NewJob, reply=Started, access=signed_in, status=201,
                errors=(429,), tag=tag, max_body_bytes=MAX_NEW_JOB_BYTES,
            ),
            Endpoint(
                "GET", ROOT, self._list, "One's own jobs, newest first.", JobList, reply=Jobs, access=signed_in, tag=tag
            ),
            Endpoint("GET", one, self._get, "How a job stands.", reply=OneJob, access=signed_in, tag=tag),
            Endpoint(
                "POST", f"{one}/updates", self._update, "Report on a job.", body=Update, reply=JobState,
                access=operators, errors=(409,), tag=tag,
            ),
            Endpoint(
                "POST", f"{ROOT}/claim", self._claim, "Take the oldest job that waits; 204 if none does.", body=Claim,
                reply=Order, access=operators, tag=tag, errors=(204,),
            ),
            Endpoint(
                "POST", f"{one}/release", self._release, "Give a job back that was taken.", body=Claim,
                access=operators, status=204, tag=tag, errors=(409,),
            ),
        ]  # fmt: skip

    def streams(self) -> Sequence[StreamRoute]:
        """The stream of a job."""
        events = {"message": "the job's present state, then each change; JSON with jobId, status, progress, …"}
        path = f"{ROOT}/{{jobId}}/events"
        return [StreamRoute(path, "jobs", self._watch.admit, "A job, until it ends.", events=events, own_rules=True)]

    async def _start(self, call: Call) -> Reply:
        owner = call.principal.subject
        if not call.body.sources and not call.body.texts:
            raise invalid("sources", "must hold at least one, where there are no texts")
        if not self._limit.take(owner or call.principal.scope):
            raise Refused(RATE_LIMITED, reason=f"at most {self._limit.most} jobs a minute")
        job_id = secrets.token_hex(12)
        state = await self._store.create(job_id, owner, call.body)
        self.started += 1
        place = f"{ROOT}/{job_id}"
        answer = {"jobId": job_id, "sseEndpoint": f"{place}/events", "status": state.status}
        return Reply(answer, 201, [("Location", place)])

    async def _list(self, call: Call) -> Reply:
        query: JobList = call.query
        owner = None if call.principal.operate else call.principal.subject
        found = await self._store.list(owner, query.status, query.limit, query.offset) if owner != "" else []
        facts = {"jobs": [job.facts() for job in found], "limit": query.limit, "offset": query.offset}
        return Reply(facts | {"workers": self._workers.number})

    async def _get(self, call: Call) -> Reply:
        job_id = call.arguments["jobId"]
        job = owned(await self._store.get(job_id), job_id, call.principal)
        if not call.principal.operate:
            return Reply(job.facts())
        return Reply(job.facts() | {"worker": job.worker, "watchers": await self._presence.of(job_id)})

    async def _update(self, call: Call) -> Reply:
        job_id = call.arguments["jobId"]
        if call.body.jobId not in (None, job_id):
            raise invalid("jobId", "is not the one of the path")
        try:
            state = await self.hear(job_id, call.body)
        except Finished:
            raise conflict("status", "the job has come to its end") from None
        except GoesBack:
            raise conflict("status", "a job does not go back to an earlier status") from None
        except NotItsOwn:
            raise conflict("worker", NOT_ITS_OWN) from None
        if state is None:
            raise not_found("jobId", f"there is no job {job_id}")
        return Reply(state.facts())

    async def hear(self, job_id: str, update: Update) -> State | None:
        """Take an update that came from elsewhere. As `report`; and whose it is has been heard of."""
        state = await self.report(job_id, update)
        if update.worker is not None:
            await self._workers.note(update.worker)
        return state

    async def report(self, job_id: str, update: Update) -> State | None:
        """Take an update; how the job stands then, None if there is no such job. Raises Finished, GoesBack, NotItsOwn,
        DatabaseUnavailable."""
        now = datetime.now(UTC)
        changed = False

        def go_on(state: State) -> State | None:
            nonlocal changed
            after = advance(state, update, now)
            changed = after is not None
            return after

        state = await self._store.change(job_id, go_on, update.worker)
        self.updated += changed
        self.repeated += state is not None and not changed
        return state

    async def _claim(self, call: Call) -> Reply:
        await self._workers.note(call.body.worker)
        job = await self._store.claim(call.body.worker, self._abandoned_seconds)
        answer: dict[str, Any] | None = None if job is None else job.order()
        return Reply(answer)

    async def _release(self, call: Call) -> Reply:
        job_id = call.arguments["jobId"]
        if not await self._store.give_back(job_id, call.body.worker):
            owned(await self._store.get(job_id), job_id, call.principal)
            raise conflict("worker", NOT_ITS_OWN)
        return Reply()
