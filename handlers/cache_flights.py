"""Computations under way: one per question at a time, for all who ask it meanwhile.

Owns who waits for whom and for how long, and what was dropped while an answer was being made. Must never know how an
answer is made or where it is kept.

Invariants: a computation is a task of its own, so it goes on when its client goes, and all who wait get its outcome,
also if it fails. Nobody waits for one that is older than `join_seconds`: the next one begins, once for all of them.
None lasts longer than `compute_seconds`. Nobody gets an answer that was dropped before they asked, nor, if they ask for
a fresh one, an answer whose computation began before.
Cost: a drop is noted by each computation under way, and looked at when it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.answers import Refused
from handlers.cache_entry import Drop, Kept
from server.endings import UNAVAILABLE
from server.exchange import Response
from server.logs import get_logger
from server.supervision import cancelled

JOIN_SECONDS = 5.0
COMPUTE_SECONDS = 30.0
MAX_NOTED = 1_000

log = get_logger("cache")


@dataclass(slots=True)
class Made:
    """What a computation comes to. `kept` is the answer with what it depends on; None if it is of a kind that is never
    kept. `found`: it was not computed here, another node had it."""

    response: Response
    kept: Kept | None
    found: bool = False


Make = Callable[["Flight"], Awaitable[Made]]


class Flight:
    """One computation."""

    def __init__(self, key: str, number: int, began: float) -> None:
        self.key = key
        self.number = number
        self.began = began
        self.drops: list[Drop] = []
        self.task: asyncio.Task[Made]

    def note(self, drop: Drop) -> None:
        """Something is dropped meanwhile."""
        if len(self.drops) < MAX_NOTED:
            self.drops.append(drop)
        elif len(self.drops) == MAX_NOTED:
            self.drops.append(Drop("too many to note"))  # which meets everything

    def spoils(self, kept: Kept) -> bool:
        """True if the answer was dropped while it was made."""
        return any(drop.ends(kept) for drop in self.drops)

    def ages(self, kept: Kept) -> bool:
        """True if something in the answer has changed while it was made."""
        return any(drop.meets(kept) for drop in self.drops)

    async def lands(self, until: float) -> bool:
        """Wait for the end; False if it is not there by that time of the loop's clock."""
        seconds = max(0.0, until - asyncio.get_running_loop().time())
        done, _ = await asyncio.wait({self.task}, timeout=seconds)
        return bool(done)

    def outcome(self) -> Made:
        """What came of it. Raises what it raised; Refused if it was cut off."""
        if self.task.cancelled():
            raise Refused(UNAVAILABLE, reason="the answer did not come in time")
        return self.task.result()

    def outdated(self, drops: Sequence[Drop]) -> bool:
        """True if any of these drops meets what came of it, or may: of a failure nobody knows what it depends on."""
        if not drops:
            return False
        if self.task.cancelled() or self.task.exception() is not None:
            return True
        kept = self.task.result().kept
        return kept is None or any(drop.ends(kept) for drop in drops)


class Flights:
    """See the module's head."""

    def __init__(self, join_seconds: float = JOIN_SECONDS, compute_seconds: float = COMPUTE_SECONDS) -> None:
        self._join_seconds = join_seconds
        self._compute_seconds = compute_seconds
        self._number = 0
        self._latest: dict[str, Flight] = {}
        self._running: set[Flight] = set()

    def note(self, drop: Drop) -> None:
        """Something is dropped: to be called before the store does it."""
        for flight in self._running:
            flight.note(drop)

    async def made(self, key: str, make: Make, *, fresh: bool = False) -> tuple[Made, bool]:
        """The answer, and whether somebody else's computation gave it. Raises what that raises, and Refused."""
        asked = self._number
        while True:
            flight = self._latest.get(key)
            if flight is None:
                flight = self._start(key, make)
                await asyncio.wait({flight.task})
                return flight.outcome(), False
            noted = len(flight.drops)
            if not await flight.lands(flight.began + self._join_seconds):
                self._forget(flight)
            elif flight.number > asked or not (fresh or flight.outdated(flight.drops[:noted])):
                return flight.outcome(), True

    def refresh(self, key: str, make: Make) -> None:
        """Make the answer anew, for whoever asks next; nobody waits for it."""
        if key not in self._latest:
            self._start(key, make).task.add_done_callback(_log_failure)

    def _start(self, key: str, make: Make) -> Flight:
        loop = asyncio.get_running_loop()
        self._number += 1
        flight = Flight(key, self._number, loop.time())
        flight.task = loop.create_task(self._run(flight, make))
        self._latest[key] = flight
        self._running.add(flight)
        flight.task.add_done_callback(lambda _: self._landed(flight))
        return flight

    async def _run(self, flight: Flight, make: Make) -> Made:
        limit = asyncio.timeout(self._compute_seconds)
        try:
            async with limit:
                return await make(flight)
        except TimeoutError:
            if limit.expired():
                raise Refused(UNAVAILABLE, reason="the answer did not come in time") from None
            raise

    def _landed(self, flight: Flight) -> None:
        self._running.discard(flight)
        self._forget(flight)
        if not flight.task.cancelled():
            flight.task.exception()  # is seen, whether or not somebody waits for it

    def _forget(self, flight: Flight) -> None:
        """Nobody joins it any more."""
        if self._latest.get(flight.key) is flight:
            del self._latest[flight.key]

    async def stop(self) -> None:
        """End what is under way."""
        running: list[asyncio.Task[Any]] = [flight.task for flight in self._running]
        await cancelled(running)


def _log_failure(task: asyncio.Task[Made]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.warning("refresh_failed", exc_info=task.exception())
