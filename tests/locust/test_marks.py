"""The book-keeping by which a load test knows what was lost."""

from __future__ import annotations

from benchmarks.locust.marks import Ledger, Mark


def mark(number: int, *, series: str = "a", last: bool = False) -> Mark:
    return Mark(series, number, 1.5, last)


def test_a_mark_comes_back_from_the_data_of_its_event() -> None:
    for size in (0, 128, 5000):
        text = mark(7, last=True).write(size)
        assert Mark.read(text) == mark(7, last=True)
        assert abs(len(text) - max(size, len(mark(7, last=True).write(0)))) <= 2


def test_other_peoples_events_are_no_marks() -> None:
    for text in ("", "x", "[]", "1", "null", '{"series": "a"}', '{"a": 1}'):
        assert Mark.read(text) is None


def test_a_reader_joins_anywhere_and_holes_are_counted() -> None:
    ledger = Ledger()
    assert [ledger.take(mark(number)) for number in (5, 6, 9, 10)] == [(0, 0), (0, 0), (2, 0), (0, 0)]


def test_what_comes_twice_or_late_is_counted() -> None:
    ledger = Ledger()
    assert [ledger.take(mark(number)) for number in (5, 6, 6, 5, 7)] == [(0, 0), (0, 0), (0, 1), (0, 1), (0, 0)]


def test_series_are_counted_apart() -> None:
    ledger = Ledger()
    assert ledger.take(mark(5)) == ledger.take(mark(0, series="b")) == ledger.take(mark(6)) == (0, 0)


def test_a_declared_gap_excuses_one_hole_of_each_series() -> None:
    ledger = Ledger()
    ledger.take(mark(0))
    ledger.take(mark(0, series="b"))
    ledger.excuse()
    assert [ledger.take(mark(9)), ledger.take(mark(9, series="b")), ledger.take(mark(12))] == [(0, 0), (0, 0), (2, 0)]


def test_a_series_without_its_end_is_unfinished() -> None:
    ledger = Ledger()
    ledger.take(mark(0))
    assert ledger.unfinished() == 1
    ledger.take(mark(1, last=True))
    assert ledger.unfinished() == 0
