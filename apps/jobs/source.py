"""A worker that is none: where nobody takes jobs, it goes through the stages, so that there is something to see.

Owns what it pretends. Every message says that it is simulated, and so do the result's data. It is for development mode
alone, and takes nothing as long as a worker is heard of; one node at a time does it (a lease), and gives its jobs back
when it stops. Must never know of streams.
Cost: with no job a look into the database every `TICK_SECONDS`, on the node that has the lease.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from apps.jobs.model import DONE, PROCESSING, RETRIEVING, SUMMARISING, Finished, NotItsOwn, State, Status, Update
from apps.jobs.store import Job, JobStore
from apps.jobs.workers import Workers
from bridges.database import DatabaseUnavailable
from bridges.leases import Turn
from server.logs import get_logger

TICK_SECONDS = 0.25
RETRY_SECONDS = 1.0
WAIT_SECONDS = 1.5  # a worker asks once a second: it comes first
MAX_JOBS = 8
MARK = " (simulated)"

log = get_logger("jobs")

Report = Callable[[str, Update], Awaitable[State | None]]


class Step(NamedTuple):
    """What is said, and at which share of the time."""

    share: float
    status: Status
    stage: str
    progress: int
    message: str


@dataclass(slots=True)
class Pretended:
    """A job in hand."""

    job: Job
    began: float
    steps: list[Step]


class Simulation:
    """`seconds`: how long a job takes. `report` takes an update as the handlers do."""

    def __init__(
        self,
        store: JobStore,
        workers: Workers,
        turn: Turn,
        report: Report,
        *,
        name: str,
        seconds: float,
        abandoned_seconds: float,
    ) -> None:
        self._store = store
        self._workers = workers
        self._turn = turn
        self._report = report
        self._name = f"simulation {name}"[:100]
        self._seconds = seconds
        self._abandoned_seconds = abandoned_seconds
        self._in_hand: dict[str, Pretended] = {}
        self.made = 0

    async def run(self) -> None:
        """Take jobs and go on with those that there are, for ever, when it is this node's turn. A job that another has
        taken meanwhile is left to it."""
        while True:
            await self._turn.wait()
            wait = TICK_SECONDS
            try:
                await self._step()
            except DatabaseUnavailable:
                wait = RETRY_SECONDS  # the outbox says so
            await asyncio.sleep(wait)

    async def _step(self) -> None:
        if await self._is_wanted():
            job = await self._store.claim(self._name, self._abandoned_seconds)
            if job is not None:
                self._in_hand[job.state.jobId] = Pretended(job, time.monotonic(), list(_steps(job)))
        for job_id, pretended in list(self._in_hand.items()):
            await self._go_on(job_id, pretended)

    async def _is_wanted(self) -> bool:
        free = not self._workers.number and len(self._in_hand) < MAX_JOBS
        return free and await self._store.waits_since(time.time() - WAIT_SECONDS)

    async def _go_on(self, job_id: str, pretended: Pretended) -> None:
        passed = (time.monotonic() - pretended.began) / self._seconds
        due = [step for step in pretended.steps if step.share <= passed]
        if not due:
            return
        step = due[-1]
        pretended.steps = pretended.steps[len(due) :]
        data = _result(pretended.job) if not pretended.steps else None
        update = Update(
            status=step.status, progress=step.progress, stage=step.stage, message=step.message + MARK, data=data,
            worker=self._name,
        )  # fmt: skip
        try:
            state = await self._report(job_id, update)
        except (Finished, NotItsOwn):
            state = None
        if state is None or not pretended.steps:
            del self._in_hand[job_id]
            self.made += state is not None

    async def stop(self) -> None:
        """Give back what is in hand. The turn's end is its own."""
        try:
            for job_id in self._in_hand:
                await self._store.give_back(job_id, self._name)
        except DatabaseUnavailable:
            pass  # they are taken for abandoned


def _names(job: Job) -> list[str]:
    texts = [f"text {number}" for number in range(1, len(job.wanted.get("texts", ())) + 1)]
    return [*texts, *job.wanted["sources"]]


def _steps(job: Job) -> Iterator[Step]:
    """In the order of their shares."""
    names = _names(job)
    for stage, begin, part in ((RETRIEVING, 0, 50), (PROCESSING, 50, 30)):
        for number, name in enumerate(names):
            progress = begin + part * number // len(names)
            what = f"{number + 1} of {len(names)}: {name}"
            yield Step(progress / 100, "processing", stage, progress, what)
    yield Step(0.85, "processing", SUMMARISING, 90, "choosing sentences")
    yield Step(1.0, "completed", DONE, 100, f"{len(names)} sentences of {len(names)} sources")


def _result(job: Job) -> dict[str, Any]:
    topics = job.wanted["topics"]
    said = [
        {"source": name, "text": f"What {name} says of {topics[number % len(topics)]} would stand here."}
        for number, name in enumerate(_names(job))
    ]
    return {"simulated": True, "summary": said, "keywords": topics[:8], "words": 0}
