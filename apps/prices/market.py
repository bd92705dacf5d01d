"""A simulated market: prices that move like real ones, for whoever has no upstream.

Owns what is traded there, how prices wander, and a past that fits the present. Everything it says is marked as
simulated; nothing here asks anybody. The items are Old School RuneScape's, with their numbers and names; the prices are
not. Must never know of databases.

How: the logarithm of a price wanders at random and is drawn back towards the item's usual price; buyers pay a spread
more than sellers get; rare items trade rarely.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from apps.prices.model import DAY, HOUR, Point, Price, Quote, begin_of, single, tiers
from apps.prices.source import Latest, Past

PAST_DAYS = 400
# How fast a price wanders: the share of it in the square root of a day; and how strongly it is drawn back, in a day.
DRAW = 0.035
PULL_PER_DAY = 0.03
MAX_PRICE_FACTOR = 4.0


@dataclass(frozen=True, slots=True)
class Item:
    """What is traded: its usual price, its spread, and how likely each side trades between two looks."""

    item_id: int
    name: str
    usual: int
    spread: float = 0.012
    busy: float = 0.04


# Those that people look at first.
_BUSY = {2: 0.2, 4151: 0.2, 11832: 0.2}


def _items() -> Iterator[Item]:
    for item_id, name, usual in _COMMON:
        yield Item(item_id, name, usual, busy=_BUSY.get(item_id, 0.04))
    for item_id, name, usual in _RARE:
        yield Item(item_id, name, usual, spread=0.025, busy=_BUSY.get(item_id, 0.01))


_COMMON = (
    (2, "Cannonball", 178),
    (314, "Feather", 3),
    (377, "Raw lobster", 168),
    (383, "Raw shark", 720),
    (385, "Shark", 760),
    (440, "Iron ore", 92),
    (444, "Gold ore", 210),
    (453, "Coal", 148),
    (536, "Dragon bones", 2_450),
    (554, "Fire rune", 5),
    (560, "Death rune", 195),
    (561, "Nature rune", 118),
    (562, "Chaos rune", 62),
    (565, "Blood rune", 340),
    (892, "Rune arrow", 66),
    (1513, "Magic logs", 1_020),
    (1515, "Yew logs", 310),
    (1777, "Bow string", 96),
    (1779, "Flax", 14),
    (2434, "Prayer potion(4)", 9_100),
    (2998, "Grimy toadflax", 2_300),
    (3024, "Super restore(4)", 11_400),
    (5295, "Ranarr seed", 26_500),
    (6685, "Saradomin brew(4)", 5_900),
    (9075, "Astral rune", 128),
    (11212, "Dragon arrow", 1_850),
    (11230, "Dragon dart", 2_700),
    (12934, "Zulrah's scales", 270),
    (21820, "Revenant ether", 172),
    (21880, "Wrath rune", 310),
)
_RARE = (
    (4151, "Abyssal whip", 1_420_000),
    (4587, "Dragon scimitar", 59_500),
    (6571, "Uncut onyx", 2_650_000),
    (6585, "Amulet of fury", 2_540_000),
    (11802, "Armadyl godsword", 14_200_000),
    (11832, "Bandos chestplate", 19_800_000),
    (11834, "Bandos tassets", 25_600_000),
    (12924, "Toxic blowpipe (empty)", 4_100_000),
    (13652, "Dragon claws", 61_000_000),
    (20997, "Twisted bow", 1_560_000_000),
)
ITEMS: Mapping[int, Item] = {item.item_id: item for item in _items()}


class Market:
    """See the module's head. `chance` makes it repeatable."""

    simulated = True

    def __init__(self, *, seconds: float, keep_points_seconds: float, chance: random.Random | None = None) -> None:
        self.seconds = seconds
        self._keep_points_seconds = keep_points_seconds
        self._chance = chance or random.Random()
        self._values = {item.item_id: float(item.usual) for item in ITEMS.values()}
        self._quotes: dict[int, Quote] = {}
        self._looked = 0.0

    def begin(self, known: Mapping[int, Price]) -> None:
        """See Source: the market goes on from there."""
        for item_id, price in known.items():
            if item_id in ITEMS:
                self._quotes[item_id] = price.quote
                sides = [side for side in (price.quote.high, price.quote.low) if side is not None]
                self._values[item_id] = sum(sides) / len(sides) if sides else float(ITEMS[item_id].usual)
        self._looked = time.time()

    async def latest(self) -> Latest:
        """See Source."""
        now = time.time()
        days, self._looked = min(1.0, max(0.0, now - self._looked) / DAY), now
        for item in ITEMS.values():
            self._values[item.item_id] = self._moved(item, self._values[item.item_id], days)
            self._trade(item, int(now))
        return Latest(dict(self._quotes))

    def _trade(self, item: Item, now: int) -> None:
        quote = self._quotes.get(item.item_id, Quote())
        high, low = self._sides(item)
        if self._chance.random() < item.busy:
            quote = Quote(high, quote.low, now, quote.low_time)
        if self._chance.random() < item.busy:
            quote = Quote(quote.high, low, quote.high_time, now)
        if quote.high_time or quote.low_time:
            self._quotes[item.item_id] = quote

    def _sides(self, item: Item) -> tuple[int, int]:
        """What a buyer pays and a seller gets now: around the price, each trade at its own."""
        value, half = self._values[item.item_id], item.spread / 2
        noise = half / 6
        low = max(1, round(value * (1 - half + self._chance.gauss(0, noise))))
        return max(low, round(value * (1 + half + self._chance.gauss(0, noise)))), low

    def _moved(self, item: Item, value: float, days: float) -> float:
        away = math.log(value / item.usual)
        away += -PULL_PER_DAY * days * away + self._chance.gauss(0, DRAW * math.sqrt(days))
        most = math.log(MAX_PRICE_FACTOR)
        return item.usual * math.exp(max(-most, min(most, away)))

    async def names(self) -> Mapping[int, str]:
        """See Source."""
        return {item.item_id: item.name for item in ITEMS.values()}

    def brought(self, known: Mapping[int, Price]) -> Iterator[tuple[Price, Past]]:
        """See Source."""
        for item in ITEMS.values():
            if item.item_id not in known:
                past = list(self._past(item, round(time.time() * 1_000)))
                moment = past[-1][1].at_ms
                yield Price(item.item_id, item.name, self._quotes[item.item_id], moment, simulated=True), past

    def _past(self, item: Item, now_ms: int) -> Iterator[tuple[int, Point]]:
        """An item's past up to now, the oldest first. The market goes on from its end."""
        before = None
        for step_seconds, at_ms in _moments(now_ms, self._keep_points_seconds):
            days = 0.0 if before is None else (at_ms - before) / 1_000 / DAY
            before = at_ms
            self._values[item.item_id] = self._moved(item, self._values[item.item_id], days)
            high, low = self._sides(item)
            self._quotes[item.item_id] = Quote(high, low, at_ms // 1_000, at_ms // 1_000)
            yield step_seconds, single(at_ms, high, low)

    def close(self) -> None:
        """See Source."""


def _moments(now_ms: int, keep_points_seconds: float) -> Iterator[tuple[int, int]]:
    """When the past has points, and what each stands for: as it would be had it been recorded all the time, only with
    fewer points."""
    begin = begin_of(now_ms - PAST_DAYS * DAY * 1_000, DAY)
    spacing = {DAY: DAY, 1_800: 6 * HOUR, 300: HOUR // 2}
    for tier in reversed(tiers(keep_points_seconds)):
        end = max(begin, begin_of(now_ms - round(tier.keep_seconds * 1_000), tier.into_seconds))
        for at_ms in range(begin, end, spacing[tier.into_seconds] * 1_000):
            yield tier.into_seconds, at_ms
        begin = end
    last_hour = max(begin, now_ms - HOUR * 1_000)
    for at_ms in range(begin, last_hour, 300_000):
        yield 0, at_ms
    for at_ms in range(last_hour, now_ms, 60_000):
        yield 0, at_ms
