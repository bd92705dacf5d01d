"""Prices: what one is, what of an answer from upstream is news, and which steps time goes in. Pure.

Owns the rules: a price has two sides (`high`, what buyers paid last; `low`, what sellers got last), each with the time
of its trade; either may be unknown. A side that is older than the one known is no news: answers may come from a cache.
A known price is never taken back: upstream has nulls for a side that nobody has traded yet, so who knows a trade knows
more than an answer without it.
Must never know of databases, requests or where prices come from.

Moments are milliseconds since 1970 (`…_ms`), but for a trade's own time, which is upstream's: seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import ujson

from apps.moments import written
from server.event import Event

Period = Literal["1h", "24h", "7d", "30d", "90d", "1y", "all"]

PRICE_UPDATE = "price-update"
HOUR = 3_600
DAY = 86_400
MAX_ITEM = 999_999_999
# A thousand times what exists. Sums over a day's points stay within 64 bits.
MAX_PRICE = 10**12

_Side = tuple[int | None, int | None]  # a price, and when it was paid


class Steps(NamedTuple):
    """A period, and how far apart its points are in a chart. No `seconds`: from the beginning."""

    seconds: int
    step_seconds: int


PERIODS: Mapping[str, Steps] = {
    "1h": Steps(HOUR, 60),
    "24h": Steps(DAY, 300),
    "7d": Steps(7 * DAY, 1_800),
    "30d": Steps(30 * DAY, 7_200),
    "90d": Steps(90 * DAY, 21_600),
    "1y": Steps(365 * DAY, DAY),
    "all": Steps(0, DAY),
}


class Tier(NamedTuple):
    """Points of `step_seconds` (0: single changes) that are older than `keep_seconds` are averaged over
    `into_seconds`."""

    step_seconds: int
    keep_seconds: float
    into_seconds: int


def tiers(keep_points_seconds: float) -> tuple[Tier, ...]:
    """How the history gets coarser: never coarser than the charts that reach so far back."""
    return (
        Tier(0, keep_points_seconds, 300),
        Tier(300, 8 * DAY, 1_800),
        Tier(1_800, 92 * DAY, DAY),
    )


@dataclass(frozen=True, slots=True)
class Quote:
    """Both sides of an item's price, as upstream says them."""

    high: int | None = None
    low: int | None = None
    high_time: int | None = None
    low_time: int | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """An item as it stands: `changed_ms` is when this was learnt."""

    item_id: int
    name: str | None
    quote: Quote
    changed_ms: int
    simulated: bool

    def said(self) -> dict[str, Any]:
        """In the words of the stream; what is made up is marked as such."""
        quote = self.quote
        facts: dict[str, Any] = {
            "item_id": self.item_id,
            "high": quote.high,
            "low": quote.low,
            "high_time": quote.high_time,
            "low_time": quote.low_time,
            "timestamp": written(self.changed_ms / 1_000),
        }
        return facts | {"simulated": True} if self.simulated else facts

    def event(self) -> Event:
        """What is told of it."""
        return Event((topic_of(self.item_id),), ujson.dumps(self.said()), PRICE_UPDATE)


class Point(NamedTuple):
    """A point of the history: averages, and of how many single changes each is one (0: that side is not known)."""

    at_ms: int
    high: int | None
    highs: int
    low: int | None
    lows: int

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {"timestamp": written(self.at_ms / 1_000), "high": self.high, "low": self.low}


def single(at_ms: int, high: int | None, low: int | None) -> Point:
    """The point that one change makes."""
    return Point(at_ms, high, int(high is not None), low, int(low is not None))


def averaged(at_ms: int, high_sum: Any, highs: Any, low_sum: Any, lows: Any) -> Point:
    """The point of several. Databases give sums as they like: whole numbers, decimals, nothing."""
    highs, lows = int(highs or 0), int(lows or 0)
    return Point(at_ms, _mean(high_sum, highs), highs, _mean(low_sum, lows), lows)


def _mean(total: Any, count: int) -> int | None:
    """Rounded, in whole numbers: a float would lose the last digits of a large sum."""
    return (2 * int(total) + count) // (2 * count) if count else None


def advance(known: Quote | None, seen: Quote) -> Quote | None:
    """How an item stands after an answer; None if that is no news."""
    before = known or Quote()
    high, high_time = _later((before.high, before.high_time), (seen.high, seen.high_time))
    low, low_time = _later((before.low, before.low_time), (seen.low, seen.low_time))
    after = Quote(high, low, high_time, low_time)
    return None if after == known else after


def _later(known: _Side, seen: _Side) -> _Side:
    """The side that stands. Of two trades in one second it is the one that was answered last: seconds are all that
    upstream says of their order. A price without a time gives way to every other, and takes the place of none that has
    one."""
    (price, at), (seen_price, seen_at) = known, seen
    if seen_price is None:  # whatever time is beside it: there was no trade, so there is nothing to tell
        return known
    if price is None or at is None:
        return seen
    return seen if seen_at is not None and seen_at >= at else known


def topic_of(item_id: int) -> str:
    """The topic of an item's events. They are for everybody."""
    return f"items/{item_id}"


def begin_of(moment_ms: int, step_seconds: int) -> int:
    """Where the step begins that a moment is in."""
    return moment_ms - moment_ms % (step_seconds * 1_000)
