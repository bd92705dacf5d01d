"""Retention in the database: which events leave, and how the file shrinks.

Owns the trimming of one channel by a bounded step, and the return of free pages to the file system. Must never know of
appends; every trimming runs inside the writer's transaction.

Cost: a step reads and deletes at most `STEP_EVENTS` and `STEP_BYTES`, or twice what the same transaction brought, so a
log that is over its bounds shrinks whatever is appended.
"""

from __future__ import annotations

import sqlite3

from server.relay.positions import microseconds
from server.relay.sqlite_log import StoredLog
from server.relay.sqlite_rows import select_numbers

STEP_EVENTS = 512
STEP_BYTES = 4 << 20
# Free pages up to this many, or this share of the file, stay for what comes next.
_SPARE_PAGES = 256
_SPARE_SHARE = 4
_VACUUM_PAGES = 256


def is_aged(log: StoredLog, now: float) -> bool:
    """True if the oldest event is over age, as far as is known."""
    keep = log.retention.seconds
    return bool(keep and log.events) and log.oldest_us < microseconds(now - keep)


def trim(
    connection: sqlite3.Connection, log: StoredLog, now: float, added_events: int = 0, added_bytes: int = 0
) -> None:
    """Delete the oldest events while a bound is passed, one step at most."""
    most = max(STEP_EVENTS, 2 * added_events)
    oldest = select_numbers(
        connection, "position, frame_bytes, time_us", "channel = ? ORDER BY position LIMIT ?", (log.id, most + 1)
    )
    if not oldest:
        log.events = log.bytes = 0
        return
    last, dropped_events, dropped_bytes = _over(log, oldest[:most], now, max(STEP_BYTES, 2 * added_bytes))
    log.oldest_us = oldest[dropped_events][2] if dropped_events < len(oldest) else 0
    if not dropped_events:
        return
    log.raise_floor(last)
    connection.execute("DELETE FROM events WHERE channel = ? AND position <= ?", (log.id, last))
    log.events -= dropped_events
    log.bytes -= dropped_bytes


def _over(log: StoredLog, oldest: list[list[int]], now: float, most_bytes: int) -> tuple[int, int, int]:
    """The last position to drop, and how many events and bytes go with it."""
    keep = log.retention
    cutoff_us = microseconds(now - keep.seconds) if keep.seconds else -1
    last, events, size = 0, 0, 0
    for position, frame_bytes, time_us in oldest:
        over = (
            0 < keep.events < log.events - events or 0 < keep.bytes < log.bytes - size or time_us < cutoff_us
        ) and size < most_bytes
        if not over:
            break
        last, events, size = position, events + 1, size + frame_bytes
    return last, events, size


def give_back(connection: sqlite3.Connection) -> bool:
    """Return some free pages to the file system if there are many; True if it did."""
    free: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
    surplus = free - max(_SPARE_PAGES, (pages - free) // _SPARE_SHARE)
    if surplus <= 0:
        return False
    # Every row must be fetched: each step of the statement moves one page.
    connection.execute(f"PRAGMA incremental_vacuum({min(surplus, _VACUUM_PAGES)})").fetchall()
    return True
