"""The reading side of the SQLite relay: slices of a log. Everything here runs in the reader's thread, on a connection
of its own.

Owns the reading connection and what happens to damaged rows. Must never know of transactions in flight: the caller says
up to which position entries were delivered, and nothing above it is returned.

A write-ahead log lets readers go on while a commit is written, so a replay never waits for the disk. A damaged row is
not skipped in silence: the floor rises to it, and whoever replays past it declares a gap.
Cost: two statements per slice; about 10 microseconds a row, and `SLICE_BYTES` of frames in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from server.logs import get_logger
from server.relay.protocol import Entry
from server.relay.sqlite_errors import refusal
from server.relay.sqlite_file import LogFile
from server.relay.sqlite_log import StoredLog
from server.relay.sqlite_rows import DamagedRow, entry_of, select, select_numbers

# A slice ends before it passes this, whatever its limit; it holds one entry at least.
SLICE_BYTES = 1 << 20
RECENT_BYTES = 16 << 20
FOUND_BYTES = 16 << 20
MAX_FOUND = 100

T = TypeVar("T")
logger = get_logger("relay")


class Newest(NamedTuple):
    """The newest entries of a log. `is_cut` is true if they are fewer than were asked for and not all there are."""

    entries: list[Entry]
    is_cut: bool


class LogReader:
    """Made on the loop; the rest is for the reader's thread, from `start` to `close`. Raises RelayUnavailable."""

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self._connection: sqlite3.Connection

    def start(self) -> None:
        self._connection = self._guard(self._file.connect)
        self._guard(lambda: self._connection.execute("PRAGMA query_only = ON"))

    def close(self) -> None:
        self._connection.close()

    def read(self, log: StoredLog, after: int, upto: int, limit: int) -> list[Entry]:
        """Entries after a position, oldest first. Ends before a damaged row; begins after it, with the floor raised."""
        where = "channel = ? AND position > ? AND position <= ? ORDER BY position LIMIT ?"
        rows = self._guard(lambda: self._rows(where, (log.id, after, upto), limit, SLICE_BYTES))
        entries: list[Entry] = []
        for row in rows:
            try:
                entries.append(entry_of(log.epoch, row))
            except DamagedRow as damage:
                if entries:
                    break
                _report(log, damage)
        return entries

    def newest(self, log: StoredLog, upto: int, count: int, most_bytes: int) -> Newest:
        """The last entries, oldest first, of `most_bytes` (0: no bound) and `RECENT_BYTES` at the most; none from
        before a damaged row."""
        where = "channel = ? AND position <= ? ORDER BY position DESC LIMIT ?"
        rows = self._guard(
            lambda: self._rows(where, (log.id, upto), count, min(most_bytes or RECENT_BYTES, RECENT_BYTES))
        )
        entries: list[Entry] = []
        for row in rows:
            try:
                entries.append(entry_of(log.epoch, row))
            except DamagedRow as damage:
                entries.clear()
                _report(log, damage)
        return Newest(entries, is_cut=bool(entries) and len(rows) < count and len(rows) < log.events)

    def find(self, log: StoredLog, own_id: str, upto: int) -> list[Entry]:
        """Entries with a publisher's own id, oldest first; damaged rows are left out."""
        where = "channel = ? AND id = ? AND position <= ? ORDER BY position LIMIT ?"
        rows = self._guard(lambda: self._rows(where, (log.id, own_id, upto), MAX_FOUND, FOUND_BYTES))
        entries: list[Entry] = []
        for row in rows:
            try:
                entries.append(entry_of(log.epoch, row))
            except DamagedRow as damage:
                _report(log, damage)
        return entries

    def _rows(self, where: str, values: Sequence[object], limit: int, most_bytes: int) -> list[list[Any]]:
        sizes = select_numbers(self._connection, "frame_bytes", where, (*values, limit))
        count, size = 0, 0
        for (frame_bytes,) in sizes:
            size += frame_bytes
            if count and size > most_bytes:
                break
            count += 1
        return select(self._connection, where, (*values, count)) if count else []

    def _guard(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except sqlite3.Error as error:
            raise refusal(error, self._file.path) from error


def _report(log: StoredLog, damage: DamagedRow) -> None:
    log.raise_floor(damage.position)
    logger.error("row_damaged", channel=log.name, position=damage.position)
