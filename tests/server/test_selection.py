"""Selections: what is wanted, and what of it may be read. Equal ones are one value."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.event import Event
from server.region import Region
from server.selection import Selection
from server.selectors import ANY, Selector, exact_selector, parse_selector

TOPICS = st.sampled_from(["a", "b", "a/1", "a/2", "b/1/c", "a/{id}"])
SELECTORS = st.sampled_from(
    [ANY, *map(parse_selector, ["a", "b", "a/{id}", "{x}", "b{/rest*}"]), exact_selector("a/{id}")]
)
# Near each other and far apart; at a pole, and on both sides of the date line.
PLACES = st.sampled_from([(6.5, 3.4), (6.6, 3.5), (9.1, 7.5), (90.0, 0.0), (89.9, -170.0), (0.0, 180.0), (0.1, -179.9)])
ANYWHERE = PLACES | st.tuples(st.floats(-90, 90), st.floats(-180, 180))
RADII = st.sampled_from([0.001, 1.0, 25.0, 50.0, 60.0, 700.0, 9_000.0, 20_038.0])
REGIONS = st.builds(lambda place, radius: Region(place[0], place[1], radius), ANYWHERE, RADII)
EVENTS = st.builds(
    Event,
    topics=st.lists(TOPICS, max_size=3).map(tuple),
    type=st.sampled_from([None, "x", "y"]),
    private=st.booleans(),
    location=st.none() | ANYWHERE,
)
SELECTIONS = st.builds(
    Selection,
    topics=st.none() | st.frozensets(SELECTORS, max_size=3),
    types=st.none() | st.frozensets(st.sampled_from(["message", "x"]), max_size=2),
    grants=st.none() | st.lists(SELECTORS, max_size=2).map(tuple),
    region=st.none() | REGIONS,
)


def some(*texts: str) -> frozenset[Selector]:
    return frozenset(map(parse_selector, texts))


def matched(selectors: Iterable[Selector], event: Event) -> bool:
    return any(selector.matches(topic) for selector in selectors for topic in event.topics)


def test_what_is_named_is_there_word_for_word() -> None:
    """Not what a template matches, and not everything that `*` covers."""
    grants = tuple(map(parse_selector, ("c", "d/{id}")))
    assert Selection(some("a", "b/{id}"), None, grants).named == {"a", "b/{id}", "c", "d/{id}"}
    assert Selection(None, None, None).named == set()
    fewer = Selection(some("a"), frozenset({"x"}), grants).with_grants(())
    assert fewer == Selection(some("a"), frozenset({"x"}), ())


@given(SELECTIONS, EVENTS)
def test_an_event_goes_to_who_selects_its_topic_and_type_and_may_read_it(selection: Selection, event: Event) -> None:
    readable = not event.private or selection.grants is None or matched(selection.grants, event)
    assert selection.may_read(event) == readable
    assert selection.wants(event) == (
        readable
        and (selection.types is None or (event.type or "message") in selection.types)
        and (selection.topics is None or matched(selection.topics, event))
        and (selection.region is None or (event.location is not None and selection.region.contains(event.location)))
    )


@given(SELECTIONS, EVENTS)
def test_selecting_more_never_lets_more_private_events_be_read(selection: Selection, event: Event) -> None:
    everything = Selection(None, None, selection.grants)
    assert not (event.private and everything.wants(event) and not selection.may_read(event))


@given(SELECTIONS, SELECTIONS)
def test_equal_selections_are_equal_values_with_one_hash(one: Selection, other: Selection) -> None:
    same = (one.topics, one.types, one.grants, one.region) == (other.topics, other.types, other.grants, other.region)
    assert (one == other) == same
    assert len({one, other}) == (1 if same else 2)
    region = one.region and Region(one.region.latitude, one.region.longitude, one.region.radius_km)
    assert one == Selection(one.topics, one.types, one.grants, region)


def test_a_selection_is_no_other_kind_of_value() -> None:
    assert Selection() != (None, None, ())
    assert repr(Selection(types=frozenset("x"))) == "Selection(None, frozenset({'x'}), (), None)"
    assert Selection(region=Region(1, 2, 3)) != Selection(region=Region(1, 2, 4)) != Selection()


@pytest.mark.parametrize(("kind", "wanted"), [(None, True), ("message", True), ("x", False)])
def test_an_event_without_a_type_is_a_message(kind: str | None, wanted: bool) -> None:
    assert Selection(types=frozenset(["message"])).wants(Event(("a",), type=kind)) is wanted


def test_one_of_several_topics_is_enough_to_be_selected_and_to_be_read() -> None:
    event = Event(("a", "b/1"), private=True)
    assert Selection(some("a"), grants=tuple(some("b/{id}"))).wants(event)
    assert not Selection(some("a"), grants=tuple(some("c"))).wants(event)


def test_a_private_event_without_topics_is_for_holders_of_everything_alone() -> None:
    event = Event(private=True)
    assert Selection(grants=None).wants(event)
    assert not Selection(grants=(ANY,)).wants(event)


def test_exact_topics_are_looked_up_and_not_compared_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    selection = Selection(some(*map(str, range(100))), grants=())
    monkeypatch.delattr(Selector, "matches")
    assert selection.wants(Event(("x", "7")))
    assert not selection.wants(Event(("x", "y")))


def test_an_event_without_topics_goes_to_who_selects_none_in_particular() -> None:
    assert Selection().wants(Event())
    assert not Selection(some("a")).wants(Event())


def test_a_region_selects_events_that_have_a_location_in_it() -> None:
    lagos = Selection(some("a"), grants=(), region=Region(6.5244, 3.3792, 25))
    assert lagos.wants(Event(("a",), location=(6.6, 3.35)))
    assert not lagos.wants(Event(("a",), location=(7.4, 3.9)))
    assert not lagos.wants(Event(("a",)))
    assert not lagos.wants(Event(("b",), location=(6.6, 3.35)))


def test_a_region_never_lets_private_events_be_read() -> None:
    event = Event(("a",), private=True, location=(0.0, 0.0))
    here = Region(0, 0, 1)
    assert not Selection(grants=(), region=here).wants(event)
    assert Selection(grants=tuple(some("a")), region=here).wants(event)
    assert not Selection(grants=None, region=Region(1, 1, 1)).wants(event)
