"""Limits: how often somebody may do something.

Owns a bucket of permissions for each key, which fills up again evenly. Pure but for the clock. Cost: one small list for
each key of late, `MAX_KEYS` at most; the one that was used longest ago goes first.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_KEYS = 10_000


class Buckets:
    """`per_second` 0: no limit. `burst` may be taken at once."""

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> bool:
        """True if it may be done, which is then counted."""
        if not self._per_second:
            return True
        now = self._clock()
        left, since = self._left.get(key, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_second)
        allowed = left >= 1
        self._left[key] = (left - allowed, now)
        self._left.move_to_end(key)
        if len(self._left) > MAX_KEYS:
            self._left.popitem(last=False)
        return allowed
