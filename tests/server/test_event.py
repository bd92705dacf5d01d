"""Events: what each field may be, and that nothing that exists can forge a line."""

from __future__ import annotations

import math
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.endings import CONTROL_EVENTS
from server.event import (
    MAX_ID_BYTES,
    MAX_RETRY_MS,
    MAX_TOPIC_BYTES,
    MAX_TOPICS,
    MAX_TYPE_BYTES,
    Event,
    InvalidEvent,
    check_id,
    check_topics,
    is_safe,
)

# Format characters of Unicode 15 that Python 3.11's tables (14) do not have yet.
SINCE_15 = {chr(code) for code in range(0x13439, 0x13440)}


def refusal(**fields: Any) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as caught:
        Event(**fields)
    return caught.value


def with_text(field: str, text: str) -> dict[str, Any]:
    return {"topics": (text,)} if field == "topic" else {field: text}


def test_unsafe_characters_are_exactly_controls_formats_and_surrogates() -> None:
    unsafe = {chr(code) for code in range(sys.maxunicode + 1) if not is_safe(chr(code))}
    by_category = {
        chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs")
    }
    assert unsafe - SINCE_15 == by_category - SINCE_15
    assert unsafe >= SINCE_15


def test_an_event_may_be_empty() -> None:
    event = Event()
    assert (event.topics, event.data, event.type, event.id, event.retry_ms, event.private, event.location) == (
        (), "", None, None, None, False, None,
    )  # fmt: skip


@pytest.mark.parametrize("field", ["topic", "type", "id"])
@pytest.mark.parametrize("text", ["a\nid: 2", "a\r", "\0", "a\x7f", "a\x85b", "\u200b", "\u202ea", "\ufeff", "\ud800"])
def test_no_control_or_format_character_gets_into_a_line(field: str, text: str) -> None:
    error = refusal(**with_text(field, text))
    assert (error.field, error.reason) == (field, "must not hold control or format characters")


@pytest.mark.parametrize("field", ["topic", "type", "id"])
def test_a_field_that_is_given_is_not_empty(field: str) -> None:
    error = refusal(**with_text(field, ""))
    assert (error.field, error.reason, error.too_large) == (field, "must not be empty", False)


@pytest.mark.parametrize(
    ("field", "most"), [("topic", MAX_TOPIC_BYTES), ("type", MAX_TYPE_BYTES), ("id", MAX_ID_BYTES)]
)
@pytest.mark.parametrize("character", ["a", "é", "\u20ac", "\U0001f680"])
def test_limits_count_bytes_and_not_characters(field: str, most: int, character: str) -> None:
    fits = character * (most // len(character.encode()))
    Event(**with_text(field, fits))
    error = refusal(**with_text(field, fits + character))
    assert (error.field, error.too_large) == (field, True)
    assert str(most) in error.reason


def test_the_number_of_topics_is_limited() -> None:
    Event(("a",) * MAX_TOPICS)
    assert refusal(topics=("a",) * (MAX_TOPICS + 1)).too_large


def test_topics_can_be_checked_alone() -> None:
    check_topics(())
    check_topics(("a", "b"))
    with pytest.raises(InvalidEvent, match="topic"):
        check_topics(("a", ""))


def test_a_star_is_no_topic() -> None:
    assert refusal(topics=("a", "*")).field == "topic"
    Event(("**", "*a"))


@pytest.mark.parametrize("name", sorted(CONTROL_EVENTS | {"open", "error"}))
def test_names_of_the_servers_own_events_are_refused_as_types(name: str) -> None:
    assert refusal(type=name).reason == f"{name!r} is reserved"
    Event(type=name.upper())


@pytest.mark.parametrize("event_id", ["#1", "#", "earliest"])
def test_ids_with_a_meaning_of_their_own_are_refused(event_id: str) -> None:
    assert refusal(id=event_id).field == "id"
    with pytest.raises(InvalidEvent):
        check_id(event_id)


@pytest.mark.parametrize("event_id", ["1", "a#", "Earliest", "a b", "urn:uuid:0", "é", "{"])
def test_any_other_text_may_be_an_id(event_id: str) -> None:
    assert Event(id=event_id).id == event_id
    check_id(event_id)


@pytest.mark.parametrize("retry_ms", [-1, MAX_RETRY_MS + 1])
def test_a_retry_out_of_range_is_refused(retry_ms: int) -> None:
    assert refusal(retry_ms=retry_ms).field == "retry"


@pytest.mark.parametrize("retry_ms", [0, 1, MAX_RETRY_MS])
def test_a_retry_in_range_is_kept(retry_ms: int) -> None:
    assert Event(retry_ms=retry_ms).retry_ms == retry_ms


@pytest.mark.parametrize("latitude", [-90, -0.0, 6.5244, 90.0])
@pytest.mark.parametrize("longitude", [-180.0, 3.3792, 180])
def test_a_place_on_the_earth_is_kept(latitude: float, longitude: float) -> None:
    assert Event(location=(latitude, longitude)).location == (latitude, longitude)


@pytest.mark.parametrize(
    ("location", "field"),
    [
        ((90.001, 0), "location.latitude"),
        ((-91, 0), "location.latitude"),
        ((math.nan, 0), "location.latitude"),
        ((math.inf, 0), "location.latitude"),
        ((10**400, 0), "location.latitude"),
        ((0, 180.001), "location.longitude"),
        ((0, -181), "location.longitude"),
        ((0, math.nan), "location.longitude"),
        ((0, -math.inf), "location.longitude"),
    ],
)
def test_a_place_that_is_nowhere_is_refused(location: tuple[float, float], field: str) -> None:
    error = refusal(location=location)
    assert (error.field, error.too_large) == (field, False)
    assert error.reason.startswith("must be from -")


def test_data_with_a_lone_surrogate_is_refused() -> None:
    assert refusal(data="a\ud800").field == "data"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_other_data_is_kept_as_it_is(data: str) -> None:
    assert Event(data=data).data == data


@given(
    topics=st.lists(st.text(), max_size=3).map(tuple),
    data=st.text(),
    type=st.none() | st.text(),
    id=st.none() | st.text(),
    retry_ms=st.none() | st.integers(),
    location=st.none() | st.tuples(st.floats(), st.floats(-200, 200)),
)
def test_an_event_exists_or_names_the_field_that_is_wrong(**fields: Any) -> None:
    made: Event | InvalidEvent
    try:
        made = Event(**fields)
    except InvalidEvent as error:
        made = error
    if isinstance(made, InvalidEvent):
        assert made.field in ("topic", "data", "type", "id", "retry", "location.latitude", "location.longitude")
        assert str(made) == f"{made.field}: {made.reason}"
        return
    for text in (*made.topics, made.type or "", made.id or ""):
        assert is_safe(text)
        text.encode()
    made.data.encode()


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Event().data = "other"  # type: ignore[misc]
