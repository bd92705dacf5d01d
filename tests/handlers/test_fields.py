"""Fields of queries and forms, read strictly: nothing is replaced, trimmed or guessed."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.answers import Refused
from handlers.fields import MAX_FIELDS, decoded, parse_form, parse_number, parse_query, parse_region, unescaped
from server.region import Region

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=8))
def test_what_was_encoded_is_read_back_unaltered(pairs: list[tuple[str, str]]) -> None:
    body = urlencode(pairs).encode()
    assert parse_form(body) == [(name, value.encode()) for name, value in pairs]
    assert parse_query(body.decode()) == parse_form(body)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (b"", []),
        (b"&&", []),
        (b"a", [("a", b"")]),
        (b"a=", [("a", b"")]),
        (b"=b", [("", b"b")]),
        (b"a=b=c", [("a", b"b=c")]),
        (b"a=1&a=2", [("a", b"1"), ("a", b"2")]),
        (b"a=1;b=2", [("a", b"1;b=2")]),
        (b"a=+%2B+", [("a", b" + ")]),
        (b"a=%", [("a", b"%")]),
        (b"a=%4", [("a", b"%4")]),
        (b"a=%zz", [("a", b"%zz")]),
        (b"a=%ff", [("a", b"\xff")]),
        (b"a=\xff", [("a", b"\xff")]),
        (b"%61+b=c", [("a b", b"c")]),
        (b" a = b ", [(" a ", b" b ")]),
        (b"a=%0a%00", [("a", b"\n\0")]),
    ],
)
def test_a_form_is_taken_apart_as_the_standard_has_it(text: bytes, fields: list[tuple[str, bytes]]) -> None:
    assert parse_form(text) == fields


def test_a_name_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(Refused, match="must be UTF-8"):
        parse_form(b"%ff=1")


def test_the_number_of_fields_is_bounded() -> None:
    assert len(parse_form(b"&".join([b"a"] * MAX_FIELDS))) == MAX_FIELDS
    with pytest.raises(Refused) as caught:
        parse_form(b"&".join([b"a"] * (MAX_FIELDS + 1)))
    assert caught.value.status == 413


def test_a_query_is_the_bytes_that_came() -> None:
    assert parse_query("a=\xe9") == [("a", b"\xe9")]
    assert parse_query("") == []


def test_text_that_is_not_utf_8_is_refused_with_its_fields_name() -> None:
    assert decoded("data", "é".encode()) == "é"
    with pytest.raises(Refused) as caught:
        decoded("data", b"\xe9")
    assert (caught.value.field, caught.value.status) == ("data", 400)


@given(st.binary(max_size=40))
def test_any_bytes_are_unescaped(value: bytes) -> None:
    assert len(unescaped(value)) <= len(value)


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_refused(body: bytes) -> None:
    try:
        fields = parse_form(body)
    except Refused:
        return
    assert all(isinstance(name, str) and isinstance(value, bytes) for name, value in fields)


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0.0), ("-6.5244", -6.5244), ("+1", 1.0), ("1.", 1.0), (".5", 0.5), ("1e-7", 1e-7)]
)
def test_a_number_is_written_as_javascript_or_anybody_else_writes_it(text: str, value: float) -> None:
    assert parse_number("x", text) == value


@pytest.mark.parametrize(
    "text",
    ["", " ", " 1", "1 ", "1\n", "nan", "inf", "-Infinity", "1_0", "0x1", "1,5", "--1", "1e", ".", "٣", "1" * 99],
)
def test_anything_else_is_no_number(text: str) -> None:
    with pytest.raises(Refused, match="must be a number") as caught:
        parse_number("radius", text)
    assert (caught.value.field, caught.value.status) == ("radius", 400)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e18, max_value=1e18))
def test_every_number_that_python_writes_is_read(value: float) -> None:
    assert parse_number("x", repr(value)) == value


def test_a_region_is_three_parameters_of_which_the_radius_may_be_left_out() -> None:
    assert parse_region({"topic": "a"}) is None
    assert parse_region({"lat": "6.5244", "lon": "3.3792"}) == Region(6.5244, 3.3792, 50)
    assert parse_region({"lat": "-90", "lon": "180.0", "radius": "20038"}) == Region(-90, 180, 20_038)
    assert parse_region({"lat": "6.50", "lon": "3", "radius": "1e1"}) == Region(6.5, 3, 10)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"lat": "1"}, "lon"),
        ({"lon": "1"}, "lat"),
        ({"radius": "1"}, "lat"),
        ({"lat": "1", "radius": "1"}, "lon"),
        ({"lat": "", "lon": "1"}, "lat"),
        ({"lat": "90.001", "lon": "1"}, "lat"),
        ({"lat": "1e999", "lon": "1"}, "lat"),
        ({"lat": "1", "lon": "-180.1"}, "lon"),
        ({"lat": "1", "lon": "x"}, "lon"),
        ({"lat": "1", "lon": "1", "radius": "0"}, "radius"),
        ({"lat": "1", "lon": "1", "radius": "1e-999"}, "radius"),
        ({"lat": "1", "lon": "1", "radius": "-5"}, "radius"),
        ({"lat": "1", "lon": "1", "radius": "20038.01"}, "radius"),
        ({"lat": "1", "lon": "1", "radius": "50km"}, "radius"),
    ],
)
def test_what_is_wrong_with_a_region_is_named(parameters: dict[str, str], field: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_region(parameters)
    assert (caught.value.field, caught.value.status) == (field, 400)
    assert caught.value.reason
