"""The Mercure form, and the namespace that belongs to the server."""

from __future__ import annotations

import contextlib
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.answers import Refused, refusal_response
from handlers.mercure import check_main, check_reserved, make_event, parse_publish
from server.event import MAX_TOPICS, Event
from tests.handlers.lodge import request


def event_of(*pairs: tuple[str, str]) -> Event:
    return make_event(parse_publish(urlencode(pairs).encode()))


def refusal(*pairs: tuple[str, str]) -> Refused:
    with pytest.raises(Refused) as caught:
        event_of(*pairs)
    return caught.value


def test_every_field_finds_its_place() -> None:
    event = event_of(
        ("topic", "a"), ("topic", "b"), ("data", "x\r\ny "), ("type", "t"), ("id", "i"), ("retry", "50"),
        ("private", "on"),
    )  # fmt: skip
    assert event == Event(("a", "b"), "x\r\ny ", "t", "i", 50, True)


def test_empty_fields_are_as_if_not_given_and_unknown_ones_are_ignored() -> None:
    event = event_of(("topic", "a"), ("type", ""), ("id", ""), ("retry", ""), ("data", ""), ("x", "y"), ("Topic", "z"))
    assert event == Event(("a",))


@pytest.mark.parametrize("value", ["", "on", "false", "0"])
def test_it_is_the_presence_of_private_that_counts(value: str) -> None:
    assert event_of(("topic", "a"), ("private", value)).private


def test_of_fields_that_come_once_the_first_counts() -> None:
    assert event_of(("topic", "a"), ("data", "1"), ("data", "2")).data == "1"


@pytest.mark.parametrize(
    ("pairs", "status", "field"),
    [
        ([], 400, "topic"),
        ([("data", "x")], 400, "topic"),
        ([("topic", "")], 400, "topic"),
        ([("topic", "a"), ("topic", "")], 400, "topic"),
        ([("topic", "*")], 400, "topic"),
        ([("topic", "a\nb")], 400, "topic"),
        ([("topic", "a" * 4097)], 413, "topic"),
        ([("topic", "a")] * (MAX_TOPICS + 1), 413, "topic"),
        ([("topic", "a"), ("retry", "-1")], 400, "retry"),
        ([("topic", "a"), ("retry", "1.5")], 400, "retry"),
        ([("topic", "a"), ("retry", " 1")], 400, "retry"),
        ([("topic", "a"), ("retry", "٣")], 400, "retry"),
        ([("topic", "a"), ("retry", "12345678")], 400, "retry"),
        ([("topic", "a"), ("type", "mercure")], 400, "type"),
        ([("topic", "a"), ("type", "gap")], 400, "type"),
        ([("topic", "a"), ("id", "#1")], 400, "id"),
        ([("topic", "a"), ("id", "i" * 257)], 413, "id"),
    ],
)
def test_what_is_wrong_is_named(pairs: list[tuple[str, str]], status: int, field: str) -> None:
    error = refusal(*pairs)
    assert (error.status, error.field) == (status, field)


@pytest.mark.parametrize("field", ["topic", "data", "type", "id"])
def test_what_is_not_utf_8_is_refused(field: str) -> None:
    with pytest.raises(Refused) as caught:
        make_event(parse_publish(b"topic=a&" + field.encode() + b"=%ff"))
    assert (caught.value.field, caught.value.reason) == (field, "must be UTF-8")


@pytest.mark.parametrize("retry", ["0", "0000001", "9999999"])
def test_a_retry_is_up_to_seven_digits(retry: str) -> None:
    assert event_of(("topic", "a"), ("retry", retry)).retry_ms == int(retry)


RESERVED = [
    "/.well-known/mercure", "/.well-known/mercure/", "/.well-known/mercure/subscriptions", "/.well-known/mercure?a=b",
    "https://example.com/.well-known/mercure", "http://other.example/.well-known/mercure/x#y",
    "//h/.well-known/mercure",
    "/.well-known/%6dercure", "/.well-known/%6Dercure/x", "/%2ewell-known/mercure", "/a/../.well-known/mercure",
    "/./.well-known/./mercure", "mercure", "mercure/x", "./mercure", "?a", "#a", "../.well-known/mercure",
    "/.well-known\\mercure", " /.well-known/mercure",
]  # fmt: skip
FREE = [
    "a", "https://example.com/books/1", "/.well-known/mercurex", "/.well-known/mercure.json", "/mercure",
    "https://example.com/mercure", "urn:uuid:1", "mercure:x", "x/mercure", "/.well-known/Mercure", "100%", "a%20b", "%",
    "/.well-known", "http://[bad/mercure", "https://example.com/?q=/.well-known/mercure", "/.well-known/mercure%2Fx",
]  # fmt: skip


@pytest.mark.parametrize("topic", RESERVED)
def test_topics_that_resolve_to_the_hubs_own_path_are_refused_on_main_whichever_way_they_come(topic: str) -> None:
    with pytest.raises(Refused, match="namespace"):
        check_reserved(topic)
    with pytest.raises(Refused, match="namespace"):
        check_main(Event(("a", topic)))


@pytest.mark.parametrize("topic", FREE)
def test_other_topics_are_free(topic: str) -> None:
    check_reserved(topic)
    check_main(Event((topic,)))


def test_the_reserved_type_is_refused_on_main_whichever_way_it_comes() -> None:
    with pytest.raises(Refused, match="reserved"):
        check_main(Event(("a",), type="mercure"))


@given(st.text(max_size=30) | st.text("/.%mercu6dwlknow-?#\\:", max_size=40))
def test_any_text_is_a_topic_or_refused(topic: str) -> None:
    with contextlib.suppress(Refused):  # nothing else may come out
        check_reserved(topic)


@given(st.binary(max_size=60) | st.text("topicdatayre&=%+f0*", max_size=60).map(str.encode))
def test_any_body_is_an_event_or_refused(body: bytes) -> None:
    try:
        found: Event | Refused = make_event(parse_publish(body))
    except Refused as refused:
        found = refused
    if isinstance(found, Refused):
        assert refusal_response(found, request("/"), stream=False).status in (400, 413)
    else:
        assert found.topics
