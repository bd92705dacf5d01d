"""Computations: F8, one at a time for all who ask the same, and nobody is stuck."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog

from handlers.answers import Refused
from handlers.cache_entry import Drop, Kept
from handlers.cache_flights import MAX_NOTED, Flight, Flights, Made
from handlers.endpoints import not_found
from server.exchange import Response
from tests.handlers.cache_bench import kept, run, together, until


class Work:
    """Makes answers, one number higher each time, when the gate is open."""

    def __init__(self, *tags: str) -> None:
        self.tags = tags
        self.runs = 0
        self.ended = 0
        self.gate = asyncio.Event()
        self.error: BaseException | None = None

    async def make(self, _: Flight) -> Made:
        self.runs += 1
        number, error = self.runs, self.error
        try:
            await self.gate.wait()
        finally:
            self.ended += 1
        if error is not None:
            raise error
        return Made(Response(200, str(number).encode()), self.kept())

    def kept(self) -> Kept:
        return kept("k", *self.tags)


def bodies(several: list[Any]) -> list[int]:
    return [int(made.response.body) for made, _ in several]


def change(*tags: str) -> Drop:
    return Drop("change", frozenset(tags), change=True)


def test_a_hundred_who_ask_the_same_are_given_one_computation() -> None:
    async def main() -> None:
        flights, work = Flights(), Work()
        asking = [asyncio.ensure_future(flights.made("k", work.make)) for _ in range(100)]
        await until(lambda: work.runs)
        work.gate.set()
        answers = await together(*asking)
        assert bodies(answers) == [1] * 100
        assert sum(joined for _, joined in answers) == 99
        assert (await flights.made("k", work.make))[0].response.body == b"2"

    run(main())


def test_other_questions_do_not_wait() -> None:
    async def main() -> None:
        flights, slow, fast = Flights(), Work(), Work()
        fast.gate.set()
        waiting = asyncio.ensure_future(flights.made("slow", slow.make))
        assert (await flights.made("fast", fast.make))[1] is False
        slow.gate.set()
        await waiting

    run(main())


def test_a_computation_goes_on_when_the_one_who_began_it_goes() -> None:
    async def main() -> None:
        flights, work = Flights(), Work()
        first, second = (asyncio.ensure_future(flights.made("k", work.make)) for _ in range(2))
        await until(lambda: work.runs)
        first.cancel()
        await asyncio.wait([first])
        work.gate.set()
        assert bodies([await second]) == [1]

    run(main())


@pytest.mark.parametrize("error", [not_found("id", "there is none"), RuntimeError("a defect")])
def test_a_failure_is_everybodys_and_the_next_one_tries_again(error: Exception) -> None:
    async def main() -> None:
        flights, work = Flights(), Work()
        work.error = error
        work.gate.set()
        answers = await asyncio.gather(*(flights.made("k", work.make) for _ in range(5)), return_exceptions=True)
        assert answers == [error] * 5
        assert work.runs == 1
        work.error = None
        assert bodies([await flights.made("k", work.make)]) == [2]

    run(main())


def test_nobody_waits_long_for_another_ones_computation() -> None:
    """The next begins, once for all who have waited enough; the one that hangs is ended in its time."""

    async def main() -> None:
        flights, work = Flights(join_seconds=0.05, compute_seconds=0.5), Work()
        first = asyncio.ensure_future(flights.made("k", work.make))
        await until(lambda: work.runs)
        others = [asyncio.ensure_future(flights.made("k", work.make)) for _ in range(5)]
        await until(lambda: work.runs == 2)
        work.gate.set()
        assert set(bodies(await together(*others))) <= {1, 2}
        assert bodies([await first]) == [1]
        assert work.runs == 2

    run(main())


def test_a_computation_that_never_ends_is_ended_and_answered_with_503() -> None:
    async def main() -> None:
        flights, work = Flights(join_seconds=10, compute_seconds=0.05), Work()
        answers = await asyncio.gather(*(flights.made("k", work.make) for _ in range(2)), return_exceptions=True)
        assert [error.status for error in answers if isinstance(error, Refused)] == [503, 503]
        assert work.ended == work.runs == 1

    run(main())


def test_a_time_limit_of_the_computation_itself_is_its_own_error() -> None:
    async def main() -> None:
        work = Work()
        work.error = TimeoutError("the database's")
        work.gate.set()
        with pytest.raises(TimeoutError, match="the database's"):
            await Flights().made("k", work.make)

    run(main())


def test_what_is_cut_off_leaves_nobody_waiting() -> None:
    async def main() -> None:
        flights, work = Flights(), Work()
        asking = [asyncio.ensure_future(flights.made("k", work.make)) for _ in range(2)]
        await until(lambda: work.runs)
        await flights.stop()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert [error.status for error in answers if isinstance(error, Refused)] == [503, 503]

    run(main())


# --- freshness


def test_who_wants_a_fresh_answer_gets_one_that_began_later_and_shares_it() -> None:
    """P5 and F8: still one computation at a time."""

    async def main() -> None:
        flights, work = Flights(), Work()
        first = asyncio.ensure_future(flights.made("k", work.make))
        await until(lambda: work.runs)
        fresh = [asyncio.ensure_future(flights.made("k", work.make, fresh=True)) for _ in range(10)]
        usual = asyncio.ensure_future(flights.made("k", work.make))
        await asyncio.sleep(0)
        work.gate.set()
        assert bodies([await first, await usual]) == [1, 1]
        assert set(bodies(await together(*fresh))) == {2}
        assert work.runs == 2

    run(main())


def test_who_asks_after_a_drop_is_not_given_what_was_read_before_it() -> None:
    """F7: a page that hears of a change and asks at once gets the change."""

    async def main() -> None:
        flights, work = Flights(), Work("facility:1")
        before = asyncio.ensure_future(flights.made("k", work.make))
        await until(lambda: work.runs)
        flights.note(change("facility:1"))
        after = [asyncio.ensure_future(flights.made("k", work.make)) for _ in range(5)]
        await asyncio.sleep(0)
        work.gate.set()
        assert bodies([await before]) == [1]
        assert bodies(await together(*after)) == [2] * 5

    run(main())


def test_a_drop_of_something_else_is_no_reason_to_compute_again() -> None:
    async def main() -> None:
        flights, work = Flights(), Work("facility:1")
        before = asyncio.ensure_future(flights.made("k", work.make))
        await until(lambda: work.runs)
        flights.note(change("facility:2"))
        after = asyncio.ensure_future(flights.made("k", work.make))
        await asyncio.sleep(0)
        flights.note(change("facility:1"))  # after both have asked
        work.gate.set()
        assert bodies([await before, await after]) == [1, 1]

    run(main())


def test_a_failure_from_before_a_drop_is_not_given_to_who_asks_after_it() -> None:
    """What was not there may be there now."""

    async def main() -> None:
        flights, work = Flights(), Work()
        work.error = not_found("id", "there is none")
        before = asyncio.ensure_future(flights.made("k", work.make))
        await until(lambda: work.runs)
        work.error = None
        flights.note(change("facility:1"))
        after = asyncio.ensure_future(flights.made("k", work.make))
        await asyncio.sleep(0)
        work.gate.set()
        with pytest.raises(Refused):
            await before
        assert bodies([await after]) == [2]

    run(main())


def test_a_computation_notes_what_is_dropped_meanwhile_within_a_bound() -> None:
    flight = Flight("k", 1, 0.0)
    one = kept("k", "a")
    flight.note(change("b"))
    assert not flight.spoils(one)
    for number in range(MAX_NOTED + 5):
        flight.note(change(f"x{number}"))
    assert len(flight.drops) == MAX_NOTED + 1
    assert flight.spoils(one)  # it may have been among the rest


def test_a_change_ages_what_lives_out_its_time() -> None:
    flight = Flight("k", 1, 0.0)
    one = kept("k", "a", drop_on_change=False)
    flight.note(change("a"))
    assert (flight.spoils(one), flight.ages(one)) == (False, True)


# --- refreshing


def test_an_answer_is_made_anew_once_whoever_asks_for_it() -> None:
    async def main() -> None:
        flights, work = Flights(), Work()
        for _ in range(3):
            flights.refresh("k", work.make)
        await until(lambda: work.runs)
        work.gate.set()
        assert bodies([await flights.made("k", work.make)]) == [1]
        assert work.runs == 1

    run(main())


def test_a_refresh_that_fails_is_logged() -> None:
    async def main() -> None:
        flights, work = Flights(), Work()
        work.error = RuntimeError("a defect")
        work.gate.set()
        with structlog.testing.capture_logs() as lines:
            flights.refresh("k", work.make)
            await until(lambda: lines)
        assert [line["event"] for line in lines] == ["refresh_failed"]

    run(main())
