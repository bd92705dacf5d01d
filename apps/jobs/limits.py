"""Limits: how often something may be done for a key in a minute.

Owns the counts, which begin anew with each minute of the loop's clock. Bounded: the key that was used longest ago goes
first.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_KEYS = 10_000


class PerMinute:
    """`most` times a minute for each key."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self._clock = clock
        self._minute: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def take(self, key: str) -> bool:
        """True if it may be done once more, which is then counted."""
        minute = int(self._clock() // 60)
        before, number = self._minute.get(key, (minute, 0))
        number = number + 1 if before == minute else 1
        self._minute[key] = (minute, min(number, self.most))
        self._minute.move_to_end(key)
        if len(self._minute) > MAX_KEYS:
            self._minute.popitem(last=False)
        return number <= self.most
