"""The index of feeds proposes neither too few nor too many: it agrees with asking every selection."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.event import Event
from server.feed import Feed
from server.frames import Encoding
from server.index import FeedIndex
from server.selection import Selection
from server.selectors import ANY, exact_selector, parse_selector
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
    return not (index._all or index._by_prefix or index._by_topic or index._by_type)


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
