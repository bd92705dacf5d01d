"""Logs, against a plain list of entries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.log import Log
from server.relay.protocol import Entry, Retention
from tests.server.engine import UNBOUNDED, entry

BOUNDS = st.builds(
    Retention, events=st.integers(0, 12), bytes=st.integers(0, 400), seconds=st.sampled_from([0.0, 5.0, 20.0])
)
# A new entry (how much higher, how much later, how many bytes of data, its own id), or a look at the clock.
STEPS = st.lists(
    st.tuples(st.integers(1, 5), st.integers(0, 4), st.integers(0, 60), st.none() | st.sampled_from("xyz"))
    | st.integers(0, 15),
    max_size=40,
)


class Model:
    """What a log should hold."""

    def __init__(self, bound: Retention) -> None:
        self.bound = bound
        self.floor = 100
        self.entries: list[Entry] = []

    @property
    def bytes(self) -> int:
        return sum(len(one.frame) for one in self.entries)

    def append(self, one: Entry) -> None:
        self.entries.append(one)
        bound = self.bound
        while 0 < bound.events < len(self.entries) or (0 < bound.bytes < self.bytes and len(self.entries) > 1):
            self.drop()

    def drop(self) -> None:
        self.floor = self.entries.pop(0).position

    def expire(self, now: float) -> None:
        while self.bound.seconds and self.entries and self.entries[0].time < now - self.bound.seconds:
            self.drop()


def histories(bound: Retention, steps: list[tuple[int, int, int, str | None] | int]) -> Iterator[tuple[Log, Model]]:
    """The log and the model after each step."""
    log, model = Log(bound, 100), Model(bound)
    position, now = 100, 0.0
    for step in steps:
        if isinstance(step, int):
            now += step
            log.expire(now)
            model.expire(now)
        else:
            position, now = position + step[0], now + step[1]
            one = entry(position, "d" * step[2], id=step[3], time=now)
            log.append(one)
            model.append(one)
        yield log, model


@given(BOUNDS, STEPS)
def test_a_log_keeps_the_newest_within_its_bounds(
    bound: Retention, steps: list[tuple[int, int, int, str | None] | int]
) -> None:
    for log, model in histories(bound, steps):
        assert log.before(1 << 60, 1 << 30) == model.entries[::-1]
        assert (len(log), log.bytes, log.floor) == (len(model.entries), model.bytes, model.floor)
        assert log.head == (model.entries[-1].position if model.entries else model.floor)
        for event_id in "xyz":
            assert list(log.with_id(event_id)) == [one for one in model.entries if one.event.id == event_id]


@given(BOUNDS, STEPS, st.integers(0, 8))
def test_entries_after_a_position_come_in_order_up_to_the_limit(
    bound: Retention, steps: list[tuple[int, int, int, str | None] | int], limit: int
) -> None:
    for log, model in histories(bound, steps):
        for position in range(log.floor, log.head + 2):
            wanted = [one for one in model.entries if one.position > position][:limit]
            assert log.after(position, limit) == wanted


def test_a_log_of_thousands_drops_from_its_lists_too() -> None:
    log = Log(Retention(10, 0, 0), 0)
    for number in range(1, 5001):
        log.append(entry(number, id=f"id-{number % 7}"))
    assert [one.position for one in log.after(0, 100)] == list(range(4991, 5001))
    assert len(log._entries) < 1100
    assert sum(map(len, log._ids.values())) == 10
    assert (log.floor, log.head, len(log)) == (4990, 5000, 10)


def test_one_entry_over_the_bound_of_bytes_is_still_kept() -> None:
    log = Log(Retention(0, 10, 0), 0)
    log.append(entry(1, "x" * 50))
    assert len(log) == 1
    log.append(entry(2, "y" * 50))
    assert [one.position for one in log.before(9, 9)] == [2]
    assert log.floor == 1


def test_an_empty_log_begins_and_ends_at_its_floor() -> None:
    log = Log(UNBOUNDED, 77)
    assert (len(log), log.head, log.floor, log.bytes, log.before(999, 9)) == (0, 77, 77, 0, [])
    assert log.after(77, 10) == []
    assert list(log.with_id("x")) == []


@pytest.mark.parametrize("seconds", [0.0, 10.0])
def test_entries_grow_old_only_where_age_is_bounded(seconds: float) -> None:
    log = Log(Retention(0, 0, seconds), 0)
    for number in range(1, 4):
        log.append(entry(number, time=float(number)))
    log.expire(12.5)
    assert [one.position for one in log.after(log.floor, 9)] == ([3] if seconds else [1, 2, 3])


def test_an_id_that_came_twice_finds_both_oldest_first() -> None:
    log = Log(Retention(2, 0, 0), 0)
    for number in range(1, 4):
        log.append(entry(number, id="same"))
    assert [one.position for one in log.with_id("same")] == [2, 3]


def test_entries_from_before_are_put_where_they_belong() -> None:
    log = Log(UNBOUNDED, 5)
    for position in (10, 30):
        log.append(entry(position, str(position), id=f"id {position}"))
    log.insert([entry(3, "gone"), entry(7, "7"), entry(10, "10"), entry(20, "20", id="id 20")])
    assert [one.position for one in log.after(5, 9)] == [7, 10, 20, 30]
    assert [one.position for one in log.with_id("id 20")] == [20]
    assert log.bytes == sum(len(one.frame) for one in log.after(5, 9))
    assert (log.floor, log.head) == (5, 30)


def test_what_is_put_between_counts_against_the_bound() -> None:
    log = Log(Retention(3, 0, 0), 5)
    for position in (10, 30):
        log.append(entry(position))
    log.insert([entry(7), entry(20)])
    assert [one.position for one in log.after(log.floor, 9)] == [10, 20, 30]
    assert log.floor == 7
