"""Positions: how a channel's events are numbered, and what "now" is as a cursor.

Owns the arithmetic that keeps positions strictly increasing and every cursor that a client may hold below every later
event. Pure: the caller brings the time. Must never know of events, files or threads. Cost: a few comparisons of
integers per append.

A position is the clock in microseconds, or one above the highest position so far, whichever is larger. So a clock that
is set back costs nothing but a drift of the positions from the time.
"""

from __future__ import annotations

# How far ahead of the clock a ceiling is written to disk, in microseconds. Longer means fewer writes for quiet
# channels, and positions that run further ahead of the time after a crash; shorter the reverse.
LEASE_US = 5_000_000
_MINUTE_US = 60_000_000


def microseconds(seconds: float) -> int:
    """A time in whole microseconds."""
    return int(seconds * 1e6)


def present_behind(position: int, now_us: int) -> int:
    """The present as a position that is not before this one and tells nothing of it. Positions may be times of another
    clock; if that is ahead of ours, it is the next full minute."""
    return now_us if now_us >= position else -(-position // _MINUTE_US) * _MINUTE_US


class Positions:
    """The positions of a log that lives and dies with the process."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 0

    def take(self, now_us: int, count: int) -> int:
        """The first of `count` consecutive positions, above everything given out."""
        first = now_us if now_us > self.last else self.last + 1
        self.last = first + count - 1
        return first

    def mark(self, now_us: int) -> int:
        """The present as a cursor; later positions are above it."""
        self.last = max(self.last, now_us)
        return self.last


class LeasedPositions:
    """The positions of a log that outlives the process.

    `given` is the highest position that a client can know: of a delivered entry, or from `mark`. It never passes
    `ceiling`, which is on disk. So a process that opens the log later, with any clock, starts above every cursor if it
    starts above the ceiling.

    Positions are taken before their entries are committed and delivered. Meanwhile `mark` stays below the first of
    them: a reader that began at a later cursor would never be sent them.
    """

    __slots__ = ("_first_in_flight", "_taken", "ceiling", "given")

    def __init__(self, given: int, ceiling: int) -> None:
        self.given = given
        self.ceiling = ceiling
        self._taken = given
        self._first_in_flight = 0

    def take(self, now_us: int, count: int) -> int:
        """The first of `count` consecutive positions for entries that are about to be written."""
        first = max(now_us, self.given + 1, self._taken + 1)
        self._taken = first + count - 1
        self._first_in_flight = self._first_in_flight or first
        return first

    @property
    def wanted_ceiling(self) -> int:
        """The ceiling to write together with what was taken; the present one if it is high enough."""
        return self.ceiling if self._taken <= self.ceiling else self._taken + LEASE_US

    def committed(self, last: int, ceiling: int) -> None:
        """Nothing is in flight any more; entries up to `last` (0: none) and the ceiling are in the log."""
        self.given = max(self.given, last)
        self.ceiling = max(self.ceiling, ceiling)
        self._first_in_flight = 0

    def failed(self) -> None:
        """What was in flight did not reach the log. Its positions are spent: an unfinished write may have left them."""
        self._first_in_flight = 0

    def mark(self, now_us: int) -> int:
        """The present as a cursor, or as near to it as the ceiling and what is in flight allow."""
        top = min(max(now_us, self.given), self.ceiling)
        if self._first_in_flight:
            top = min(top, self._first_in_flight - 1)
        self.given = max(self.given, top)
        return self.given

    def wants_lease(self, now_us: int) -> bool:
        """True if marks are about to meet the ceiling."""
        return now_us > self.ceiling - LEASE_US // 2
