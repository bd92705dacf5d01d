"""The checker must fail what is wrong: mutants of a good history, each by the check that is meant for it and by no
other, and a good one that passes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.checker import History, Outage, Seen, residue

Log = list[Seen]
HERE, THERE = "here", "there"
EVENTS = 20


def identifier(number: int, epoch: str = "aaaaaa") -> str:
    return f"{epoch}-{number:013x}"


def gap(first: int, last: int, connection: int = 0) -> Seen:
    """A gap that declares these as missing."""
    borders = {"reason": "history", "from": identifier(first - 1), "to": identifier(last)}
    return Seen(-1, json.dumps(borders), float(last), connection)


GAP = Seen(-1, "history")


def good() -> History:
    """Two subscribers that saw all of 20 events, and one of another topic that saw the two that were its own."""
    log = [Seen(number, identifier(number), float(number)) for number in range(EVENTS)]
    elsewhere = [Seen(number, identifier(number), float(number)) for number in (100, 101)]
    history = History(dict.fromkeys([*range(EVENTS), 100, 101], "ok"), {"one": list(log), "two": list(log)})
    history.others["three"] = elsewhere
    history.topics = dict.fromkeys(range(EVENTS), HERE) | {100: THERE, 101: THERE}
    history.topic_of = {"one": HERE, "two": HERE, "three": THERE}
    history.authors = dict.fromkeys(range(EVENTS), 1) | {100: 2, 101: 2}
    return history


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
    "publishes a key twice": lambda log: log.append(Seen(19, identifier(200))),
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


def exchange_numbers(history: History) -> None:
    """To all alike: two events of one publisher in the other order, under ids that increase."""
    for log in history.seen.values():
        log[5], log[6] = replace(log[6], id=log[5].id), replace(log[5], id=log[6].id)


def tell_thrice(history: History) -> None:
    history.seen["two"][5:10] = [gap(5, 9)] * 3


def tell_of_nothing_beside_a_hole(history: History) -> None:
    log = history.seen["two"]
    log.insert(15, gap(15, 15))
    log[5:10] = [gap(5, 9)]


def give_a_foreign_one(history: History) -> None:
    history.seen["two"].append(Seen(100, identifier(100), 100.0))


def keep_it_from_its_own(history: History) -> None:
    del history.others["three"][0]


def stand_still(history: History) -> None:
    history.healed.append((10.0, 5.0))
    log = history.seen["two"]
    log[10:] = [replace(entry, at=entry.at + 30) for entry in log[10:]]
    history.others["three"] = [replace(entry, at=11.0) for entry in history.others["three"]]


def say_nothing(history: History) -> None:
    history.outages.append(Outage("node", 10.0, 5.0, 4.0, healed=20.0))
    history.readiness["node"] = [(9.0, True), (11.0, True), (16.0, False), (21.0, True)]


def stay_red(history: History) -> None:
    history.outages.append(Outage("node", 10.0, 5.0, 4.0, healed=20.0))
    history.readiness["node"] = [(9.0, True), (11.0, False), (21.0, False), (24.5, True)]


ONE_CHECK: dict[str, tuple[Callable[[History], object], str]] = {
    "exchanges the numbers of a publisher": (exchange_numbers, "two: 5 came behind 6"),
    "tells of a hole three times": (tell_thrice, "2 gaps declare again"),
    "tells of nothing beside a hole": (tell_of_nothing_beside_a_hole, "1 gaps declared before 15 where 0 are missing"),
    "gives a foreign one": (give_a_foreign_one, "two: 100 is foreign"),
    "keeps from a subscriber of another topic what is its own": (keep_it_from_its_own, "three: 100 lost outside a gap"),
    "stands still behind a fault": (stand_still, "two: no event within 5.0 s"),
    "does not say that it is not ready": (say_nothing, "did not tell of the begin"),
    "does not say that it is ready again": (stay_red, "did not tell of the end"),
    "keeps a connection": (lambda history: history.left_behind.append("a connection"), "a connection"),
}


@pytest.mark.parametrize("name", ONE_CHECK)
def test_a_mutant_fails_by_its_own_check_and_by_no_other(name: str) -> None:
    change, text = ONE_CHECK[name]
    history = good()
    change(history)
    found = history.problems()
    assert any(text in problem for problem in found), found
    assert len({problem.partition(": ")[2] for problem in found}) <= 1, found


def test_faults_that_were_told_of_and_overcome_in_time_pass() -> None:
    history = good()
    history.others.clear()
    history.healed.append((10.0, 5.0))
    history.outages.append(Outage("node", 10.0, 5.0, 4.0, healed=20.0))
    history.readiness["node"] = [(9.0, True), (11.0, False), (21.0, False), (22.0, True)]
    assert history.problems() == []


def test_a_refused_event_that_arrives_is_a_phantom() -> None:
    history = good()
    history.outcomes[4] = "fail"
    assert history.problems()


def test_a_hole_behind_a_declared_gap_passes() -> None:
    history = good()
    history.seen["two"][5:10] = [GAP]
    assert history.problems() == []


def test_a_hole_that_is_declared_in_two_parts_passes() -> None:
    history = good()
    history.seen["two"][5:10] = [gap(5, 6), gap(7, 9)]
    assert history.problems() == []


def test_a_gap_may_be_told_again_to_who_comes_back_before_the_next_event() -> None:
    history = good()
    history.seen["two"][5:10] = [gap(5, 9), gap(5, 9, connection=1)]
    assert history.problems() == []


def unknown_cursor(reason: str = "epoch", epoch: str = "bbbbbb", connection: int = 1) -> Seen:
    """A gap that tells who comes back that its cursor, of this epoch, means nothing here."""
    borders = {"reason": reason, "from": identifier(0, epoch), "to": identifier(0)}
    return Seen(-1, json.dumps(borders), connection=connection)


def replayed(history: History, *before: Seen, connection: int = 1) -> None:
    """The first ten come again, behind the tenth."""
    log = history.seen["two"]
    log[10:10] = [*before, *[replace(entry, connection=connection) for entry in log[:10]]]
    log[20 + len(before) :] = [replace(entry, connection=connection) for entry in log[20 + len(before) :]]


def turned(history: History, *again: int) -> None:
    """The last ten, and these once more, came in another epoch behind a gap."""
    for log in history.seen.values():
        numbers = [*again, *range(10, EVENTS)]
        log[10:] = [unknown_cursor(epoch="aaaaaa"), *[Seen(n, identifier(n, "bbbbbb"), float(n)) for n in numbers]]


def test_what_a_client_gets_again_where_its_cursor_was_declared_unknown_is_counted() -> None:
    history = good()
    turned(history)
    replayed(history, unknown_cursor())
    assert history.problems(needless_gaps=True) == []
    assert history.repeats() == {"one": 0, "two": 10, "three": 0}


NEEDLESS: dict[str, Callable[[History], object]] = {
    "without a gap": lambda history: replayed(history),
    "on the same connection": lambda history: replayed(history, unknown_cursor(connection=0), connection=0),
    "behind a gap on an earlier connection": lambda history: replayed(history, unknown_cursor(connection=0)),
    "behind a gap of history": lambda history: replayed(history, unknown_cursor("history")),
    "with a cursor of that epoch": lambda history: replayed(history, unknown_cursor(epoch="aaaaaa")),
}


@pytest.mark.parametrize("how", NEEDLESS)
def test_a_client_may_get_again_nothing_else(how: str) -> None:
    history = good()
    turned(history)
    NEEDLESS[how](history)
    assert any("came after" in problem for problem in history.problems(needless_gaps=True))


def test_a_client_may_get_it_again_once_for_each_such_gap() -> None:
    history = good()
    turned(history)
    replayed(history, unknown_cursor())
    log = history.seen["two"]
    log[21:21] = log[11:21]
    assert history.problems(needless_gaps=True)
    log[21:21] = [unknown_cursor()]
    assert history.problems(needless_gaps=True) == []
    assert history.repeats()["two"] == 20


def test_nothing_may_come_again_where_no_log_turned() -> None:
    history = good()
    replayed(history, unknown_cursor())
    assert history.problems(needless_gaps=True) == ["two: 10 came again though no log turned"]


def test_one_event_of_each_publisher_may_come_again_for_each_turn_of_the_log() -> None:
    history = good()
    turned(history, 9)
    assert history.problems(needless_gaps=True) == []
    assert history.repeats() == {"one": 1, "two": 1, "three": 0}
    history = good()
    turned(history, 8, 9)
    found = history.problems(needless_gaps=True)
    assert found and all("2 of one publisher came again in another epoch" in problem for problem in found)
    history.authors[8] = 3
    assert history.problems(needless_gaps=True) == []


def test_publishers_do_not_wait_for_each_other() -> None:
    history = good()
    history.authors[5] = 3
    exchange_numbers(history)
    assert history.problems() == []


def test_an_unknown_event_may_arrive_or_not() -> None:
    history = good()
    history.outcomes[4] = "unknown"
    assert history.problems() == []
    del history.seen["one"][4], history.seen["two"][4]
    assert history.problems() == []


def test_an_unknown_event_may_arrive_behind_a_later_one() -> None:
    history = good()
    history.outcomes[5] = "unknown"
    exchange_numbers(history)
    assert history.problems() == []


TOO_MUCH = {"connections": 1, "feeds": 1, "tasks": 6, "descriptors": 1, "threads": 1, "memory in bytes": 5 << 20}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_what_a_node_still_holds_is_residue(what: str) -> None:
    before = {"connections": 0, "feeds": 0, "tasks": 9, "descriptors": 12, "threads": 3, "memory in bytes": 80 << 20}
    assert residue(before, before | {"memory in bytes": 83 << 20, "tasks": 14}) == []
    [found] = residue(before, before | {what: before[what] + TOO_MUCH[what]})
    assert found.startswith(what)
