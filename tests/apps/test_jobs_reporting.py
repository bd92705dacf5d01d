"""How a worker's reports come through: tries, order by their timestamps, the last one, and what ends them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from apps.jobs.model import first_state
from apps.jobs.nodes import Away, Nodes, Refusal
from apps.jobs.reporting import SETTLE_SECONDS, Lost, Teller
from apps.moments import written

NOW = written(time.time())
RUNNING = {"status": "processing", "worker": "w"}
ENDED = {"status": "completed", "worker": "w"}


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps = self.awaited = 0
        self.come = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps += 1
        if self.sleeps == self.awaited:
            self.come.set()
        await asyncio.sleep(0)

    async def others_slept(self, times: int) -> None:
        """Until somebody has slept so often from now on."""
        self.awaited = self.sleeps + times
        await self.come.wait()


class Way:
    """Takes reports when `outcomes` says so: None is taken, an exception is raised."""

    def __init__(self, *outcomes: Exception | None, answered: bool = True) -> None:
        self.outcomes = list(outcomes)
        self.answered = answered
        self.taken: list[dict[str, Any]] = []
        self.tries = 0
        self.third = asyncio.Event()

    async def send(self, job_id: str, report: dict[str, Any]) -> None:
        assert report["jobId"] == job_id == "a1"
        self.tries += 1
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome
        self.taken.append(report)
        if len(self.taken) == 3:
            self.third.set()

    async def close(self) -> None:
        pass


class Node:
    """Says how the job stands."""

    def __init__(self, answers: Iterable[dict[str, Any] | Exception]) -> None:
        self.answers = iter(answers)

    async def ask(self, method: str, path: str) -> dict[str, Any]:
        assert (method, path) == ("GET", "/api/v1/jobs/a1")
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def told(
    way: Way, tell: Callable[[Teller], Any], node: Node | None = None, since: str = NOW, clock: Clock | None = None
) -> None:
    """Let a teller tell something."""
    own = clock or Clock()

    async def work() -> None:
        await tell(Teller(way, cast(Nodes, node), "a1", "w", since, clock=lambda: own.now, sleep=own.sleep))

    asyncio.run(work())


async def end(teller: Teller) -> None:
    await teller.end("completed", "done", 100, "ready", {"words": 1})


def test_a_report_is_tried_until_it_is_taken() -> None:
    """J2: and nothing is said after it before that."""
    way = Way(Away("no"), Away("no"), None, Away("no"))

    async def tell(teller: Teller) -> None:
        await teller.say("retrieving-content", 0, "one")
        await teller.say("processing-articles", 50, "two")
        await end(teller)

    told(way, tell)
    assert [(report["stage"], report["progress"]) for report in way.taken] == [
        ("retrieving-content", 0), ("processing-articles", 50), ("done", 100),
    ]  # fmt: skip
    assert way.tries == 6
    assert {report["worker"] for report in way.taken} == {"w"}


@pytest.mark.parametrize("ahead_seconds", [-3_600, 3_600])
def test_timestamps_rise_from_that_of_the_claim_whatever_clocks_say(ahead_seconds: float) -> None:
    """J2: what seems older than what is known is no news, and would be lost without an error."""
    since = first_state("a1", datetime.now(UTC) + timedelta(seconds=ahead_seconds)).timestamp
    way = Way()

    async def tell(teller: Teller) -> None:
        for progress in range(20):
            await teller.say("retrieving-content", progress, "x")
        await end(teller)

    told(way, tell, since=since)
    moments = [since, *(report["timestamp"] for report in way.taken)]
    assert moments == sorted(set(moments))


def test_a_job_that_is_anothers_is_let_go() -> None:
    """J2."""
    way = Way(Away("no"), Refusal(409, "the job is another worker's"))
    with pytest.raises(Lost, match="another worker's"):
        told(way, lambda teller: teller.say("retrieving-content", 0, "one"))
    assert way.tries == 2


def test_a_last_report_without_an_answer_is_sent_until_a_node_knows_of_it() -> None:
    """J4: what pub/sub has lost comes again; a node that is away is asked later."""
    way = Way(answered=False)
    told(way, end, Node([Away("no"), RUNNING, RUNNING, RUNNING, Away("no"), ENDED]))
    assert way.tries == 3
    assert len({report["timestamp"] for report in way.taken}) == 1


def test_a_last_report_that_no_node_knows_of_after_a_while_is_sent_again() -> None:
    """J4: pub/sub says nothing of what it has lost."""
    way, clock = Way(answered=False), Clock()

    def answers() -> Iterable[dict[str, Any]]:
        while way.tries == 1:
            yield RUNNING
        yield ENDED

    told(way, end, Node(answers()), clock=clock)
    assert way.tries == 2
    assert SETTLE_SECONDS <= clock.now < 2 * SETTLE_SECONDS


def test_a_last_report_that_is_refused_unseen_is_given_up_when_the_job_is_anothers() -> None:
    """J4: over ways without an answer nobody says so."""
    with pytest.raises(Lost):
        told(Way(answered=False), end, Node([RUNNING | {"worker": "other"}]))


def test_while_the_work_takes_long_the_last_word_is_said_again_and_never_after_the_end() -> None:
    """J2: so that the job is not given to another."""
    way, clock = Way(), Clock()

    async def tell(teller: Teller) -> None:
        beating = asyncio.create_task(teller.beat(10))
        await teller.say("retrieving-content", 0, "one")
        await way.third.wait()
        await end(teller)
        await clock.others_slept(3)  # two beats are over then
        beating.cancel()

    told(way, tell, clock=clock)
    *working, last = way.taken
    assert [report["message"] for report in working] == ["one"] * len(working)
    assert len({report["timestamp"] for report in working}) == 1
    assert last["status"] == "completed"
