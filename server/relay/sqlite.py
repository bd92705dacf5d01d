"""The relay `sqlite:PATH`: every channel's log in one database file, which outlives the process.

Owns what happens on the loop: appends gather, go to the writer's thread as one transaction, come back, are delivered,
and only then answered. Must never touch the file itself (sqlite_writer and sqlite_reader do) or know of readers.

Invariants: one transaction is in flight at most, so entries commit and are delivered in the order of their positions;
an entry is delivered only after its commit, and before its publisher is answered; nothing above the last delivered
entry is ever read. What waits is bounded by events and bytes.
Cost: one transaction per turn of the loop at most, whatever the number of appends in it; no thread is started per call.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from server.event import Event
from server.logs import get_logger
from server.relay.idempotency import Receipt
from server.relay.positions import LEASE_US, microseconds
from server.relay.protocol import Appended, Deliver, Entry, Key, LogState, RelayUnavailable, Retention, Stretch, Turned
from server.relay.sqlite_checkpoints import Checkpoints
from server.relay.sqlite_file import LogFile
from server.relay.sqlite_log import StoredLog
from server.relay.sqlite_reader import LogReader
from server.relay.sqlite_writer import LogWriter, Outcome, Tidied, Write
from server.relay.waiting import Pending, Waiting
from server.relay.worker import Worker, WorkerStopped
from server.shards import ALL, Shards

# How often age is looked at, free pages are given back, and a disk that failed is tried again.
TIDY_SECONDS = 1.0
# A transaction that takes longer than this means that the disk does not answer.
STALL_SECONDS = 10.0

DURABILITY = {
    "OFF": "sqlite, synchronous OFF: survives kill -9 of the process; a crash of the machine may damage the file",
    "NORMAL": "sqlite, synchronous NORMAL: survives kill -9 of the process; a power cut may take the last seconds",
    "FULL": "sqlite, synchronous FULL: survives kill -9 of the process, a crash of the machine and a power cut",
}

NOT_OPEN = "the log is not open"
CLOSED = "the log is closed"
STOPPED = "the log has stopped"

T = TypeVar("T")
logger = get_logger("relay")


@dataclass(slots=True)
class Batch:
    """What is in flight: the appends of a transaction, and the ceilings written with them."""

    pending: list[Pending[StoredLog]]
    ceilings: dict[StoredLog, int]
    logs: set[StoredLog]
    since: float


class SqliteRelay:
    """Implements `Relay` for one process with a file. `synchronous` is OFF, NORMAL or FULL (see DURABILITY)."""

    shared = False
    board = None
    splitter = None

    def __init__(
        self,
        path: str,
        synchronous: str,
        idempotency_seconds: float,
        idempotency_keys: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.durability = DURABILITY[synchronous]
        self._file = LogFile(path, synchronous)
        self._log_writer = LogWriter(self._file, idempotency_seconds, idempotency_keys, clock)
        self._log_reader = LogReader(self._file)
        self._clock = clock
        self._logs: dict[str, StoredLog] = {}
        self._waiting: Waiting[StoredLog] = Waiting()
        self._leases: set[StoredLog] = set()
        self._in_flight: Batch | None = None
        self._flush_planned = False
        self._tidy_timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._opened = AsyncExitStack()
        self._refusing: str | None = NOT_OPEN
        self._fault: str | None = None
        self._transactions = 0

    async def start(self, deliver: Deliver, turned: Turned) -> None:
        del turned  # nobody else writes to the file
        self._loop = asyncio.get_running_loop()
        self._deliver = deliver
        try:
            await self._start_threads()
        except BaseException:
            await self._opened.aclose()
            raise
        self._refusing = None
        self._plan_tidy(TIDY_SECONDS)

    async def _start_threads(self) -> None:
        # What is opened first is closed last: the last connection removes the write-ahead log, and the writer's shall
        # do it.
        opened = self._opened
        opened.callback(self._file.release)
        self._writer = Worker("ringcast-log-writer", self._loop, partial(self._thread_died, "writing"))
        opened.push_async_callback(self._writer.stop)
        await self._writer.run(self._log_writer.start)
        opened.push_async_callback(self._close_writer)
        self._reader = Worker("ringcast-log-reader", self._loop, partial(self._thread_died, "reading"))
        opened.push_async_callback(self._reader.stop)
        await self._reader.run(self._log_reader.start)
        opened.push_async_callback(self._reader.run_if_alive, self._log_reader.close)
        self._checkpoints = Checkpoints(self._file, self._loop)
        opened.push_async_callback(self._checkpoints.stop)
        await self._checkpoints.start()

    async def _close_writer(self) -> None:
        ends = {log: log.positions.given for log in self._logs.values()}
        await self._writer.run_if_alive(partial(self._log_writer.close, ends))

    async def open(self, channel: str, retention: Retention, recent: int, recent_bytes: int = 0) -> LogState:
        if self._refusing is not None:
            raise RelayUnavailable(self._refusing)
        opened = await self._ask(self._writer, partial(self._log_writer.open, channel, retention))
        log = self._logs.setdefault(channel, opened)
        if recent <= 0 or not log.newest:
            return LogState(log.epoch, log.floor, [])
        newest = partial(self._log_reader.newest, log, log.newest, recent, recent_bytes)
        found = await self._ask(self._reader, newest)
        # Fewer than were asked for mean that there are no more after the floor: so it is where they begin.
        floor = found.entries[0].position - 1 if found.is_cut else 0
        return LogState(log.epoch, max(log.floor, floor), found.entries)

    async def append(self, channel: str, events: Sequence[Event], key: Key | None) -> Appended:
        if self._refusing is not None:
            raise RelayUnavailable(self._refusing)
        log = self._logs[channel]
        if not events:
            return Appended((), False)
        answer: asyncio.Future[Appended] = self._loop.create_future()
        self._waiting.put(log, events, key, answer)
        self._plan_flush()
        return await answer

    async def read(self, channel: str, after: int, limit: int, shards: Shards = ALL) -> Stretch:  # noqa: ARG002
        log = self._logs[channel]
        newest = log.newest
        if after >= newest:
            return Stretch((), after)
        entries = await self._ask(self._reader, partial(self._log_reader.read, log, after, newest, limit))
        return Stretch(entries, entries[-1].position if entries else newest)

    async def find(self, channel: str, event_id: str) -> Sequence[Entry]:
        log = self._logs[channel]
        return await self._ask(self._reader, partial(self._log_reader.find, log, event_id, log.newest))

    async def reach(self, channel: str, epoch: str, position: int) -> None:
        """Nobody is ahead of this process."""

    def mark(self, channel: str) -> int:
        log = self._logs[channel]
        now_us = microseconds(self._clock())
        # Not while the disk refuses: every cursor given out would be one more failed transaction.
        if log.positions.wants_lease(now_us) and self._refusing is None and self._fault is None:
            self._leases.add(log)
            self._plan_flush()
        return log.positions.mark(now_us)

    def floor(self, channel: str, shards: Shards = ALL) -> int:  # noqa: ARG002
        return self._logs[channel].floor

    lowest_floor = floor

    def state(self) -> dict[str, object]:
        reason = self._refusing or self._fault or self._stalled()
        facts: dict[str, object] = {"ok": reason is None, "kind": "sqlite", "durability": self.durability}
        if reason is not None:
            facts["reason"] = reason
        return facts | {
            "channels": len(self._logs),
            "events": sum(log.events for log in self._logs.values()),
            "bytes": sum(log.bytes for log in self._logs.values()),
            "waiting_events": self._waiting.events,
            "waiting_bytes": self._waiting.bytes,
            "transactions": self._transactions,
            "file_bytes": _size(self._file.path),
            "wal_bytes": _size(f"{self._file.path}-wal"),
        }

    async def close(self) -> None:
        if self._refusing in (NOT_OPEN, CLOSED):
            return
        working = self._refusing is None
        self._refusing = CLOSED
        if self._tidy_timer is not None:
            self._tidy_timer.cancel()
        if working:
            await self._settle()
        await self._opened.aclose()

    # --- appends, from the loop to the writer and back ---

    def _plan_flush(self) -> None:
        # At the end of this turn of the loop: what else is published in it goes along.
        if not self._flush_planned and self._in_flight is None:
            self._flush_planned = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_planned = False
        if self._in_flight is not None:
            return
        pending = self._waiting.take()
        if not pending and not self._leases:
            self._idle.set()
            return
        self._idle.clear()
        now_us = microseconds(self._clock())
        writes = [
            Write(wait.log, wait.log.positions.take(now_us, len(wait.events)), wait.events, wait.key, now_us)
            for wait in pending
        ]
        logs = {wait.log for wait in pending} | self._leases
        ceilings = {log: ceiling for log in logs if (ceiling := self._ceiling(log, now_us)) > log.positions.ceiling}
        self._leases.clear()
        batch = self._in_flight = Batch(pending, ceilings, logs, time.monotonic())
        self._writer.submit(partial(self._log_writer.write, writes, ceilings), partial(self._written, batch))

    def _ceiling(self, log: StoredLog, now_us: int) -> int:
        wanted = log.positions.wanted_ceiling
        return max(wanted, now_us + LEASE_US) if log in self._leases else wanted

    def _written(self, batch: Batch, outcomes: list[Outcome] | Exception) -> None:
        self._in_flight = None
        if isinstance(outcomes, Exception):
            self._not_written(batch, outcomes)
            return
        self._transactions += 1
        delivered = _by_log(batch.pending, outcomes)
        for log in batch.logs:
            log.newest = delivered[log][-1].position if log in delivered else log.newest
            log.positions.committed(log.newest, batch.ceilings.get(log, 0))
        # The next transaction is on its way while this one's entries are delivered.
        self._flush()
        for log, entries in delivered.items():
            self._deliver_entries(log, entries)
        for wait, outcome in zip(batch.pending, outcomes, strict=True):
            _answer(wait, outcome)
        self._checkpoints.wrote(sum(wait.bytes for wait in batch.pending))

    def _not_written(self, batch: Batch, error: Exception) -> None:
        for log in batch.logs:
            log.positions.failed()
        reason = STOPPED if isinstance(error, WorkerStopped) else getattr(error, "reason", "the log failed")
        for wait in batch.pending:
            if not wait.answer.done():
                wait.answer.set_exception(RelayUnavailable(reason))
        self._flush()
        # Last: what cannot be logged, on a full disk for one, must not keep publishers waiting.
        if not isinstance(error, RelayUnavailable | WorkerStopped):
            logger.error("transaction_failed", exc_info=error)
        self._failed(reason)

    def _deliver_entries(self, log: StoredLog, entries: list[Entry]) -> None:
        try:
            self._deliver(log.name, entries)
        except Exception:
            logger.exception("delivery_failed", channel=log.name, events=len(entries))

    async def _settle(self) -> None:
        """Wait until nothing is in flight or waiting."""
        self._leases.clear()
        while self._in_flight is not None or self._waiting:
            self._idle.clear()
            self._plan_flush()
            await self._idle.wait()

    # --- the rest of the threads' work ---

    async def _ask(self, worker: Worker, call: Callable[[], T]) -> T:
        try:
            return await worker.run(call)
        except WorkerStopped:
            raise RelayUnavailable(STOPPED) from None

    def _plan_tidy(self, seconds: float) -> None:
        self._tidy_timer = self._loop.call_later(seconds, self._tidy)

    def _tidy(self) -> None:
        probing = self._fault is not None
        self._writer.submit(partial(self._log_writer.tidy, probing), partial(self._tidied, probing))

    def _tidied(self, probing: bool, outcome: Tidied | Exception) -> None:
        if self._refusing is not None:
            return
        again = isinstance(outcome, Tidied) and outcome.more
        self._plan_tidy(0.0 if again else TIDY_SECONDS)
        if isinstance(outcome, Tidied) and outcome.wrote:
            self._checkpoints.wrote(0)
        self._checkpoints.tick()
        if isinstance(outcome, RelayUnavailable):
            self._failed(outcome.reason)
        elif isinstance(outcome, Exception):
            logger.error("tidying_failed", exc_info=outcome)
        elif probing:
            # Only here, and not after a small append that found room: once a second at most, so nothing flaps.
            self._fault = None
            logger.warning("log_takes_events")

    def _failed(self, reason: str) -> None:
        known, self._fault = self._fault, reason
        if known != reason:
            logger.error("log_refuses_events", reason=reason)

    def _stalled(self) -> str | None:
        batch = self._in_flight
        late = batch is not None and time.monotonic() - batch.since > STALL_SECONDS
        return "the disk does not answer" if late else None

    def _thread_died(self, purpose: str, fault: BaseException | None) -> None:
        self._refusing = STOPPED
        self._idle.set()
        logger.critical("log_thread_died", purpose=purpose, exc_info=fault)


def _by_log(pending: Sequence[Pending[StoredLog]], outcomes: Sequence[Outcome]) -> dict[StoredLog, list[Entry]]:
    """The entries to deliver, in order."""
    entries: dict[StoredLog, list[Entry]] = {}
    for wait, outcome in zip(pending, outcomes, strict=True):
        if isinstance(outcome, list):
            entries.setdefault(wait.log, []).extend(outcome)
    return entries


def _answer(wait: Pending[StoredLog], outcome: Outcome) -> None:
    if wait.answer.done():  # The publisher went away; its events stay.
        return
    if isinstance(outcome, list):
        wait.answer.set_result(Appended(tuple([entry.id for entry in outcome]), False))
    elif isinstance(outcome, Receipt):
        wait.answer.set_result(Appended(outcome.ids(wait.log.epoch), True))
    else:
        wait.answer.set_exception(outcome)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
