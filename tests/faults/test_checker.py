"""The checker must fail what is wrong: mutants of a good history, and a good one that passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.checker import History, Seen

Log = list[Seen]
GAP = Seen(-1, "history")


def identifier(number: int, epoch: str = "aaaaaa") -> str:
    return f"{epoch}-{number:013x}"


def good() -> History:
    """Two subscribers that saw all of 20 events."""
    log = [Seen(number, identifier(number)) for number in range(20)]
    return History(dict.fromkeys(range(20), "ok"), {"one": list(log), "two": list(log)})


def test_a_good_history_passes() -> None:
    assert good().problems() == []


def swap(log: Log) -> None:
    log[5], log[6] = log[6], log[5]


MUTANTS: dict[str, Callable[[Log], object]] = {
    "loses one": lambda log: log.pop(7),
    "loses the last": lambda log: log.pop(),
    "loses the first": lambda log: log.pop(0),
    "repeats one": lambda log: log.insert(8, log[7]),
    "swaps neighbours": swap,
    "replays behind the cursor": lambda log: log.extend(log[-3:]),
    "declares a gap in the wrong place": lambda log: (log.pop(7), log.insert(12, GAP)),
    "declares a gap for nothing": lambda log: log.insert(7, GAP),
    "makes one up": lambda log: log.append(Seen(99, identifier(99))),
    "gives another id": lambda log: log.__setitem__(7, Seen(7, identifier(7) + "0")),
    "changes the epoch without a word": lambda log: log.__setitem__(
        slice(10, 20), [Seen(n, identifier(n, "bbbbbb")) for n in range(10, 20)]
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails(name: str) -> None:
    history = good()
    MUTANTS[name](history.seen["two"])
    assert history.problems()


def test_a_refused_event_that_arrives_is_a_phantom() -> None:
    history = good()
    history.outcomes[4] = "fail"
    assert history.problems()


def test_a_hole_behind_a_declared_gap_passes() -> None:
    history = good()
    history.seen["two"][5:10] = [GAP]
    assert history.problems() == []


def test_an_unknown_event_may_arrive_or_not() -> None:
    history = good()
    history.outcomes[4] = "unknown"
    assert history.problems() == []
    del history.seen["one"][4], history.seen["two"][4]
    assert history.problems() == []
