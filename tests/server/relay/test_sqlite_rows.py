"""Rows of the table of events: files that were written before events had locations are read, and stay as they are."""

from __future__ import annotations

import pytest

from server.event import Event
from server.relay.entries import make_entry
from server.relay.sqlite_rows import DamagedRow, Row, entry_of, row_of
from tests.server.engine import EPOCH

# What that release wrote, checksum and all.
BEFORE = (1, 7, 7_000_000, 36, 2_498_290_162, 1, 5, "mine", "t", "a\nb", "x")
BEFORE_EVENT = Event(("a", "b"), "x", "t", "mine", 5, True)


def written(event: Event) -> Row:
    return row_of(1, make_entry(EPOCH, 7, event, 7.0), 7_000_000)


def read(row: Row) -> Event:
    return entry_of(EPOCH, row[1:]).event


def test_a_row_without_a_location_is_what_it_was_before_there_were_any() -> None:
    assert read(BEFORE) == BEFORE_EVENT
    assert written(BEFORE_EVENT) == BEFORE


@pytest.mark.parametrize(
    ("topics", "column"),
    [((), "\x1f6.5244 3.3792"), (("a",), "a\x1f6.5244 3.3792"), (("a", "b"), "a\nb\x1f6.5244 3.3792")],
)
def test_a_location_stands_behind_the_topics(topics: tuple[str, ...], column: str) -> None:
    event = Event(topics, "x", location=(6.5244, 3.3792))
    row = written(event)
    assert row[9] == column
    assert read(row) == event


@pytest.mark.parametrize(
    "column", ["a\x1f6.5244 3.3793", "a", "a\x1f", "a\x1fx y", "a\x1f1", "a\x1f1 2 3", "a\x1f91.0 0.0"]
)
def test_a_location_that_is_not_what_was_written_is_damage(column: str) -> None:
    row = written(Event(("a",), "x", location=(6.5244, 3.3792)))
    with pytest.raises(DamagedRow):
        read((*row[:9], column, row[10]))
