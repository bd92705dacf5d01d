"""The schedule: which monitor is to be checked next, and when.

Owns the due times, spread by jitter so that monitors of one interval do not stay together, that a monitor is checked
once at a time, and that one tenant's slow sites take only a share of the checks under way. Pure: the caller brings the
time (monotonic and, where it reads what was written before, unix seconds).

Cost: a heap. A due time that changes leaves its old entry behind; when those are more than the others the heap is made
anew.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

JITTER_SHARE = 0.1  # of the interval, more or less
NEW_SECONDS = 1.0  # within which a new or changed monitor is checked
OVERDUE_SECONDS = 10.0  # over which those are spread that were due while no worker ran
PUT_OFF_SECONDS = 5.0  # within which a check is tried again that there was too much of something for
FULL_SECONDS = 0.25  # after which a tenant is looked at again whose share is taken
MOST_OF_ONE = 10
SPARE_ENTRIES = 1_000


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
    """`chance` gives numbers from 0 to 1; `most_of_one`: checks of one tenant at a time."""

    def __init__(self, chance: Callable[[], float] = random.random, *, most_of_one: int = MOST_OF_ONE) -> None:
        self._chance = chance
        self._most_of_one = most_of_one
        self._monitors: dict[str, Monitor] = {}
        self._when: dict[str, float] = {}  # of those that are not at work
        self._due: list[tuple[float, str]] = []  # what is not as in `_when` is an old entry
        self._at_work: dict[str, Monitor] = {}
        self._of_tenant: Counter[int] = Counter()  # at work

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
            self._when.pop(gone, None)

    def put(self, monitor: Monitor, now: float, unix_now: float) -> None:
        """A monitor that is new, or not what it was."""
        known = monitor.id in self._monitors
        self._monitors[monitor.id] = monitor
        if monitor.id not in self._at_work:
            self._push(monitor.id, now + (self._soon(monitor) if known else self._first(monitor, unix_now)))

    def _soon(self, monitor: Monitor, most: float = NEW_SECONDS) -> float:
        return self._chance() * min(most, monitor.interval_seconds)

    def _first(self, monitor: Monitor, unix_now: float) -> float:
        if monitor.checked is None or monitor.changed > monitor.checked:
            return self._soon(monitor)
        left = monitor.checked + monitor.interval_seconds - unix_now
        if left <= 0:
            return self._soon(monitor, OVERDUE_SECONDS)
        return min(left, monitor.interval_seconds)  # a clock may have been set back

    def _push(self, name: str, when: float) -> None:
        self._when[name] = when
        heapq.heappush(self._due, (when, name))
        if len(self._due) > 2 * len(self._when) + SPARE_ENTRIES:
            self._due = [(when, name) for name, when in self._when.items()]
            heapq.heapify(self._due)

    def next(self, now: float) -> Monitor | None:
        """A monitor that is due. It is at work until `done`."""
        while self._due and self._due[0][0] <= now:
            when, name = heapq.heappop(self._due)
            if self._when.get(name) != when:
                continue
            monitor = self._monitors[name]
            if self._of_tenant[monitor.tenant] >= self._most_of_one:
                self._push(name, now + FULL_SECONDS)
                continue
            del self._when[name]
            self._at_work[name] = monitor
            self._of_tenant[monitor.tenant] += 1
            return monitor
        return None

    def done(self, name: str, began: float, now: float, *, put_off: bool = False) -> None:
        """A check that began then is over, or was not made at all."""
        was = self._at_work.pop(name)
        self._of_tenant[was.tenant] -= 1
        if not self._of_tenant[was.tenant]:
            del self._of_tenant[was.tenant]
        monitor = self._monitors.get(name)
        if monitor is None:
            return
        if monitor.changed != was.changed:
            self._push(name, now + self._soon(monitor))
        elif put_off:
            self._push(name, now + max(FULL_SECONDS, self._soon(monitor, PUT_OFF_SECONDS)))
        else:
            wait = monitor.interval_seconds * (1 + JITTER_SHARE * (2 * self._chance() - 1))
            self._push(name, max(now, began + wait))

    def wait_seconds(self, now: float, most: float) -> float:
        """How long nothing is due."""
        return min(most, max(0.0, self._due[0][0] - now)) if self._due else most
