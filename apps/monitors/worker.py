"""The worker (M3): a process that checks every enabled monitor at its interval and tells a node what it found.

Owns the life of that process: which monitors there are, how many are checked at a time, that it goes on whatever is
away, and its stop. Of several workers over one database one is at work (a lease); the others stand by and take over
within seconds.

The way of a result: check → a bounded list in memory (results.py) → the database, with what follows from it, in one
transaction (recorder.py) → the queue in the database → a node (sender.py).

Invariant: nothing that was stored is lost by a `kill -9`; what was sent twice is one event.
Cost: a task per check under way.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import quote

import psutil
import ujson
from alembic.script import ScriptDirectory
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from apps.monitors.checker import Checker
from apps.monitors.model import Outcome, Said
from apps.monitors.recorder import Recorder
from apps.monitors.results import Results
from apps.monitors.schedule import Monitor, Schedule
from apps.monitors.sender import Sender
from apps.monitors.tables import monitors, tenants, workers
from apps.workers import nodes_of
from bridges.database import MIGRATIONS, Database, DatabaseUnavailable
from bridges.leases import Lease, leases
from bridges.outbound import Outbound, PutOff
from config.settings import Settings
from server.logs import get_logger
from server.notify import Notifier
from server.supervision import cancelled, rest, supervise

LEASE = "monitor_worker"
LOOK_SECONDS = 1.0  # between two looks at which monitors there are
DUE_SECONDS = 0.2  # at most between two looks at what is due
REPORT_SECONDS = 2.0
FORGET_SECONDS = 86_400.0
RETRY_SECONDS = 1.0
FINISH_SECONDS = 5.0
MAX_IDS = 500  # in one statement
TENANT_SHARE = 5  # a tenant may have one in so many of the checks under way
SPARE_PACE = 1.25  # over what a tenant's monitors need at most, for jitter and changes

log = get_logger("monitor_worker")


class Worker:
    """See the module's head. Construct on a running loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._host = socket.gethostname()[:40]
        self.name = f"{self._host}-{os.getpid()}-{os.urandom(3).hex()}"
        self._database = Database(settings.database.get_secret_value())
        self._lease = Lease(self._database, LEASE, self.name)
        secret = settings.monitors_secret
        self._sender = Sender(
            self._database,
            nodes_of(settings, settings.monitors_servers),
            secret.get_secret_value() if secret else None,
            seconds=settings.monitors_broadcast_seconds,
            keep=settings.monitors_keep_results,
        )
        self._recorder = Recorder(self._database, self._say, settings.monitors_keep_checks)
        self._outbound = Outbound(ports=settings.monitors_ports, allow_private=settings.monitors_allow_private)
        self._checker = Checker(
            self._outbound,
            address_per_minute=settings.monitors_host_per_minute,
            per_minute=60 * SPARE_PACE * settings.monitors_per_tenant / settings.monitors_min_interval_seconds,
        )
        self._schedule = Schedule(most_of_one=max(1, settings.monitors_concurrency // TENANT_SHARE))
        self._slots = asyncio.Semaphore(settings.monitors_concurrency)
        self._results = Results(settings.monitors_keep_results, self._store, self._lease.holds)
        self._checks: set[asyncio.Task[None]] = set()
        self._notifier = Notifier(self._status)
        self.counts = {"success": 0, "failure": 0, "put_off": 0}
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until `stopping` is set."""
        if not await self._opened():
            return
        log.info("monitor_worker_started", worker=self.name)
        self._notifier.ready()
        lasting: dict[str, Callable[[], Awaitable[None]]] = {
            "look": self._look_always,
            "schedule": self._check_all,
            "store": self._results.run,
            "send": self._send_all,
            "report": self._report_always,
            "beat": self._beat,
        }
        loop = asyncio.get_running_loop()
        tasks = {name: loop.create_task(supervise(name, work)) for name, work in lasting.items()}
        await self.stopping.wait()
        self._notifier.stopping(FINISH_SECONDS * 3)
        await cancelled([tasks.pop("schedule"), *self._checks])
        await self._finish(list(tasks.values()))
        log.info("monitor_worker_stopped")

    async def _opened(self) -> bool:
        """Wait for the database; False if it is time to stop. Nodes that share a file with a worker make its tables:
        only PostgreSQL lets two do it in turn."""
        said = False
        while not self.stopping.is_set():
            try:
                if not self._database.sqlite or await asyncio.to_thread(_has_tables, self._database.url):
                    await self._database.start()
                    await self._take_from_the_dead()
                    return True
                reason = "no node has made the tables yet"
            except DatabaseUnavailable as error:
                reason = error.reason
                await self._database.stop()
            if not said:
                log.warning("waiting_for_database", reason=reason)
                said = True
            await rest(self.stopping, RETRY_SECONDS)
        return False

    async def _take_from_the_dead(self) -> None:
        """A worker of this machine that was killed has still the lease, for seconds in which nobody checks."""
        async with self._database.writing() as connection:
            holder = (await connection.execute(select(leases.c.holder).where(leases.c.name == LEASE))).scalar()
            host, _, pid = (holder or "").rpartition("-")[0].rpartition("-")
            if host == self._host and pid.isdigit() and not psutil.pid_exists(int(pid)):
                mine = (leases.c.name == LEASE) & (leases.c.holder == holder)
                await connection.execute(update(leases).where(mine).values(until=0.0))

    async def _finish(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Store what was found, let another worker go on at once, and let go of everything."""
        try:
            async with asyncio.timeout(FINISH_SECONDS):
                await self._results.all_stored()
        except TimeoutError:
            log.error("results_lost", results=len(self._results))
        await cancelled(tasks)
        try:
            async with asyncio.timeout(FINISH_SECONDS), self._database.writing() as connection:
                await connection.execute(delete(workers).where(workers.c.name == self.name))
            await self._lease.give_up()
        except (DatabaseUnavailable, TimeoutError):
            pass  # they expire
        self._sender.close()
        self._outbound.close()
        await self._database.stop()
        self._notifier.close()

    # --- checks

    async def _look_always(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        """See whether this worker is the one that checks, and which monitors there are."""
        try:
            if await self._lease.holds():
                await self._update_schedule()
                return
        except DatabaseUnavailable as error:
            # It goes on with what it knows: the sites do not care about our database.
            log.warning("monitors_not_read", reason=error.reason)
            return
        self._schedule.keep(())
        self._results.give_up()

    async def _check_all(self) -> None:
        while True:
            while self._lease.held and (monitor := self._schedule.next(time.monotonic())) is not None:
                await self._slots.acquire()
                task = asyncio.get_running_loop().create_task(self._check(monitor))
                self._checks.add(task)
                task.add_done_callback(self._checks.discard)
            await asyncio.sleep(max(self._schedule.wait_seconds(time.monotonic(), DUE_SECONDS), 0.005))

    async def _update_schedule(self) -> None:
        real = select(monitors.c.id, monitors.c.changed).join_from(monitors, tenants).where(~tenants.c.simulated)
        async with self._database.reading() as connection:
            rows = (await connection.execute(real.where(monitors.c.enabled))).all()
            self._schedule.keep(row.id for row in rows)
            known = self._schedule.changes()
            news = [row.id for row in rows if known.get(row.id) != row.changed]
            for start in range(0, len(news), MAX_IDS):
                some = select(monitors).where(monitors.c.id.in_(news[start : start + MAX_IDS]))
                for row in await connection.execute(some):
                    self._schedule.put(_monitor(row), time.monotonic(), time.time())

    async def _check(self, monitor: Monitor) -> None:
        began, put_off = time.monotonic(), False
        try:
            outcome = await self._checker.check(monitor)
        except PutOff:
            self.counts["put_off"] += 1
            put_off = True
        except Exception:
            log.exception("check_failed", monitor=monitor.id)
        else:
            self.counts["success" if outcome.success else "failure"] += 1
            self._results.add(monitor.id, outcome)
        finally:
            self._slots.release()
            self._schedule.done(monitor.id, began, time.monotonic(), put_off=put_off)

    # --- results

    async def _store(self, monitor_id: str, outcome: Outcome) -> None:
        await self._recorder.record(monitor_id, outcome)
        self._sender.wake()
        try:
            await self._sender.bound()
        except DatabaseUnavailable:
            pass  # this one is stored; the next looks again

    async def _say(self, connection: AsyncConnection, said: Sequence[Said]) -> None:
        await self._sender.put(connection, said)

    async def _send_all(self) -> None:
        while True:
            try:
                await self._sender.run(lambda: self._lease.held)
            except DatabaseUnavailable:
                pass  # who records says so
            await asyncio.sleep(RETRY_SECONDS)

    # --- what it says of itself

    def facts(self) -> dict[str, Any]:
        """For the nodes, which show it."""
        return {
            "active": self._lease.held,
            "monitors": len(self._schedule),
            "queue": self._sender.waiting + len(self._results),
            "sent": self._sender.sent,
            "refused": self._sender.refused,
            "dropped": self._results.dropped + self._sender.dropped,
            "checks": self.counts,
            "server": self._sender.state,
        }

    async def _report_always(self) -> None:
        while True:
            try:
                await self._report()
            except DatabaseUnavailable:
                pass
            await asyncio.sleep(REPORT_SECONDS)

    async def _report(self) -> None:
        now = time.time()
        values = {"seen": now, "facts": ujson.dumps(self.facts(), escape_forward_slashes=False)}
        async with self._database.writing() as connection:
            done = await connection.execute(update(workers).where(workers.c.name == self.name).values(values))
            if not done.rowcount:
                await connection.execute(insert(workers).values(name=self.name, **values))
                await connection.execute(delete(workers).where(workers.c.seen < now - FORGET_SECONDS))

    async def _beat(self) -> None:
        while True:
            self._notifier.beat(time.monotonic())
            await asyncio.sleep(0.5)

    def _status(self) -> str:
        state = "checking" if self._lease.held else "standing by"
        return f"{state}, {len(self._schedule)} monitors, {self._sender.waiting} results waiting"


def _monitor(row: Any) -> Monitor:
    return Monitor(
        row.id,
        row.tenant_id,
        row.url,
        row.interval_seconds,
        row.timeout_seconds,
        row.expected_status,
        row.check_ssl,
        row.changed,
        row.checked,
    )


def _has_tables(url: str) -> bool:
    """True if the schema of a file is that of this program. Blocking."""
    path = quote(url.partition(":///")[2])
    query = "SELECT version_num FROM ringcast_schema"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            found = [row[0] for row in connection.execute(query)]
    except sqlite3.OperationalError:
        return False
    return found == list(ScriptDirectory(str(MIGRATIONS)).get_heads())
