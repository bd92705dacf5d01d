"""Reports that come in messages: of Redis pub/sub, of Google Pub/Sub, of whatever gives a body and attributes.

Owns the reading of such a message and its refusal. Must never know which way it came. What it says is for the handlers
that take reports over HTTP too, so the rules are the same.

Invariant: a report that does not fit is refused, counted and told of, and stops nothing; a message that comes twice is
no news the second time.
Cost: a transaction per message.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import ujson
from pydantic import ValidationError

from apps.jobs.model import Finished, GoesBack, Heard, NotItsOwn, State, Update
from bridges.mapping import Message, Unmappable

JOB = "jobId"

Report = Callable[[str, Update], Awaitable[State | None]]


class Reports:
    """`report` takes an update of a job; None if there is no such job."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.taken = self.refused = 0

    async def take(self, data: bytes | str, attributes: Mapping[str, str]) -> None:
        """Take the report that a message's data hold. Which job it is of says `jobId`, in the data or in the
        attributes. Raises Unmappable if it will never do, DatabaseUnavailable if it should come again later."""
        try:
            job_id, update = read(data, attributes)
            await self._take(job_id, update)
        except Unmappable:
            self.refused += 1
            raise
        self.taken += 1

    async def _take(self, job_id: str, update: Update) -> None:
        try:
            state = await self._report(job_id, update)
        except Finished:
            raise Unmappable("status", "the job has come to its end") from None
        except GoesBack:
            raise Unmappable("status", "a job does not go back to an earlier status") from None
        except NotItsOwn:
            raise Unmappable("worker", "the job is another worker's") from None
        if state is None:
            raise Unmappable(JOB, "is no job's")

    async def from_pubsub(self, message: Message) -> None:
        """What came through a subscription of Google Pub/Sub. Raises as `take`."""
        await self.take(message.body, message.attributes)

    async def from_redis(self, message: Message) -> None:
        """What was published on `job:ID:updates`. Raises as `take`."""
        await self.take(message.body, {JOB: message.source.split(message.separator)[1]})


def read(data: bytes | str, attributes: Mapping[str, str]) -> tuple[str, Update]:
    """The job and the update that a message is of. Raises Unmappable."""
    try:
        facts: Any = ujson.loads(data)
    except (ValueError, RecursionError):
        raise Unmappable("body", "is not JSON") from None
    if not isinstance(facts, dict):
        raise Unmappable("body", "is not an object")
    named = attributes.get(JOB)
    job_id = facts.setdefault(JOB, named)
    if not isinstance(job_id, str) or not job_id:
        raise Unmappable(JOB, "is missing")
    if named not in (None, job_id):
        raise Unmappable(JOB, "is another one than that of the message's channel or attributes")
    try:
        return job_id, Heard.model_validate(facts)
    except ValidationError as error:
        raise _unmappable(error) from None


def _unmappable(error: ValidationError) -> Unmappable:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return Unmappable(str(first["loc"][0]), first["msg"].removeprefix("Value error, "))
