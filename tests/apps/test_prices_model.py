"""The rules of prices, and the simulated market: no server, no database."""

from __future__ import annotations

import asyncio
import itertools
import json
import random

import pytest

from apps.prices.market import ITEMS, Market
from apps.prices.model import PERIODS, Price, Quote, advance, averaged, begin_of, single, tiers

DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("known", "seen", "after"),
    [
        (None, Quote(10, None, 5, None), Quote(10, None, 5, None)),
        (Quote(10, 9, 5, 5), Quote(10, 9, 5, 5), None),
        (Quote(10, 9, 5, 5), Quote(11, 9, 6, 5), Quote(11, 9, 6, 5)),
        (Quote(10, 9, 5, 5), Quote(10, 9, 6, 5), Quote(10, 9, 6, 5)),
        (Quote(10, 9, 5, 5), Quote(8, 9, 4, 5), None),
        (Quote(10, 9, 5, 5), Quote(8, 7, 4, 6), Quote(10, 7, 5, 6)),
        (Quote(None, 9, None, 5), Quote(12, 9, 6, 5), Quote(12, 9, 6, 5)),
        (Quote(10, 9, 5, 5), Quote(12, 9, 5, 5), Quote(12, 9, 5, 5)),
        # nulls: nobody had traded that side yet, as upstream knew it then
        (Quote(10, 9, 5, 5), Quote(None, 9, None, 5), None),
        (Quote(10, 9, 5, 5), Quote(10, None, 5, None), None),
        (Quote(10, 9, 5, 5), Quote(None, None, None, None), None),
        (Quote(10, 9, 5, 5), Quote(None, 7, None, 6), Quote(10, 7, 5, 6)),
        (Quote(10, 9, 5, 5), Quote(11, None, 6, None), Quote(11, 9, 6, 5)),
        (Quote(None, 9, None, 5), Quote(None, 9, None, 5), None),
        (Quote(None, 9, None, 5), Quote(None, 8, None, 6), Quote(None, 8, None, 6)),
        (None, Quote(None, None, None, None), Quote(None, None, None, None)),
        (Quote(None, None, None, None), Quote(None, None, None, None), None),
        # a time without a price: no trade
        (Quote(10, 9, 5, 5), Quote(None, 9, 6, 5), None),
        (Quote(None, 9, None, 5), Quote(None, 9, 6, 5), None),
        (None, Quote(None, 9, 6, 5), Quote(None, 9, None, 5)),
        (Quote(None, 9, 6, 5), Quote(10, 9, 5, 5), Quote(10, 9, 5, 5)),
        # a price without a time: better than none, and than another one like it
        (Quote(10, 9, 5, 5), Quote(12, 9, None, 5), None),
        (Quote(None, 9, None, 5), Quote(12, 9, None, 5), Quote(12, 9, None, 5)),
        (Quote(10, 9, None, 5), Quote(12, 9, None, 5), Quote(12, 9, None, 5)),
        (Quote(10, 9, None, 5), Quote(10, 9, None, 5), None),
        (Quote(10, 9, None, 5), Quote(12, 9, 0, 5), Quote(12, 9, 0, 5)),
        (Quote(10, 9, 0, 5), Quote(12, 9, None, 5), None),
    ],
)
def test_what_is_older_than_what_is_known_is_no_news(known: Quote | None, seen: Quote, after: Quote | None) -> None:
    """P3: each side by its own time, for answers may come from a cache."""
    assert advance(known, seen) == after


def test_answers_in_any_order_lead_to_the_last_trade_of_each_side() -> None:
    """P3: so no cached answer takes anything back, wherever in between it comes."""
    trades = [Quote(high, low, high, low) for high in (None, 1, 2) for low in (None, 3, 4)]
    for order in itertools.permutations(trades, 4):
        stands: Quote | None = None
        for seen in order:
            stands = advance(stands, seen) or stands
        highs, lows = ([getattr(seen, side) or 0 for seen in order] for side in ("high", "low"))
        high, low = max(highs) or None, max(lows) or None
        assert stands == Quote(high, low, high, low)


def test_an_update_has_the_words_of_the_seed_and_says_if_it_is_made_up() -> None:
    """P2: nulls are there as nulls."""
    price = Price(4151, "Abyssal whip", Quote(2_850_000, None, 1_736_859_296, None), 1_736_859_296_070, False)
    assert price.event().topics == ("items/4151",)
    assert json.loads(price.event().data) == {
        "item_id": 4151,
        "high": 2_850_000,
        "low": None,
        "high_time": 1_736_859_296,
        "low_time": None,
        "timestamp": "2025-01-14T12:54:56.070Z",
    }
    made_up = Price(4151, "Abyssal whip", Quote(), 0, True)
    assert made_up.said()["simulated"] is True


def test_the_steps_of_the_periods_are_those_of_the_seed() -> None:
    """P4: the table of the chart's time steps."""
    minutes = {name: steps.step_seconds / 60 for name, steps in PERIODS.items()}
    assert minutes == {"1h": 1, "24h": 5, "7d": 30, "30d": 120, "90d": 360, "1y": 1440, "all": 1440}


def test_no_chart_is_coarser_than_its_step_for_what_was_averaged() -> None:
    """P4: what a period reaches back to is kept in steps that go evenly into its own."""
    for seconds, step_seconds in PERIODS.values():
        for tier in tiers(90_000):
            if tier.keep_seconds < seconds:
                assert step_seconds % tier.into_seconds == 0


def test_averages_are_whole_and_exact_however_large() -> None:
    """P4."""
    assert averaged(7, None, None, 9, 2) == (7, None, 0, 5, 2)
    assert averaged(0, 10**12 * 86_400 + 3, 86_400, None, 0).high == 10**12
    assert single(1, None, 4) == (1, None, 0, 4, 1)
    assert begin_of(1_736_859_296_070, 300) == 1_736_859_000_000


def test_the_market_brings_a_past_and_goes_on_from_its_end() -> None:
    """P3: believable, for all items of the seed too; each point in the step that it is said to stand for."""
    market = Market(seconds=1.0, keep_points_seconds=90_000, chance=random.Random(5))
    brought = {price.item_id: (price, past) for price, past in market.brought({})}
    assert {2, 4151, 11832} <= brought.keys() == ITEMS.keys()
    price, past = brought[4151]
    moments = [point.at_ms for _, point in past]
    assert moments == sorted(set(moments))
    assert moments[-1] - moments[0] > 395 * DAY_MS
    assert {step for step, _ in past} == {86_400, 1_800, 300, 0}
    assert all(point.at_ms % (step * 1_000) == 0 for step, point in past if step)
    assert all(point.low is not None and point.high is not None and 0 < point.low <= point.high for _, point in past)
    assert (price.quote.high, price.quote.low) == (past[-1][1].high, past[-1][1].low)
    market.begin({item_id: one for item_id, (one, _) in brought.items()})
    before = asyncio.run(market.latest()).quotes
    assert before.keys() == ITEMS.keys()
    after = asyncio.run(market.latest()).quotes
    changed = {item_id for item_id in after if after[item_id] != before[item_id]}
    assert 0 < len(changed) < len(ITEMS)
    assert all(abs((after[item].high or 0) / (before[item].high or 1) - 1) < 0.1 for item in changed if item != 314)
    assert list(market.brought(brought)) == []  # type: ignore[arg-type]
