"""What the endpoints of `jobs` answer, as the API's description shows it.

Owns the form of answers, and nothing that makes them.
"""

from __future__ import annotations

from typing import Any

from apps.jobs.model import Status
from handlers.endpoints import Answer


class Started(Answer):
    """The answer to a new job."""

    jobId: str
    sseEndpoint: str
    status: Status


class JobState(Answer):
    """How a job stands, as its stream says it. `data` if there are any."""

    jobId: str
    status: Status
    progress: float
    stage: str
    message: str
    timestamp: str
    data: Any = None


class Wanted(JobState):
    """How a job stands, and what was wanted of it."""

    created: str
    topics: list[str]
    sources: list[str]


class Order(Wanted):
    """A job for whoever works on it."""

    texts: list[str]


class ListedJob(Wanted):
    """A job in a list. `texts`: how many there are."""

    texts: int


class OneJob(ListedJob):
    """A job. Services also see its `worker`, and its `watchers`: the number of streams by node."""

    worker: str | None = None
    watchers: dict[str, int] | None = None


class Jobs(Answer):
    """One's own jobs, and how many workers there are."""

    jobs: list[ListedJob]
    limit: int
    offset: int
    workers: int
