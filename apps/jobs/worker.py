"""The worker: a process that takes jobs from the nodes, does them, and says how far it is.

Owns the life of that process: how many jobs are in hand, what becomes of them at a stop, and that it goes on whatever
is away. Must never know what the work is (work.py) or how a report travels (reporting.py). It has no database: a job is
its own by a claim at a node, and as long as it says something at least every `jobs_abandoned_seconds`.

Invariants: at most `jobs_concurrency` jobs in hand; a job's last report waits here until a node has it, so as many wait
at most. At a stop jobs that are under way are given back, and last reports have `FINISH_SECONDS` to arrive; what is not
known then, or a worker that was killed had in hand, is done again by another.
Cost: a request a second while there is nothing to do.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from typing import Any

from apps.jobs import work
from apps.jobs.model import DONE
from apps.jobs.nodes import Away, Nodes, Refusal
from apps.jobs.reading import Sources
from apps.jobs.reporting import ROOT, Lost, Teller, make_way
from bridges.bridge import Waits, first_of
from bridges.outbound import Outbound
from config.settings import Settings
from server.logs import get_logger
from server.notify import Notifier
from server.supervision import cancelled, rest

POLL_SECONDS = 1.0
BEATS = 3  # in the time after which a job counts as abandoned
LONGEST_BEAT_SECONDS = 10.0
FINISH_SECONDS = 10.0
GIVE_BACK_SECONDS = 3.0
NOTIFY_SECONDS = 0.5

log = get_logger("job_worker")


class Worker:
    """See the module's head. Construct on a running loop. Raises ValueError for settings that can't be."""

    def __init__(self, settings: Settings) -> None:
        self.name = f"{socket.gethostname()[:40]}-{os.getpid()}-{os.urandom(3).hex()}"
        self._concurrency = settings.jobs_concurrency
        self._beat_seconds = min(settings.jobs_abandoned_seconds / BEATS, LONGEST_BEAT_SECONDS)
        self._nodes = Nodes.of(settings)
        self._way = make_way(settings, self._nodes)
        self._outbound = Outbound(
            ports=settings.jobs_ports,
            allow_private=settings.jobs_allow_private,
            max_body_bytes=settings.jobs_source_bytes,
        )
        self._sources = Sources(
            settings.jobs_folder, self._outbound, settings.jobs_source_bytes, settings.jobs_host_per_minute
        )
        self._in_hand: dict[str, asyncio.Task[None]] = {}
        self._ending: set[str] = set()  # jobs that are done, and whose last report is on its way
        self._notifier = Notifier(lambda: f"{len(self._in_hand)} jobs in hand, {self.done} done")
        self._room = asyncio.Event()
        self.stopping = asyncio.Event()
        self.done = 0

    async def run(self) -> None:
        """Work until `stop`."""
        log.info("job_worker_started", worker=self.name)
        self._notifier.ready()
        beating = asyncio.get_running_loop().create_task(self._beat())
        await self._take_all()
        self._notifier.stopping(FINISH_SECONDS + GIVE_BACK_SECONDS)
        await self._finish()
        await cancelled([beating])
        await self._way.close()
        self._nodes.close()
        self._outbound.close()
        self._notifier.close()
        log.info("job_worker_stopped", done=self.done)

    def stop(self) -> None:
        """Take no more, and end soon."""
        self.stopping.set()
        self._room.set()

    # --- taking

    async def _take_all(self) -> None:
        """Take jobs as long as there is room. A claim is never broken off: its job would be nobody's for long."""
        waits = Waits()
        while not self.stopping.is_set():
            if len(self._in_hand) >= self._concurrency:
                self._room.clear()
                await self._room.wait()
                continue
            try:
                order = await self._nodes.ask("POST", f"{ROOT}/claim", {"worker": self.name})
            except Away:
                await rest(self.stopping, waits.next())
                continue
            except Refusal as error:
                log.error("claim_refused", status=error.status, reason=error.reason)
                await rest(self.stopping, waits.next())
                continue
            waits.reset()
            if order is None:
                await rest(self.stopping, POLL_SECONDS * (0.5 + random.random() / 2))
            else:
                self._begin(order)

    def _begin(self, order: dict[str, Any]) -> None:
        job_id = order["jobId"]
        log.info("job_taken", job=job_id)
        task = asyncio.get_running_loop().create_task(self._do(order))
        self._in_hand[job_id] = task
        task.add_done_callback(lambda _: self._put_down(job_id))

    def _put_down(self, job_id: str) -> None:
        self._in_hand.pop(job_id, None)
        self._ending.discard(job_id)
        self._room.set()

    async def _beat(self) -> None:
        while True:
            self._notifier.beat(time.monotonic())
            await asyncio.sleep(NOTIFY_SECONDS)

    # --- doing

    async def _do(self, order: dict[str, Any]) -> None:
        job_id = order["jobId"]
        teller = Teller(self._way, self._nodes, job_id, self.name, order["timestamp"])
        try:
            await first_of(self._work(order, teller), teller.beat(self._beat_seconds))
        except Lost as error:
            log.warning("job_lost", job=job_id, reason=error.reason)

    async def _work(self, order: dict[str, Any], teller: Teller) -> None:
        """Do the job and say how it ended. Raises Lost."""
        status, progress = "completed", 100
        try:
            message, data = await work.do(order, self._sources, teller)
        except Lost:
            raise
        except work.Failed as error:
            status, progress, message, data = "failed", error.progress, error.reason, error.data
        except Exception as error:  # a defect of ours, or a text that finds one: not to be met again and again
            log.exception("work_failed", job=order["jobId"])
            status, progress, message, data = "failed", 0, f"the worker failed ({type(error).__name__})", {}
        self._ending.add(order["jobId"])
        await teller.end(status, DONE if status == "completed" else "failed", progress, message, data)
        self.done += 1
        log.info("job_done", job=order["jobId"], status=status)

    # --- stopping

    async def _finish(self) -> None:
        """Give back what is under way, and let last reports arrive."""
        under_way = {job_id: task for job_id, task in self._in_hand.items() if job_id not in self._ending}
        ending = {job_id: task for job_id, task in self._in_hand.items() if job_id in self._ending}
        await cancelled(under_way.values())
        await asyncio.gather(*map(self._give_back, under_way))
        if ending:
            _, left = await asyncio.wait(ending.values(), timeout=FINISH_SECONDS)
            await cancelled(left)
            lost = [job_id for job_id, task in ending.items() if task in left]
            if lost:
                log.error("last_reports_not_taken", jobs=lost, meaning="they are done again by another worker")

    async def _give_back(self, job_id: str) -> None:
        try:
            async with asyncio.timeout(GIVE_BACK_SECONDS):
                await self._nodes.ask("POST", f"{ROOT}/{job_id}/release", {"worker": self.name})
        except (Away, Refusal, TimeoutError):
            return  # it counts as abandoned after a while
        log.info("job_given_back", job=job_id)
