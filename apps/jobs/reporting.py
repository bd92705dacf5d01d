"""Reporting: what a worker says of a job, until it is known to have arrived.

Owns the ways (HTTP to a node, Redis PUBLISH; pubsub_connection.py has the third), the tries and the waits between them,
and the beat that keeps a job from being given to another while its worker is busy. Must never know what the work is.

Invariants: of one job, reports go one after another and their timestamps rise, from that of the claim on, whatever the
clocks of the nodes say; so none is taken for old. The last report is settled when a node knows of the job's end: an
answer over HTTP, else by asking. While nobody takes reports everything waits here, in the one report of each job, of
which there are as many as jobs in hand.
Cost: a request per report; a thread per report with Pub/Sub.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import ujson
from redis.asyncio import RedisCluster

from apps.jobs.model import FINAL
from apps.jobs.nodes import Away, Nodes, Refusal
from apps.jobs.targets import updates_redis
from apps.moments import written
from bridges.bridge import Waits
from config.settings import Settings
from server.logs import get_logger
from server.relay.redis_client import ERRORS, Target, connect, reason_of

ROOT = "/api/v1/jobs"
SETTLE_SECONDS = 2.0  # for a report without an answer to arrive
LOOK_SECONDS = 0.1
MILLISECOND = timedelta(milliseconds=1)

log = get_logger("job_worker")


class Lost(Exception):
    """The job is not this worker's any more. `reason` is the node's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Way(Protocol):
    """A way for reports. `answered`: what was sent has arrived."""

    answered: bool

    async def send(self, job_id: str, report: dict[str, Any]) -> None:
        """Send a report. Raises Away, Refusal."""

    async def close(self) -> None:
        """Let go of connections."""


class ByHttp:
    """To a node."""

    answered = True

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    async def send(self, job_id: str, report: dict[str, Any]) -> None:
        """See Way."""
        await self._nodes.ask("POST", f"{ROOT}/{job_id}/updates", report)

    async def close(self) -> None:
        """See Way."""


class ByRedis:
    """`PUBLISH job:ID:updates`. Redis says how many heard it; whether it was taken it can't."""

    answered = False

    def __init__(self, target: Target) -> None:
        self._client: Any = connect(target)

    async def send(self, job_id: str, report: dict[str, Any]) -> None:
        """See Way."""
        try:
            heard = await self._client.publish(f"job:{job_id}:updates", dumped(report))
        except ERRORS as error:
            raise Away(reason_of(error)) from None
        # In a cluster it counts those alone that are connected to the very node that was asked.
        if not heard and not isinstance(self._client, RedisCluster):
            raise Away("no node listens in redis")

    async def close(self) -> None:
        """See Way."""
        await self._client.aclose()


def make_way(settings: Settings, nodes: Nodes) -> Way:
    """The way that the settings want. Raises ValueError if it can't be gone."""
    if settings.jobs_report_by == "http":
        return ByHttp(nodes)
    if settings.jobs_report_by == "redis":
        target = updates_redis(settings)
        if target is None:
            raise ValueError("jobs_redis: reports go by redis, and there is none")
        return ByRedis(target)
    if not settings.jobs_pubsub_topic:
        raise ValueError("jobs_pubsub_topic: reports go by pubsub, and there is none")
    try:
        from apps.jobs.pubsub_connection import ByPubSub  # the library is an extra that few need
    except ModuleNotFoundError:
        raise ValueError("jobs_report_by: needs the package google-cloud-pubsub (ringcast[pubsub])") from None
    return ByPubSub(settings.jobs_pubsub_topic, settings.pubsub_url, settings.pubsub_credentials)


def dumped(report: dict[str, Any]) -> str:
    """A report as it is sent."""
    return ujson.dumps(report, ensure_ascii=False, escape_forward_slashes=False)


class Teller:
    """What a worker says of one job. `since` is the timestamp that the job had when it was taken. All waits are on
    `clock` and by `sleep`."""

    def __init__(
        self,
        way: Way,
        nodes: Nodes,
        job_id: str,
        worker: str,
        since: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._way = way
        self._nodes = nodes
        self._job_id = job_id
        self._worker = worker
        self._moment = datetime.fromisoformat(since)
        self._last: dict[str, Any] = {}
        self._turn = asyncio.Lock()
        self._clock = clock
        self._sleep = sleep

    async def say(self, stage: str, progress: int, message: str) -> None:
        """How far the work is. Returns when that has been taken. Raises Lost."""
        report = {"status": "processing", "progress": progress, "stage": stage, "message": message}
        async with self._turn:
            self._last = self._stamped(report)
            await self._until_taken(self._send)

    async def end(self, status: str, stage: str, progress: int, message: str, data: dict[str, Any]) -> None:
        """The last word, `completed` or `failed`. Returns when a node knows of it. Raises Lost."""
        report = {"status": status, "progress": progress, "stage": stage, "message": message, "data": data}
        async with self._turn:
            self._last = self._stamped(report)
            await self._until_taken(self._send if self._way.answered else self._settle)
            self._last = {}

    async def beat(self, seconds: float) -> None:
        """Say again what was said last, for ever. Raises Lost."""
        while True:
            await self._sleep(seconds)
            async with self._turn:
                if self._last:
                    await self._until_taken(self._send)

    def _stamped(self, report: dict[str, Any]) -> dict[str, Any]:
        self._moment = max(self._moment + MILLISECOND, datetime.now(UTC))
        return {"jobId": self._job_id, **report, "timestamp": written(self._moment.timestamp()), "worker": self._worker}

    async def _send(self) -> None:
        await self._way.send(self._job_id, self._last)

    async def _settle(self) -> None:
        """Send, and see that it has arrived. Raises Away if it has not yet, Refusal if the job is another's."""
        await self._send()
        end = self._clock() + SETTLE_SECONDS
        while self._clock() < end:
            found = await self._nodes.ask("GET", f"{ROOT}/{self._job_id}")
            if found["status"] in FINAL:
                return
            if found["worker"] != self._worker:
                raise Refusal(409, "the job is another worker's")
            await self._sleep(LOOK_SECONDS)
        raise Away("the last report has not arrived")

    async def _until_taken(self, send: Callable[[], Awaitable[None]]) -> None:
        waits = Waits()
        while True:
            try:
                return await send()
            except Away as error:
                log.debug("report_waits", job=self._job_id, reason=error.reason)
            except Refusal as error:
                raise Lost(error.reason) from None
            await self._sleep(waits.next())
