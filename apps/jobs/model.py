"""Jobs: what one is, how it goes on, and what of an update is news. Pure.

Owns the rules: a job goes from pending to processing to completed or failed, and not back; nothing comes after the end;
an update that is older than what is known is no news (services report over ways that do not keep order); of a job that
was given to another worker the one before has nothing to say any more. Must never know of databases, requests or who
asks.

Invariants: a later status is news whatever its timestamp: services' clocks are not the nodes', and an end that was
taken for old would leave its readers waiting for ever. Timestamps order updates of one status alone. What is told of a
job has timestamps that rise, and none is of a time to come (but for the milliseconds that this may take).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator

from apps.moments import written
from handlers.answers import dumps
from handlers.endpoints import Body, Page, Safe
from server.event import is_safe

Status = Literal["pending", "processing", "completed", "failed"]
RANK: Mapping[str, int] = {"pending": 0, "processing": 1, "completed": 2, "failed": 2}
_TOPICS = "jobs/"
FINAL = frozenset(["completed", "failed"])
MAX_DATA_BYTES = 16_384
MAX_STAGE_CHARACTERS, MAX_MESSAGE_CHARACTERS = 100, 1_000
MILLISECOND = timedelta(milliseconds=1)
_TOLD = ("jobId", "status", "progress", "stage", "message", "timestamp")
# What is being done, in the order in which a worker does it.
RETRIEVING, PROCESSING, SUMMARISING, DONE = "retrieving-content", "processing-articles", "generating-summary", "done"


def _in_utc(value: datetime) -> datetime:
    """One without a zone is of UTC."""
    moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    try:
        written(moment.timestamp())
    except ValueError:
        raise ValueError("must be a time of the years 1 to 9999 in UTC") from None
    return moment


def shortest(value: float) -> float:
    """40 and not 40.0: what services say comes out as it went in."""
    return int(value) if value == int(value) else value


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
    """What a service reports. `timestamp` is when it was so (now, if it does not say). `data` of null are none. A
    `worker` that took the job names itself, and is refused if it is another's by now."""

    jobId: str | None = None
    status: Status
    progress: Annotated[float, Field(ge=0, le=100), AfterValidator(shortest)]
    stage: Annotated[str, StringConstraints(max_length=MAX_STAGE_CHARACTERS), Safe] = ""
    message: Annotated[str, StringConstraints(max_length=MAX_MESSAGE_CHARACTERS), Safe] = ""
    timestamp: Annotated[datetime, AfterValidator(_in_utc)] | None = None
    data: Any = None
    worker: Worker | None = None

    @field_validator("data")
    @classmethod
    def _check_data(cls, value: Any) -> Any:
        try:
            size = len(dumps([[[value]]])) - 6  # as deep as in the list of jobs: deeper than it can be read
        except (ValueError, OverflowError):  # that, NaN, half a surrogate pair: some parsers let them in
            raise ValueError("must be JSON") from None
        if size > MAX_DATA_BYTES:
            raise ValueError(f"must be at most {MAX_DATA_BYTES} bytes of JSON")
        return value


class Heard(Update):
    """An update that came in a message. Nobody is there to be told of a field that is not known, and what services add
    for others must not cost the rest; nor must the words of a failure that are many, or of many lines."""

    model_config = ConfigDict(extra="ignore")

    @field_validator("stage", "message", mode="before")
    @classmethod
    def _shown(cls, value: object, info: ValidationInfo) -> object:
        """In one line, as much of it as is shown."""
        if not isinstance(value, str):
            return value
        most = MAX_STAGE_CHARACTERS if info.field_name == "stage" else MAX_MESSAGE_CHARACTERS
        return "".join(one if is_safe(one) else " " for one in value[:most])


class JobList(Page):
    """Which jobs to list."""

    status: Status | None = None


@dataclass(frozen=True, slots=True)
class State:
    """How a job stands: what its stream says, in the words of the seed. `said` is the time (unix seconds) that the last
    update gave itself, None before the first; that of the stream is `timestamp`."""

    jobId: str
    status: str
    progress: float
    stage: str
    message: str
    timestamp: str
    data: Any = None
    said: float | None = None

    @property
    def finished(self) -> bool:
        return self.status in FINAL

    def facts(self) -> dict[str, Any]:
        """As JSON; `data` only if there are any."""
        # Not `asdict`: that copies `data`, and what is nested deeply is more than it can.
        facts = {name: getattr(self, name) for name in _TOLD}
        return facts if self.data is None else facts | {"data": self.data}

    def text(self) -> str:
        """As it stands in an event."""
        return dumps(self.facts()).decode()


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
    progress = 100 if update.status == "completed" else update.progress
    said = (update.timestamp or now).timestamp()
    after = replace(
        state, status=update.status, progress=progress, stage=update.stage, message=update.message, data=update.data
    )
    if after.text() == state.text():  # of values 0, 0.0 and false would be the same
        return None
    # An earlier status is no news either way: what only came late is not to be complained of.
    if RANK[after.status] <= RANK[state.status] and _is_older(state, update, now):
        return None
    if state.finished:
        raise Finished
    if RANK[after.status] < RANK[state.status]:
        raise GoesBack
    return replace(after, timestamp=_told(state, update, now), said=said)


def _is_older(state: State, update: Update, now: datetime) -> bool:
    """True if what is known is of a later time. A clock that runs ahead orders its own updates; to others its word is
    of when it came, or they would not be heard until that time has come."""
    if update.timestamp is None or state.said is None:
        return False
    said = update.timestamp.timestamp()
    ahead = update.timestamp > now
    return said < (state.said if ahead else min(state.said, datetime.fromisoformat(state.timestamp).timestamp()))


def _told(state: State, update: Update, now: datetime) -> str:
    """The timestamp that the stream tells: the update's, but later than what was told before and not of a time to come.
    Clients order by it, whatever clocks services have."""
    moment = min(update.timestamp or now, now)
    return written(max(moment, datetime.fromisoformat(state.timestamp) + MILLISECOND).timestamp())
