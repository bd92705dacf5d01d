"""The index of feeds proposes neither too few nor too many: it agrees with asking every selection."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.event import Event
from server.feed import Feed
from server.frames import Encoding
from server.index import FeedIndex
from server.region import Region
from server.selection import Selection
from server.selectors import ANY, Selector, exact_selector, parse_selector
from tests.server.engine import channel
from tests.server.test_selection import EVENTS, SELECTIONS

# By turns put in and taken out: a feed's number, in an order that chance chooses.
ORDERS = st.lists(st.integers(0, 5), max_size=20)


def feed(selection: Selection) -> Feed:
    return Feed(channel(), selection, Encoding.PLAIN)


def indexed(*selections: Selection) -> tuple[FeedIndex, list[Feed]]:
    index, feeds = FeedIndex(), [feed(selection) for selection in selections]
    for one in feeds:
        index.add(one)
    return index, feeds


def is_empty(index: FeedIndex) -> bool:
    return not any(getattr(index, table) for table in FeedIndex.__slots__)


def selecting(*texts: str) -> Selection:
    return Selection(frozenset(map(parse_selector, texts)))


@given(st.lists(SELECTIONS, max_size=6), st.lists(EVENTS, min_size=1, max_size=5))
def test_a_feed_is_found_exactly_if_its_selection_wants_the_event(
    selections: list[Selection], events: list[Event]
) -> None:
    index, feeds = indexed(*selections)
    for event in events:
        found = index.match(event)
        assert len(found) == len(set(found))
        assert set(found) == {one for one in feeds if one.selection.wants(event)}


@given(st.lists(SELECTIONS, min_size=6, max_size=6), ORDERS, st.lists(EVENTS, min_size=1, max_size=5))
def test_feeds_that_were_removed_are_found_no_more_and_leave_nothing(
    selections: list[Selection], order: list[int], events: list[Event]
) -> None:
    index, feeds = FeedIndex(), [feed(selection) for selection in selections]
    here: set[Feed] = set()
    for number in order:
        one = feeds[number]
        if one in here:
            index.remove(one)
        else:
            index.add(one)
        here ^= {one}
        for event in events:
            assert set(index.match(event)) == {one for one in here if one.selection.wants(event)}
    for one in here:
        index.remove(one)
    assert is_empty(index)


def test_two_templates_with_one_prefix_in_one_selection_are_removed_together() -> None:
    index, [one] = indexed(selecting("items/{id}", "items/{name}"))
    index.remove(one)
    assert is_empty(index)


def test_a_template_and_the_topic_spelled_like_it_in_one_selection_are_removed_together() -> None:
    index, [one] = indexed(Selection(frozenset([parse_selector("items/{id}"), exact_selector("items/{id}")])))
    index.remove(one)
    assert is_empty(index)


def test_a_feed_that_is_selected_by_several_topics_is_found_once() -> None:
    index, [one] = indexed(selecting("a", "b", "{x}", "a/{y}"))
    assert index.match(Event(("a", "b", "a/1"))) == [one]


def test_feeds_are_found_in_the_order_of_their_creation() -> None:
    index, feeds = indexed(*(Selection(types=frozenset(["message", str(number)])) for number in range(20)))
    assert index.match(Event(("a",))) == feeds


def test_a_template_finds_the_topic_that_is_spelled_like_it() -> None:
    index, [one] = indexed(selecting("{x}"))
    assert index.match(Event(("{x}",))) == [one]


def test_everything_may_be_said_in_two_ways() -> None:
    index, feeds = indexed(Selection(), Selection(frozenset([ANY])))
    assert index.match(Event()) == feeds[:1]  # a star selects topics, and here is none
    assert index.match(Event(("a",))) == feeds


def test_regions_of_several_sizes_and_with_other_wishes_are_removed_without_a_trace() -> None:
    regions = [Region(6.5, 3.4, radius) for radius in (0.01, 1, 50, 900, 20_000)]
    index, feeds = indexed(
        *[Selection(region=region) for region in regions],
        *[Selection(frozenset([parse_selector("a/{id}")]), frozenset("x"), (), region) for region in regions],
    )
    for one in feeds:
        index.remove(one)
    assert is_empty(index)


def test_a_feed_with_a_region_is_one_of_its_topics_too() -> None:
    here = Selection(frozenset([exact_selector("a")]), region=Region(0, 0, 10))
    index, feeds = indexed(selecting("a"), here, selecting("b"), Selection(region=Region(0, 0, 10)))
    assert index.of_topic("a") == feeds[:2]
    index.remove(feeds[1])
    assert index.of_topic("a") == feeds[:1]


def country(count: int) -> list[Selection]:
    """So many circles of 50 km over a country of 900 by 1,000 km, no two alike."""
    chance = random.Random(count)
    return [Selection(region=Region(chance.uniform(5, 13), chance.uniform(4, 13), 50)) for _ in range(count)]


@pytest.mark.parametrize("topics", [None, frozenset([exact_selector("facilities")])])
def test_an_event_asks_feeds_nearby_and_not_all(
    monkeypatch: pytest.MonkeyPatch, topics: frozenset[Selector] | None
) -> None:
    """Cost: it grows with the matches, not with the feeds."""
    selections = [Selection(topics, region=one.region) for one in country(2_000)]
    index, _ = indexed(*selections)
    asked = 0
    wants = Selection.wants

    def counted(selection: Selection, event: Event) -> bool:
        nonlocal asked
        asked += 1
        return wants(selection, event)

    monkeypatch.setattr(Selection, "wants", counted)
    chance = random.Random(1)
    places = [(chance.uniform(6, 12), chance.uniform(5, 12)) for _ in range(200)]
    matches = sum(len(index.match(Event(("facilities",), location=place))) for place in places)
    assert matches > 1_000
    assert asked < 6 * matches
    asked = 0
    assert index.match(Event(("facilities",), location=(-30.0, 100.0))) == []
    assert index.match(Event(("facilities",))) == []
    assert asked == 0


def test_readers_of_a_few_sizes_cost_an_event_one_look_per_level() -> None:
    index, _ = indexed(*country(300), *[Selection(region=Region(0, 0, radius)) for radius in (1, 1.1, 500)])
    assert len(index._by_cell) == 3
