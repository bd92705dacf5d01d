"""Entries as rows of the table `events`, and back.

Owns the columns, the statements that move many rows at once, and the checksum. Must never know of transactions.

One statement, one step: Python gives up its global lock around each step of a statement and must win it back. While the
loop is busy that takes up to 5 ms, and a replay of 1,000 rows fetched one by one took 1.2 s beside a busy loop. So rows
go in by INSERTs of many rows and come out as one JSON array made by SQLite (20 ms beside the same loop, and as fast as
fetching rows on an idle one). Frames are not stored but made again from the row: half the file, and what a reader gets
is always of this server's format.

A location follows the topics in their column, behind a character that no topic holds. A column of its own would have to
be added to the files there are, and for that later versions of SQLite read the whole table (0.4 s for 1,000,000 rows in
memory; 3.40 does not yet). So files stay as they are, both ways: to a server of a release that knew no locations a row
with one is a damaged row, and all others are what they were.
Cost: about 3 microseconds to write a row and 10 to read one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any
from zlib import crc32

import ujson

from server.event import Event
from server.region import Location
from server.relay.entries import make_entry
from server.relay.protocol import Entry

Row = tuple[object, ...]

_COLUMNS = "position, time_us, frame_bytes, checksum, private, retry_ms, id, type, topics, data"
_VALUES = "(" + ", ".join("?" * 11) + ")"
MAX_ROWS_A_STATEMENT = 128
_LOCATION = "\x1f"
# Powers of two: any number of rows is a few statements, and few statements are prepared.
_INSERTS = {
    1 << power: f"INSERT INTO events (channel, {_COLUMNS}) VALUES " + ", ".join([_VALUES] * (1 << power))  # noqa: S608
    for power in range(MAX_ROWS_A_STATEMENT.bit_length())
}


class DamagedRow(Exception):
    """A row is not what was written. `position` is where."""

    def __init__(self, position: int) -> None:
        super().__init__(f"the row at position {position} is damaged")
        self.position = position


def row_of(channel: int, entry: Entry, time_us: int) -> Row:
    """The row of an entry. Topics hold no line breaks, so they are joined by them."""
    position, _, event, frame, _ = entry
    topics = "\n".join(event.topics)
    if event.location is not None:
        latitude, longitude = event.location
        topics = f"{topics}{_LOCATION}{latitude!r} {longitude!r}"
    check = _checksum(position, time_us, event.private, event.retry_ms, event.id, event.type, topics, event.data)
    return (
        channel, position, time_us, len(frame), check, int(event.private),
        event.retry_ms, event.id, event.type, topics, event.data,
    )  # fmt: skip


def insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Write rows in as few statements as can be; one for a power of two up to 128."""
    begin = 0
    while begin < len(rows):
        size = min(MAX_ROWS_A_STATEMENT, 1 << (len(rows) - begin).bit_length() - 1)
        connection.execute(_INSERTS[size], list(chain.from_iterable(rows[begin : begin + size])))
        begin += size


def is_one_statement(rows: int) -> bool:
    """True if `insert` writes so many rows by one statement, which is a transaction of its own."""
    return rows in _INSERTS


def select(connection: sqlite3.Connection, condition: str, values: Iterable[object]) -> list[list[Any]]:
    """Rows of `events` in the order of their positions, in one step. `condition` is SQL, never from outside."""
    query = f"SELECT json_group_array(json_array({_COLUMNS})) FROM (SELECT * FROM events WHERE {condition})"  # noqa: S608
    rows: list[list[Any]] = ujson.loads(connection.execute(query, tuple(values)).fetchone()[0])
    rows.sort(key=lambda row: row[0])
    return rows


def select_numbers(
    connection: sqlite3.Connection, columns: str, condition: str, values: Iterable[object]
) -> list[list[int]]:
    """Columns of numbers of `events`, in the order of the condition, in one step."""
    some = f"SELECT {columns} FROM events WHERE {condition}"  # noqa: S608
    query = f"SELECT json_group_array(json_array({columns})) FROM ({some})"  # noqa: S608
    numbers: list[list[int]] = ujson.loads(connection.execute(query, tuple(values)).fetchone()[0])
    return numbers


def entry_of(epoch: str, row: Sequence[Any]) -> Entry:
    """The entry of a row. Raises DamagedRow."""
    position, time_us, _, check, private, retry_ms, own_id, kind, topics, data = row
    try:
        if check != _checksum(position, time_us, private, retry_ms, own_id, kind, topics, data):
            raise DamagedRow(position)
        names, location = _parted(topics)
        event = Event(names, data, kind, own_id, retry_ms, bool(private), location)
    except ValueError as error:
        raise DamagedRow(position) from error
    return make_entry(epoch, position, event, time_us / 1e6)


def _parted(text: str) -> tuple[tuple[str, ...], Location | None]:
    """Topics and location. Raises ValueError."""
    names, _, place = text.partition(_LOCATION)
    topics = tuple(names.split("\n")) if names else ()
    if not place:
        return topics, None
    latitude, longitude = place.split(" ")
    return topics, (float(latitude), float(longitude))


def _checksum(
    position: int,
    time_us: int,
    private: bool,
    retry_ms: int | None,
    own_id: str | None,
    kind: str | None,
    topics: str,
    data: str,
) -> int:
    return crc32(f"{position} {time_us} {private:d} {retry_ms} {own_id}\n{kind}\n{topics}\n\n{data}".encode())
