"""The writing side of the SQLite relay: transactions. Everything here runs in the writer's thread.

Owns the writing connection, the counts of each log and the order of statements in a transaction. Must never know of
futures, of the loop or of delivery.

Invariants: an append is written whole or not at all, alone or among others; no position above a ceiling that is
committed before or with it; counts in memory are those of the last commit (`stale` marks the ones to read again). Up to
`counted` they are stored; what was appended later is counted when the log is opened.
Cost: the append of one event without a key is one statement. Others add BEGIN, COMMIT and one UPDATE per channel; a
ceiling is renewed every 5 s.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from server.event import Event
from server.ids import new_epoch
from server.logs import get_logger
from server.relay.entries import make_entry
from server.relay.idempotency import Receipt, receipt_of
from server.relay.positions import LEASE_US, LeasedPositions, microseconds
from server.relay.protocol import Entry, Key, KeyConflict, Retention
from server.relay.sqlite_errors import is_about_the_file, refusal
from server.relay.sqlite_file import LogFile, checkpoint, transaction
from server.relay.sqlite_keys import StoredKeys
from server.relay.sqlite_log import StoredLog
from server.relay.sqlite_retention import give_back, is_aged, trim
from server.relay.sqlite_rows import Row, insert, is_one_statement, row_of
from server.relay.sqlite_wal import WriteAheadLog

# Written and removed again to see whether the disk takes data: more than what is left over in allocated pages as a
# rule.
_PROBE_BYTES = 256 << 10

logger = get_logger("relay")


@dataclass(slots=True)
class Write:
    """One append, numbered. `time_us` is its time."""

    log: StoredLog
    first: int
    events: Sequence[Event]
    key: Key | None
    time_us: int


class Tidied(NamedTuple):
    """What a step of tidying did: whether there is more to do, and whether it wrote anything."""

    more: bool
    wrote: bool


# The entries that are new, the receipt of the publish that had the key before, or what was wrong with this append
# alone.
Outcome = list[Entry] | Receipt | Exception


@dataclass(slots=True)
class Added:
    """What a transaction adds to one log."""

    time_us: int
    last: int = 0
    events: int = 0
    bytes: int = 0

    def add(self, entries: Sequence[Entry]) -> None:
        self.last = entries[-1].position
        self.events += len(entries)
        self.bytes += sum([len(entry.frame) for entry in entries])


@dataclass(slots=True)
class Admitted:
    """What a transaction is about to do: an outcome for each append, the new rows, and what they add to each log."""

    outcomes: list[Outcome]
    rows: list[Row]
    added: dict[StoredLog, Added]

    def count(self) -> None:
        """Add to the counts in memory."""
        for log, added in self.added.items():
            log.oldest_us = log.oldest_us if log.events else added.time_us
            log.events += added.events
            log.bytes += added.bytes

    @property
    def bytes(self) -> int:
        return sum([added.bytes for added in self.added.values()])


def _is_plain(admitted: Admitted) -> bool:
    """True if one INSERT does it all."""
    return is_one_statement(len(admitted.rows)) and not any(
        log.stale or log.is_over(added.events, added.bytes) for log, added in admitted.added.items()
    )


class LogWriter:
    """Made on the loop, used in the writer's thread, from `start` to `close`."""

    def __init__(self, file: LogFile, key_seconds: float, key_weight: int, clock: Callable[[], float]) -> None:
        self._file = file
        self._key_seconds = key_seconds
        self._key_weight = key_weight
        self._clock = clock
        self._logs: dict[str, StoredLog] = {}
        self._connection: sqlite3.Connection
        self._keys: StoredKeys
        self._wal: WriteAheadLog
        self._changes_tidied = 0

    def start(self) -> None:
        """Open the file. Raises RelayUnavailable."""
        self._connection = self._file.create()
        self._keys = StoredKeys(self._connection, self._key_seconds, self._key_weight)
        self._wal = WriteAheadLog(self._file, self._connection)

    def open(self, name: str, retention: Retention) -> StoredLog:
        """The log of a channel, created if need be. Raises RelayUnavailable."""
        log = self._logs.get(name)
        if log is None:
            try:
                log = self._load(name, retention)
            except sqlite3.Error as error:
                raise refusal(error, self._file.path) from error
            self._logs[name] = log
        log.retention = retention
        return log

    def _load(self, name: str, retention: Retention) -> StoredLog:
        ceiling = microseconds(self._clock()) + LEASE_US
        with transaction(self._connection):
            self._connection.execute(
                "INSERT OR IGNORE INTO channels (name, epoch, floor, ceiling, counted, events, bytes)"
                " VALUES (?, ?, 0, 0, 0, 0, 0)",
                (name, new_epoch()),
            )
            number, epoch, given = self._connection.execute(
                "SELECT id, epoch, ceiling FROM channels WHERE name = ?", (name,)
            ).fetchone()
            newest = self._connection.execute(
                "SELECT max(position) FROM events WHERE channel = ?", (number,)
            ).fetchone()[0]
            # Every cursor out there is at or below the old ceiling, wherever the clock is now.
            given = max(given, newest or 0)
            ceiling = max(ceiling, given)
            log = StoredLog(number, name, epoch, LeasedPositions(given, ceiling), retention)
            log.newest = newest or 0
            self._recount(log)
            self._store(log, log.newest, ceiling)
        return log

    def write(self, writes: Sequence[Write], ceilings: Mapping[StoredLog, int]) -> list[Outcome]:
        """Write appends and ceilings in one transaction; an outcome for each append. Raises RelayUnavailable."""
        # Before the transaction: the one before is already being answered.
        self._wal.bound()
        try:
            return self._write(writes, ceilings)
        except Exception as error:  # An append that SQLite cannot take must not fail its neighbours.
            if is_about_the_file(error):
                raise refusal(error, self._file.path) from error
            fault = error
        try:
            self._write([], ceilings)
        except sqlite3.Error as error:
            raise refusal(error, self._file.path) from error
        # One of them is at fault. Each in a transaction of its own is slow, and the surest way to find it.
        return [fault] if len(writes) == 1 else [self._write_alone(write) for write in writes]

    def _write_alone(self, write: Write) -> Outcome:
        try:
            return self._write([write], {})[0]
        except Exception as error:
            return refusal(error, self._file.path) if is_about_the_file(error) else error

    def _write(self, writes: Sequence[Write], ceilings: Mapping[StoredLog, int]) -> list[Outcome]:
        # Without a key nothing is asked of the database before the rows are written.
        keyed = any(write.key is not None for write in writes)
        admitted = None if keyed else self._admit_all(writes)
        if admitted is not None and not ceilings and _is_plain(admitted):
            insert(self._connection, admitted.rows)
            admitted.count()
            self._wal.wrote(admitted.bytes)
            return admitted.outcomes
        touched = {write.log for write in writes} | ceilings.keys()
        try:
            with transaction(self._connection):
                for log in touched:
                    self._recount(log)
                if admitted is None:
                    admitted = self._admit_all(writes)
                insert(self._connection, admitted.rows)
                admitted.count()
                for log in touched:
                    self._settle(log, admitted.added.get(log), ceilings.get(log))
        except BaseException:
            for log in touched:
                log.stale = True
            raise
        self._wal.wrote(admitted.bytes)
        return admitted.outcomes

    def _admit_all(self, writes: Sequence[Write]) -> Admitted:
        admitted = Admitted([], [], {})
        for write in writes:
            outcome = self._admit(write)
            admitted.outcomes.append(outcome)
            if isinstance(outcome, list):
                admitted.rows += [row_of(write.log.id, entry, write.time_us) for entry in outcome]
                admitted.added.setdefault(write.log, Added(write.time_us)).add(outcome)
        return admitted

    def _admit(self, write: Write) -> Outcome:
        """The entries to write, or why there are none. The key is taken here: the next append of the batch finds it."""
        log, key = write.log, write.key
        if key is not None:
            try:
                receipt = self._keys.find(log, key, write.time_us)
            except KeyConflict as conflict:
                return conflict
            if receipt is not None:
                return receipt
        seconds = write.time_us / 1e6
        entries = [
            make_entry(log.epoch, position, event, seconds) for position, event in enumerate(write.events, write.first)
        ]
        if key is not None:
            self._keys.put(log, key, receipt_of(entries), write.time_us)
        return entries

    def _settle(self, log: StoredLog, added: Added | None, ceiling: int | None) -> None:
        """Trim a log and store its counts, before the commit."""
        if log.is_over():
            trim(self._connection, log, self._clock(), added.events if added else 0, added.bytes if added else 0)
        self._store(log, added.last if added else self._newest(log), ceiling or 0)

    def _store(self, log: StoredLog, counted: int, ceiling: int) -> None:
        self._connection.execute(
            "UPDATE channels SET floor = ?, ceiling = max(ceiling, ?), counted = ?, events = ?, bytes = ? WHERE id = ?",
            (log.floor, ceiling, counted, log.events, log.bytes, log.id),
        )

    def _newest(self, log: StoredLog) -> int:
        row = self._connection.execute("SELECT max(position) FROM events WHERE channel = ?", (log.id,)).fetchone()
        return int(row[0] or 0)

    def _recount(self, log: StoredLog) -> None:
        """Read a log's counts if they are not known."""
        if not log.stale:
            return
        floor, counted, events, size = self._connection.execute(
            "SELECT floor, counted, events, bytes FROM channels WHERE id = ?", (log.id,)
        ).fetchone()
        later = "SELECT count(*), total(frame_bytes) FROM events WHERE channel = ? AND position > ?"
        more_events, more_bytes = self._connection.execute(later, (log.id, counted)).fetchone()
        log.raise_floor(floor)
        log.events, log.bytes = events + more_events, size + int(more_bytes)
        log.oldest_us = 0
        self._keys.load(log)
        log.stale = False

    def tidy(self, probing: bool) -> Tidied:
        """Drop what is over age and give pages back, one step. Raises RelayUnavailable."""
        before = self._connection.total_changes
        try:
            if probing:
                self._probe()
            for log in list(self._logs.values()):
                self._tidy(log)
            vacuuming = give_back(self._connection)
        except sqlite3.Error as error:
            raise refusal(error, self._file.path) from error
        now = self._clock()
        more = vacuuming or any(log.is_over() or is_aged(log, now) for log in self._logs.values())
        changes = self._connection.total_changes
        wrote = vacuuming or changes != before
        self._wal.tend(at_rest=not wrote and before == self._changes_tidied)
        self._changes_tidied = changes
        return Tidied(more, wrote)

    def _tidy(self, log: StoredLog) -> None:
        now = self._clock()
        now_us = microseconds(now)
        expired = self._keys.has_expired(log, now_us)
        if not (log.stale or log.is_over() or is_aged(log, now) or expired):
            return
        try:
            with transaction(self._connection):
                self._recount(log)
                if expired:
                    self._keys.expire(log, now_us)
                trim(self._connection, log, now)
                self._store(log, self._newest(log), 0)
        except BaseException:
            log.stale = True
            raise

    def _probe(self) -> None:
        """Find out whether the disk takes data again. The write-ahead log is emptied first: that may free enough."""
        checkpoint(self._connection, "TRUNCATE")
        with transaction(self._connection):
            self._connection.execute("REPLACE INTO facts VALUES ('probe', zeroblob(?))", (_PROBE_BYTES,))
        with transaction(self._connection):
            self._connection.execute("DELETE FROM facts WHERE name = 'probe'")

    def close(self, ends: Mapping[StoredLog, int]) -> None:
        """Store the counts, and the highest positions as ceilings, so that the next start is not ahead of time."""
        try:
            with transaction(self._connection):
                for log in ends:
                    self._recount(log)
                    self._store(log, self._newest(log), 0)
                    self._connection.execute("UPDATE channels SET ceiling = ? WHERE id = ?", (ends[log], log.id))
            self._file.note_end(self._connection)
            checkpoint(self._connection, "TRUNCATE")
        except sqlite3.Error as error:
            # Everything acknowledged is in the log; only the tidy end is missing.
            logger.warning("log_not_closed_in_order", reason=refusal(error, self._file.path).reason)
        finally:
            self._connection.close()
