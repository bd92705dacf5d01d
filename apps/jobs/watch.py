"""Watching jobs: streams of one job, from its present state to its end.

Owns who may watch and how often, what a stream begins with, and its end. Must never know how a job goes on (it hears of
it, on every node, as its streams do).

Invariants: a stream tells the present state first (the newest that this node knows: timestamps of a job rise), then
every change, the last one included; it ends once its reader has the last, and not while that is on its way from the
database to the log, or from there to this node; who comes back after that is told that there is nothing more (204).
That goes by where the end stands in the log, and by no clock. Who opens streams too often is refused before the
database is asked, and comes back later by itself (contract, Never stranded). Between the look into the database and the
opening of the stream nothing can be missed: what is delivered meanwhile is remembered here. A state may come twice, and
older ones behind a newer one that was first (timestamps tell) where a node died before it had them in the log.
Cost: a look into the database per stream; the states of the `MAX_KNOWN` jobs that changed last, on each node.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import ujson

from apps.jobs.limits import PerMinute
from apps.jobs.model import FINAL, RANK, job_of, topic_of
from apps.jobs.store import Job, JobStore
from handlers.answers import Refused, missing_token
from handlers.endpoints import not_found
from handlers.streams import Admitted, StreamCall
from handlers.subscribe import CURSOR_NAMES
from server.channel import Channel
from server.endings import FINISHED, RATE_LIMITED
from server.event import Event
from server.finishing import Finisher
from server.hub import Hub
from server.ids import parse_id
from server.relay.protocol import Entry
from server.rights import ANONYMOUS, Principal
from server.selection import Selection
from server.selectors import exact_selector

MAX_KNOWN = 10_000
FEEDS_AT_A_TIME = 1_000  # about a millisecond


class Known(NamedTuple):
    """What was delivered last of a job: the event's place in the log (epoch and position), its text and timestamp, and
    whether it was the end."""

    epoch: str
    position: int
    text: str
    timestamp: str
    final: bool


class Watch:
    """See the module's head. `per_minute` streams may be opened for one owner."""

    def __init__(self, store: JobStore, hub: Hub, finisher: Finisher, channel: str, *, per_minute: int) -> None:
        self._store = store
        self._hub = hub
        self._finisher = finisher
        self._channel = channel
        self._limit = PerMinute(per_minute)
        self.refused = 0
        self._known: OrderedDict[str, Known] = OrderedDict()
        # Jobs that have ended and whose end was not delivered here, and when somebody came for them (the loop's clock).
        self.ending: dict[str, float] = {}
        self.lost = asyncio.Event()  # set when some events may never come
        self.awaited = asyncio.Event()  # set when there is something in `ending`
        hub.listen(channel, self._delivered, self.lost.set)

    @property
    def channel(self) -> Channel:
        return self._hub.channels[self._channel]

    async def watchers(self) -> dict[str, int]:
        """How many streams of each job this node holds. Looks at every feed, some at a time."""
        found: dict[str, int] = {}
        for number, feed in enumerate(list(self.channel.feeds.values()), 1):
            if number % FEEDS_AT_A_TIME == 0:
                await asyncio.sleep(0)
            for selector in feed.selection.topics or ():
                job_id = job_of(selector.text)
                if job_id:
                    found[job_id] = found.get(job_id, 0) + feed.members
        return found

    def watching(self, job_id: str) -> int:
        """How many streams of this job this node holds. A look-up."""
        return sum(feed.members for feed in self.channel.index.of_topic(topic_of(job_id)))

    def _delivered(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            job_id = job_of(entry.event.topics[0]) if entry.event.topics else ""
            status, timestamp = _told_by(job_id, entry.event) if job_id else ("", "")
            if not status:
                continue
            known = Known(self.channel.epoch, entry.position, entry.event.data, timestamp, status in FINAL)
            self._known[job_id] = known
            self._known.move_to_end(job_id)
            if known.final:
                self._finisher.finish(self.channel, topic_of(job_id), time.monotonic())
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    async def admit(self, call: StreamCall) -> Admitted:
        """The stream of one job. Raises Refused."""
        job_id = call.arguments["jobId"]
        self._count(call.principal)
        before = self._known.get(job_id)
        job = owned(await self._store.get(job_id), job_id, call.principal)
        if job.state.finished:
            if self._has_seen_the_end(job, call):
                raise Refused(FINISHED)
            if not self.finish(job):
                self.ending[job_id] = time.monotonic()
                self.awaited.set()
        topic = exact_selector(topic_of(job_id))

        def greeting() -> bytes:
            # What was delivered since the look into the database may be newer, or older where this node's tail lags:
            # its reader may have seen what is newer on another node. What was delivered before the look is not, and
            # behind a failover of the relay may be all that is left of the log.
            known = self._known.get(job_id)
            newer = known is not None and known is not before and known.timestamp > job.state.timestamp
            text = known.text if known is not None and newer else job.state.text()
            return f"data: {text}\n\n".encode()  # JSON in one line

        return Admitted(Selection(frozenset([topic]), None, (topic,)), call.principal, greeting=greeting)

    def finish(self, job: Job) -> bool:
        """End the streams of a job that has ended, once their readers have everything; False if its end has not been
        delivered on this node, as far as is known."""
        if self._delivered_end(job) is None:
            told = self._told_end(job)
            # Parts of a split channel are delivered side by side: the newest of all says nothing of the others.
            if told is None or told > self.channel.log.head or self.channel.following.count > 1:
                return False
        self._finisher.finish(self.channel, topic_of(job.state.jobId), time.monotonic())
        return True

    def _delivered_end(self, job: Job) -> int | None:
        """The position of a job's end, if it was delivered here and the log is still the same."""
        known = self._known.get(job.state.jobId)
        return known.position if known is not None and known.final and known.epoch == self.channel.epoch else None

    def _told_end(self, job: Job) -> int | None:
        """The position of a job's end by the database, if that is of this log."""
        told = parse_id(job.told or "")
        return told[1] if told is not None and told[0] == self.channel.epoch else None

    def _count(self, principal: Principal) -> None:
        """Count a stream that somebody wants to open. Raises Refused."""
        if principal is ANONYMOUS:
            raise missing_token()
        if not self._limit.take(principal.subject or principal.scope):
            self.refused += 1
            raise Refused(RATE_LIMITED, reason=f"at most {self._limit.most} new streams a minute")

    def _has_seen_the_end(self, job: Job, call: StreamCall) -> bool:
        header = call.request.header(b"last-event-id")
        cursor = header or next((call.parameters[name] for name in CURSOR_NAMES if name in call.parameters), "")
        parsed = parse_id(cursor)
        if parsed is None or parsed[0] != self.channel.epoch:
            return False
        end = self._delivered_end(job) or self._told_end(job)
        return end is not None and parsed[1] >= end


def _told_by(job_id: str, event: Event) -> tuple[str, str]:
    """The status and the timestamp that an event tells of; "" twice if it is none of ours. Whoever may publish to the
    channel may publish anything there, also what would be more than one line of a greeting."""
    if not event.private or "\n" in event.data or "\r" in event.data:
        return "", ""
    try:
        facts = ujson.loads(event.data)
    except ValueError:
        return "", ""
    if not isinstance(facts, dict) or facts.get("jobId") != job_id:
        return "", ""
    status, timestamp = facts.get("status"), facts.get("timestamp")
    if not isinstance(status, str) or status not in RANK or not isinstance(timestamp, str):
        return "", ""
    return status, timestamp


def owned(job: Job | None, job_id: str, principal: Principal) -> Job:
    """The job, if it is this principal's: to others it is not there. Operators see all. Raises Refused."""
    if job is None or not (principal.operate or (principal.subject and principal.subject == job.owner)):
        raise not_found("jobId", f"there is no job {job_id}")
    return job
