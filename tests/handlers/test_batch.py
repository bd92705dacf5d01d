"""Events in JSON: all or none, with the line and the field of what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.answers import Refused, refusal_response
from handlers.batch import MAX_ERRORS, NDJSON_TYPE, parse_events
from server.event import Event
from server.exchange import JSON_TYPE
from tests.handlers.lodge import facts, request

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def one(value: object) -> Event:
    """The event of a JSON body."""
    [event] = parse_events(JSON_TYPE, json.dumps(value).encode(), 10)
    return event


def lines(*texts: str, most: int = 10) -> list[Event]:
    return parse_events(NDJSON_TYPE, "\n".join(texts).encode(), most)


def refusal(body: bytes, media_type: str = JSON_TYPE) -> Refused:
    with pytest.raises(Refused) as caught:
        parse_events(media_type, body, 10)
    return caught.value


def test_every_field_finds_its_place() -> None:
    event = one(
        {"topics": ["a", "b"], "data": "x\ny", "type": "t", "id": "i", "retry": 5, "private": True,
         "location": {"latitude": 6.5244, "longitude": -180}}
    )  # fmt: skip
    assert event == Event(("a", "b"), "x\ny", "t", "i", 5, True, (6.5244, -180.0))
    assert one({"topic": "a"}) == Event(("a",))
    assert one({}) == Event()


@pytest.mark.parametrize("field", ["type", "id", "retry", "location"])
def test_null_is_as_if_not_given(field: str) -> None:
    assert one({"topic": "a", field: None}) == Event(("a",))


@given(VALUES)
def test_data_that_is_not_text_goes_out_as_json(value: Any) -> None:
    data = one({"data": value}).data
    assert (data if isinstance(value, str) else json.loads(data)) == value


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"topic": 1}, "topic"),
        ({"topic": ["a"]}, "topic"),
        ({"topic": None}, "topic"),
        ({"topics": "a"}, "topics"),
        ({"topics": ["a", 1]}, "topics"),
        ({"topics": None}, "topics"),
        ({"topic": "a", "topics": ["b"]}, "topics"),
        ({"topic": ""}, "topic"),
        ({"topic": "*"}, "topic"),
        ({"type": 1}, "type"),
        ({"type": ""}, "type"),
        ({"type": "hello"}, "type"),
        ({"id": 1}, "id"),
        ({"id": "a\nb"}, "id"),
        ({"retry": "5"}, "retry"),
        ({"retry": 1.0}, "retry"),
        ({"retry": True}, "retry"),
        ({"retry": -1}, "retry"),
        ({"private": 1}, "private"),
        ({"private": None}, "private"),
        ({"private": "true"}, "private"),
        ({"location": "here"}, "location"),
        ({"location": [1, 2]}, "location"),
        ({"location": {}}, "location.latitude"),
        ({"location": {"longitude": 1}}, "location.latitude"),
        ({"location": {"latitude": 1}}, "location.longitude"),
        ({"location": {"latitude": "1", "longitude": 1}}, "location.latitude"),
        ({"location": {"latitude": True, "longitude": 1}}, "location.latitude"),
        ({"location": {"latitude": 1, "longitude": None}}, "location.longitude"),
        ({"location": {"latitude": 90.5, "longitude": 1}}, "location.latitude"),
        ({"location": {"latitude": 10**300, "longitude": 1}}, "location.latitude"),
        ({"location": {"latitude": 1, "longitude": -181}}, "location.longitude"),
        ({"location": {"latitude": 1, "longitude": 1, "altitude": 1}}, "location.altitude"),
        ({"event": "x"}, "event"),
        ({"Data": "x"}, "Data"),
        ({"data": "\ud800"}, "data"),
        ({"data": {"a": "\ud800"}}, "data"),
        ([], ""),
        ("a", ""),
        (None, ""),
        (1, ""),
    ],
)
def test_what_is_wrong_is_named(value: object, field: str) -> None:
    error = refusal(json.dumps(value).encode())
    assert (error.status, error.field) == (400, field)
    assert error.reason


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"{}{}", b"{} x", b"{'a': 1}", b'{"a": NaN}', b'{"data": Infinity}', b'{"data": -Infinity}',
        b'{"location": {"latitude": NaN, "longitude": 0}}', b'{"location": {"latitude": 0, "longitude": -Infinity}}',
        b"\xff{}",
        b'{"data": "\xe9"}', b'{"data": "\x01"}', b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"data":' * 100_000,
        b'{"data": ' + b"9" * 10_000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused(body: bytes) -> None:
    error = refusal(body)
    assert error.status == 400
    assert "Traceback" not in error.reason


@pytest.mark.parametrize("name", ["\ud800", "x" * 10_000, "\0", "a\nb", "\U0001f680" * 100])
def test_whatever_an_unknown_field_is_called_there_is_an_answer(name: str) -> None:
    error = refusal(json.dumps({name: 1}).encode())
    answer = refusal_response(error, request("/"), stream=False)
    assert answer.status == 400
    assert len(answer.body) < 1000
    assert facts(answer)["code"] == "bad_request"


@pytest.mark.parametrize("number", ["1180591620717411303424", "1e22", "0.1", "-0.0", "123456789.123456789"])
def test_a_number_keeps_its_value(number: str) -> None:
    [event] = parse_events(JSON_TYPE, b'{"data": ' + number.encode() + b"}", 10)
    assert json.loads(event.data) == json.loads(number)


@pytest.mark.parametrize("data", ["1e999", "[-1e999]"])
def test_a_number_too_large_for_anybody_does_not_go_out_as_something_that_is_no_json(data: str) -> None:
    assert refusal(f'{{"data": {data}}}'.encode()).field == "data"


def test_a_place_too_far_for_any_number_is_refused() -> None:
    assert refusal(b'{"location": {"latitude": 1e999, "longitude": 0}}').field == "location.latitude"


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/json5"])
def test_any_other_media_type_is_refused(media_type: str) -> None:
    assert refusal(b"{}", media_type).field == "Content-Type"


# --- several events


def test_each_line_is_an_event_and_blank_lines_are_none() -> None:
    events = lines('{"data": "1"}', "", "  ", '{"data": "2"}\r', "", '{"data": "3"}', "")
    assert [event.data for event in events] == ["1", "2", "3"]


def test_one_bad_line_spoils_all_and_every_bad_line_is_told() -> None:
    with pytest.raises(Refused) as caught:
        lines('{"data": "1"}', '{"type": ""}', "", "{", '{"topic": "a", "x": 1}')
    error = caught.value
    assert (error.status, error.reason) == (400, "nothing was published")
    assert [(found["line"], found["field"]) for found in error.more] == [(2, "type"), (4, ""), (5, "x")]  # type: ignore[attr-defined]
    assert all(found["reason"] for found in error.more)  # type: ignore[attr-defined]


def test_not_more_errors_are_told_than_anybody_reads() -> None:
    with pytest.raises(Refused) as caught:
        lines(*["{"] * 500, most=1000)
    assert len(caught.value.more) == MAX_ERRORS  # type: ignore[arg-type]


def test_an_empty_batch_is_refused() -> None:
    for texts in ([], [""], ["", "  ", "\r"]):
        with pytest.raises(Refused, match="no event"):
            lines(*texts)


@pytest.mark.parametrize(("count", "blank", "fits"), [(10, 0, True), (10, 5, True), (11, 0, False), (1, 10_000, False)])
def test_the_number_of_events_is_bounded_and_so_is_that_of_lines(count: int, blank: int, fits: bool) -> None:
    texts = ['{"data": ""}'] * count + [""] * blank
    if fits:
        assert len(lines(*texts)) == count
    else:
        with pytest.raises(Refused) as caught:
            lines(*texts)
        assert caught.value.status == 413


def test_other_line_ends_than_lf_end_no_event() -> None:
    [event] = lines('{"data": "a\u2028b\x85c"}')
    assert event.data == "a\u2028b\x85c"


@given(st.binary(max_size=60) | st.text('{}[]",:\\u0d8ntrue1 \n', max_size=60).map(str.encode))
def test_any_bytes_are_events_or_refused(body: bytes) -> None:
    for media_type in (JSON_TYPE, NDJSON_TYPE):
        try:
            found: list[Event] | Refused = parse_events(media_type, body, 10)
        except Refused as refused:
            found = refused
        if isinstance(found, Refused):
            assert refusal_response(found, request("/"), stream=False).status in (400, 413)
