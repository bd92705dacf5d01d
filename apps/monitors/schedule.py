"""The schedule: which monitor is to be checked next, and when.

Owns the due times, spread by jitter so that monitors of one interval do not stay together, and that a monitor is
checked once at a time. Pure: the caller brings the time (monotonic and, where it reads what was written before,
unix seconds).

Cost: a heap; a change of a monitor leaves its old entry behind, which is dropped when its time comes.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from typing import NamedTuple

JITTER_SHARE = 0.1  # of the interval, more or less
NEW_SECONDS = 1.0  # within which a new or changed monitor is checked
OVERDUE_SECONDS = 10.0  # over which those are spread that were due while no worker ran


class Monitor(NamedTuple):
    """What a check has to know. `changed` and `checked` are unix seconds."""

    id: str
    tenant: int
    url: str
    interval_seconds: int
    timeout_seconds: float
    expected_status: int | None
    check_ssl: bool
    changed: float
    checked: float | None


class Schedule:
    """`chance` gives numbers from 0 to 1."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._monitors: dict[str, Monitor] = {}
        self._due: list[tuple[float, str, float]] = []  # when, which, and as of which change
        self._at_work: dict[str, float] = {}  # as of which change

    def __len__(self) -> int:
        return len(self._monitors)

    def changes(self) -> dict[str, float]:
        """Of each monitor that is known, when it was changed last."""
        return {monitor.id: monitor.changed for monitor in self._monitors.values()}

    def keep(self, ids: Iterable[str]) -> None:
        """Forget all other monitors."""
        wanted = set(ids)
        for gone in self._monitors.keys() - wanted:
            del self._monitors[gone]

    def put(self, monitor: Monitor, now: float, unix_now: float) -> None:
        """A monitor that is new, or not what it was."""
        known = monitor.id in self._monitors
        self._monitors[monitor.id] = monitor
        if monitor.id not in self._at_work:
            self._push(monitor, now + (self._soon(monitor) if known else self._first(monitor, unix_now)))

    def _soon(self, monitor: Monitor) -> float:
        return self._chance() * min(NEW_SECONDS, monitor.interval_seconds)

    def _first(self, monitor: Monitor, unix_now: float) -> float:
        if monitor.checked is None or monitor.changed > monitor.checked:
            return self._soon(monitor)
        left = monitor.checked + monitor.interval_seconds - unix_now
        if left <= 0:
            return self._chance() * min(OVERDUE_SECONDS, monitor.interval_seconds)
        return min(left, monitor.interval_seconds)  # a clock may have been set back

    def _push(self, monitor: Monitor, when: float) -> None:
        heapq.heappush(self._due, (when, monitor.id, monitor.changed))

    def next(self, now: float) -> Monitor | None:
        """A monitor that is due. It is at work until `done`."""
        while self._due and self._due[0][0] <= now:
            _, name, changed = heapq.heappop(self._due)
            monitor = self._monitors.get(name)
            if monitor is not None and monitor.changed == changed and name not in self._at_work:
                self._at_work[name] = changed
                return monitor
        return None

    def done(self, name: str, began: float, now: float) -> None:
        """A check that began then is over."""
        changed = self._at_work.pop(name, None)
        monitor = self._monitors.get(name)
        if monitor is not None and monitor.changed != changed:
            self._push(monitor, now + self._soon(monitor))
        elif monitor is not None:
            wait = monitor.interval_seconds * (1 + JITTER_SHARE * (2 * self._chance() - 1))
            self._push(monitor, max(now, began + wait))

    def wait_seconds(self, now: float, most: float) -> float:
        """How long nothing is due."""
        return min(most, max(0.0, self._due[0][0] - now)) if self._due else most
