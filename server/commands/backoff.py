"""Backoff: how long a client waits before it tries again. Pure but for the dice."""

from __future__ import annotations

import random
from dataclasses import dataclass

MAX_RETRY_AFTER_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with full jitter.

    The random part is added to what the server asked for and never cut to a bound afterwards: clients that hit one
    bound together would come back together for ever.
    """

    base_seconds: float = 0.25
    cap_seconds: float = 10.0

    def delay(self, failures: int, floor_seconds: float = 0.0) -> float:
        """Seconds to wait after `failures` failures in a row, at least `floor_seconds`."""
        # 2**60 and above would only make the numbers long.
        bound = min(self.cap_seconds, self.base_seconds * 2 ** min(failures, 60))
        return floor_seconds + random.uniform(0.0, bound)


def retry_after_seconds(value: str | None) -> float:
    """A `Retry-After` in seconds; 0 if there is none (or a date, which no Ringcast sends)."""
    if value is None or not (value.isascii() and value.isdigit()):
        return 0.0
    return min(float(value[:9]), MAX_RETRY_AFTER_SECONDS)
