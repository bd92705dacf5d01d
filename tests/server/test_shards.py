"""Shards: which topics share one, which of them a selection needs, and when a node gives one up."""

from __future__ import annotations

from server.region import Region
from server.selection import Selection
from server.selectors import ANY, exact_selector, parse_selector
from server.shards import ALL, IDLE_SECONDS, Following, shards_for, shards_of


def selection(*topics: str) -> Selection:
    return Selection(frozenset(map(parse_selector, topics)))


def test_a_topic_is_always_in_the_same_shard_and_topics_are_spread_over_all() -> None:
    assert shards_of(["items/4151"], 8) == shards_of(["items/4151"], 8)
    counts = [0] * 8
    for number in range(8_000):
        (shard,) = shards_of([f"items/{number}"], 8)
        counts[shard] += 1
    assert 800 < min(counts) <= max(counts) < 1200


def test_the_mapping_is_the_same_in_every_process_and_release() -> None:
    """Nodes and publishers of different releases write into one log."""
    assert [shards_of([topic], 4) for topic in ("a", "b", "items/4151", "ü")] == [(3,), (1,), (0,), (1,)]


def test_an_event_is_in_the_shard_of_each_of_its_topics_once() -> None:
    topics = [f"t/{number}" for number in range(100)]
    assert shards_of(topics, 4) == (0, 1, 2, 3)
    assert shards_of([topics[0], topics[0]], 4) == shards_of(topics[:1], 4)


def test_a_selection_of_exact_topics_needs_their_shards() -> None:
    assert shards_for(selection("a"), 4) == shards_of("a", 4)
    assert shards_for(selection("a", "b"), 4) == shards_of("ab", 4)


def test_what_may_match_any_topic_needs_all() -> None:
    assert shards_for(Selection(), 4) == ALL
    assert shards_for(Selection(frozenset([ANY])), 4) == ALL
    assert shards_for(selection("a", "items/{id}"), 4) == ALL
    assert shards_for(selection(*[f"t/{number}" for number in range(50)]), 4) == ALL


def test_a_region_may_hold_events_of_any_shard_unless_topics_say_which() -> None:
    here = Region(6.5, 3.4, 50)
    assert shards_for(Selection(region=here), 4) == ALL
    assert shards_for(Selection(frozenset([parse_selector("items/{id}")]), region=here), 4) == ALL
    assert shards_for(Selection(frozenset([exact_selector("a")]), region=here), 4) == shards_of("a", 4)


def test_a_log_that_is_not_split_has_nothing_to_follow() -> None:
    whole = Following(1)
    assert shards_for(Selection(frozenset([exact_selector("a")])), 1) == ALL
    assert whole.missing(ALL) == []
    whole.enter(ALL)
    whole.depart(ALL)
    assert whole.floor(ALL) == 0
    assert whole.give_up(1e9) == []


def test_a_shard_is_missing_until_it_is_followed() -> None:
    following = Following(4)
    assert following.missing((1, 3)) == [1, 3]
    assert following.missing(ALL) == [0, 1, 2, 3]
    following.began(1, 100, 0.0)
    assert following.missing((1, 3)) == [3]
    assert following.floor((1,)) == 100
    following.began(3, 50, 0.0)
    assert following.floor((1, 3)) == 100
    assert following.followed == [1, 3]


def test_a_shard_is_given_up_when_no_feed_has_needed_it_for_long() -> None:
    following = Following(4)
    following.began(1, 100, 0.0)
    following.began(2, 100, 0.0)
    following.enter((1,))
    following.enter((1, 2))
    following.depart((1, 2))
    assert following.give_up(1.0) == []
    assert following.give_up(1.0 + IDLE_SECONDS) == []
    assert following.give_up(1.1 + IDLE_SECONDS) == [2]
    assert following.missing((1, 2)) == [2]
    following.depart((1,))
    assert following.give_up(1_000.0) == []
    following.enter((1,))  # somebody came back
    assert following.give_up(2_000.0) == []
    following.depart((1,))
    assert following.give_up(3_000.0) == []
    assert following.give_up(3_001.0 + IDLE_SECONDS) == [1]


def test_a_shard_that_nobody_came_for_is_given_up_too() -> None:
    following = Following(2)
    following.began(0, 0, 10.0)
    assert following.give_up(10.0 + IDLE_SECONDS) == []
    assert following.give_up(10.1 + IDLE_SECONDS) == [0]
