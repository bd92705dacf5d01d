"""Supervision: a task that dies is started again, after waits that grow and are never the same."""

from __future__ import annotations

import asyncio

import pytest
import structlog

import server.supervision
from server.supervision import FIRST_WAIT_SECONDS, HEALTHY_SECONDS, LONGEST_WAIT_SECONDS, rest, supervise
from tests.server.relay.bench import Clock, run


class Failing:
    """Fails some times, each after `lasting` seconds of the clock, and then returns."""

    def __init__(self, clock: Clock, times: int, lasting: float = 0.0) -> None:
        self.clock = clock
        self.left = times
        self.lasting = lasting
        self.runs = 0

    async def __call__(self) -> None:
        self.runs += 1
        self.clock.now += self.lasting
        if self.left:
            self.left -= 1
            raise OSError("broken")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    hand = Clock()
    monkeypatch.setattr(server.supervision.time, "monotonic", hand)
    return hand


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits that were asked for; none is waited."""
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr(server.supervision.asyncio, "sleep", sleep)
    return asked


def test_work_that_returns_is_done(clock: Clock, waits: list[float]) -> None:
    work = Failing(clock, 0)
    run(supervise("work", work))
    assert (work.runs, waits) == (1, [])


def test_work_that_fails_is_started_again_after_waits_that_double_up_to_a_bound(
    clock: Clock, waits: list[float]
) -> None:
    work = Failing(clock, 10)
    with structlog.testing.capture_logs() as lines:
        run(supervise("work", work))
    assert work.runs == 11
    assert server.supervision.died["work"] >= 10
    for number, wait in enumerate(waits):
        longest = min(FIRST_WAIT_SECONDS * 2**number, LONGEST_WAIT_SECONDS)
        assert longest / 2 <= wait <= longest
    assert len(set(waits)) == len(waits)
    assert {(line["event"], line["task"], line["log_level"]) for line in lines} == {("task_died", "work", "error")}


def test_work_that_lasted_starts_with_the_short_wait_again(clock: Clock, waits: list[float]) -> None:
    with structlog.testing.capture_logs():
        run(supervise("work", Failing(clock, 6, HEALTHY_SECONDS + 1)))
    assert max(waits) <= FIRST_WAIT_SECONDS


def test_a_cancelled_task_ends() -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def work() -> None:
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(supervise("work", work))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_a_rest_lasts_as_long_as_it_should_unless_it_is_time_to_stop() -> None:
    async def main() -> None:
        stopping = asyncio.Event()
        await rest(stopping, 0.001)
        resting = asyncio.create_task(rest(stopping, 3_600))
        await asyncio.sleep(0)
        assert not resting.done()
        stopping.set()
        await resting

    run(main())
