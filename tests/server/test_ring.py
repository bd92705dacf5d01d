"""Rings, against a plain list of all frames that there ever were."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.ring import Ring

SIZES = st.lists(st.integers(1, 30), max_size=30)
# ("append", size) or ("trim", part of what is held, in tenths; over 10 is beyond the head)
STEPS = st.lists(
    st.tuples(st.just("append"), st.integers(1, 30)) | st.tuples(st.just("trim"), st.integers(0, 12)), max_size=40
)


class Model:
    """Every frame and position ever appended, and the base."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.positions: list[int] = []
        self.base = 0

    @property
    def head(self) -> int:
        return len(self.frames)

    def bytes_from(self, cursor: int) -> int:
        return sum(map(len, self.frames[cursor:]))


def ring_of(sizes: list[int]) -> Ring:
    ring = Ring()
    for number, size in enumerate(sizes):
        ring.append(b"%d" % (number % 10) * size, 100 + number)
    return ring


def played(steps: list[tuple[str, int]]) -> tuple[Ring, Model]:
    ring, model = Ring(), Model()
    for name, number in steps:
        if name == "append":
            frame, position = bytes([97 + model.head % 26]) * number, 1000 + 3 * model.head
            ring.append(frame, position)
            model.frames.append(frame)
            model.positions.append(position)
        else:
            to = model.base + (model.head - model.base) * number // 10 + (number > 10)
            ring.trim(to)
            model.base = max(model.base, min(to, model.head))
    return ring, model


@given(STEPS)
def test_a_ring_holds_what_was_appended_and_not_trimmed(steps: list[tuple[str, int]]) -> None:
    ring, model = played(steps)
    assert (ring.base, ring.head, len(ring)) == (model.base, model.head, model.head - model.base)
    assert ring.size == model.bytes_from(model.base)
    for cursor in range(model.base, model.head + 1):
        assert ring.bytes_from(cursor) == model.bytes_from(cursor)
        if cursor < model.head:
            assert ring.position(cursor) == model.positions[cursor]
        if cursor:
            assert ring.before(cursor) == model.positions[cursor - 1]


@given(STEPS, st.integers(1, 80))
def test_a_span_is_the_longest_that_fits_and_at_least_one_frame(steps: list[tuple[str, int]], most: int) -> None:
    ring, model = played(steps)
    for cursor in range(model.base, model.head):
        data, end = ring.span(cursor, most)
        assert data == b"".join(model.frames[cursor:end])
        assert end > cursor
        assert len(data) <= most or end == cursor + 1
        if end < model.head:
            assert len(data) + len(model.frames[end]) > most


@given(STEPS, st.integers(1, 20), st.integers(0, 200))
def test_within_is_the_oldest_cursor_inside_both_bounds(
    steps: list[tuple[str, int]], events: int, most_bytes: int
) -> None:
    ring, model = played(steps)
    inside = [
        cursor
        for cursor in range(model.base, model.head + 1)
        if model.head - cursor <= events and model.bytes_from(cursor) <= most_bytes
    ]
    assert ring.within(events, most_bytes) == min(inside)


@given(SIZES, st.integers(1, 50))
def test_spans_one_after_the_other_give_every_frame_once(sizes: list[int], most: int) -> None:
    ring = ring_of(sizes)
    cursor, got = 0, b""
    while cursor < ring.head:
        data, cursor = ring.span(cursor, most)
        got += data
    assert got == b"".join(b"%d" % (number % 10) * size for number, size in enumerate(sizes))


def test_a_span_of_one_frame_is_the_frame_itself() -> None:
    ring = Ring()
    frame = b"x" * 100
    ring.append(frame, 1)
    assert ring.span(0, 10)[0] is frame


def test_a_new_ring_knows_of_nothing_before_it() -> None:
    ring = Ring()
    assert (ring.before(0), ring.size, ring.within(10, 10), len(ring)) == (0, 0, 0, 0)


def test_the_newest_frame_that_was_trimmed_is_remembered() -> None:
    ring = ring_of([1, 1, 1])
    ring.trim(3)
    assert ring.before(3) == 102
    ring.append(b"x", 200)
    ring.trim(3)
    assert (ring.before(3), ring.before(4)) == (102, 200)


def test_sequence_numbers_never_come_back() -> None:
    ring = ring_of([1, 1])
    ring.trim(2)
    ring.append(b"x", 200)
    assert (ring.base, ring.head, ring.position(2)) == (2, 3, 200)


def test_trimming_beyond_the_head_stops_at_the_head() -> None:
    ring = ring_of([1, 1])
    ring.trim(99)
    assert (ring.base, ring.head) == (2, 2)


def test_trimming_backwards_does_nothing() -> None:
    ring = ring_of([1, 1, 1])
    ring.trim(2)
    ring.trim(1)
    ring.trim(0)
    assert (ring.base, len(ring)) == (2, 1)


def test_what_was_trimmed_cannot_be_read() -> None:
    ring = ring_of([1, 1, 1])
    ring.trim(2)
    with pytest.raises(AssertionError):
        ring.span(1, 100)


def test_running_totals_go_on_after_a_trim() -> None:
    ring = ring_of([5, 6, 7, 8])
    ring.trim(2)
    ring.append(b"x" * 9, 300)
    assert [before - after for before, after in pairwise(ring.bytes_from(cursor) for cursor in (2, 3, 4, 5))] == [
        7,
        8,
        9,
    ]
