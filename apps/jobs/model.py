"""Jobs: what one is, how it goes on, and what of an update is news. Pure.

Owns the rules: a job goes from pending to processing to completed or failed, and not back; nothing comes after the end;
an update that is older than what is known is no news (services report over ways that do not keep order); of a job that
was given to another worker the one before has nothing to say any more. Must never know of databases, requests or who
asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Literal

import ujson
from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, field_validator

from apps.moments import written
from handlers.endpoints import Body, Page, Safe

Status = Literal["pending", "processing", "completed", "failed"]
RANK: Mapping[str, int] = {"pending": 0, "processing": 1, "completed": 2, "failed": 2}
_TOPICS = "jobs/"
FINAL = frozenset(["completed", "failed"])
MAX_DATA_BYTES = 16_384
# What is being done, in the order in which a worker does it.
RETRIEVING, PROCESSING, SUMMARISING, DONE = "retrieving-content", "processing-articles", "generating-summary", "done"


def _check_writable(value: datetime) -> datetime:
    try:
        written(value.timestamp())
    except ValueError:
        raise ValueError("must be a time of the years 1 to 9999 in UTC") from None
    return value


Word = Annotated[str, StringConstraints(min_length=1, max_length=200), Safe]
Source = Annotated[str, StringConstraints(min_length=1, max_length=500), Safe]
Worker = Annotated[str, StringConstraints(min_length=1, max_length=100), Safe]

GivenText = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]


class NewJob(Body):
    """What is to be done: topics of interest, and where to read of them (names of files, URLs), or texts themselves."""

    topics: Annotated[list[Word], Field(min_length=1, max_length=20)]
    sources: Annotated[list[Source], Field(default_factory=list, max_length=20)]
    texts: Annotated[list[GivenText], Field(default_factory=list, max_length=5)]


class Update(Body):
    """What a service reports. `timestamp` is when it was so (now, if it does not say). A `worker` that took the job
    names itself, and is refused if it is another's by now."""

    jobId: str | None = None
    status: Status
    progress: Annotated[int, Field(ge=0, le=100)]
    stage: Annotated[str, StringConstraints(max_length=100), Safe] = ""
    message: Annotated[str, StringConstraints(max_length=1_000), Safe] = ""
    timestamp: Annotated[AwareDatetime, AfterValidator(_check_writable)] | None = None
    data: dict[str, Any] | None = None
    worker: Worker | None = None

    @field_validator("data")
    @classmethod
    def _check_size(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and len(ujson.dumps(value, ensure_ascii=False).encode()) > MAX_DATA_BYTES:
            raise ValueError(f"must be at most {MAX_DATA_BYTES} bytes of JSON")
        return value


class JobList(Page):
    """Which jobs to list."""

    status: Status | None = None


@dataclass(frozen=True, slots=True)
class State:
    """How a job stands: what its stream says, in the words of the seed."""

    jobId: str
    status: str
    progress: int
    stage: str
    message: str
    timestamp: str
    data: dict[str, Any] | None = None

    @property
    def finished(self) -> bool:
        return self.status in FINAL

    def facts(self) -> dict[str, Any]:
        """As JSON; `data` only if there are any."""
        facts = asdict(self)
        if self.data is None:
            del facts["data"]
        return facts

    def text(self) -> str:
        """As it stands in an event."""
        return ujson.dumps(self.facts(), ensure_ascii=False, escape_forward_slashes=False)


class Finished(Exception):
    """The job has come to its end; nothing more can be said of it."""


class GoesBack(Exception):
    """A job does not go back to an earlier status."""


class NotItsOwn(Exception):
    """The job is another worker's."""


def topic_of(job_id: str) -> str:
    """The topic of a job's events. They are private: who may read them is granted it."""
    return f"{_TOPICS}{job_id}"


def job_of(topic: str) -> str:
    """The job that a topic is of; "" if it is of none."""
    return topic.removeprefix(_TOPICS) if topic.startswith(_TOPICS) else ""


def first_state(job_id: str, now: datetime) -> State:
    """How a job begins."""
    return State(job_id, "pending", 0, "queued", "waiting for a worker", written(now.timestamp()))


def advance(state: State, update: Update, now: datetime) -> State | None:
    """How the job stands after an update; None if that is no news. Raises Finished, GoesBack."""
    moment = written((update.timestamp or now).timestamp())
    after = State(state.jobId, update.status, update.progress, update.stage, update.message, moment, update.data)
    if replace(after, timestamp=state.timestamp) == state or moment < state.timestamp:
        return None
    if state.finished:
        raise Finished
    if RANK[after.status] < RANK[state.status]:
        raise GoesBack
    return after if after.status != "completed" else replace(after, progress=100)
