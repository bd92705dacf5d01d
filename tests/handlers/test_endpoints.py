"""Endpoints: how a request is read, what is refused, and with which field and reason."""

from __future__ import annotations

import contextlib
import datetime
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator

from handlers.answers import COMMON_HEADERS, Refused
from handlers.endpoints import (
    Body,
    Call,
    Endpoint,
    Page,
    Query,
    Reply,
    conflict,
    everybody,
    invalid,
    not_found,
    operators,
    signed_in,
)
from server.exchange import Request
from server.rights import ANONYMOUS, DEVELOPMENT, Principal
from tests.handlers.lodge import JSON, facts, request


class Part(Body):
    size: int = Field(1, ge=1, le=9)


class Thing(Body):
    name: str = Field(min_length=1, max_length=10)
    kind: Literal["round", "square"] = "round"
    parts: list[Part] = Field(default_factory=list)
    made: datetime.date | None = None
    weight: float = 0.0

    @field_validator("name")
    @classmethod
    def _no_dots(cls, value: str) -> str:
        if "." in value:
            raise ValueError("must not have dots")
        return value


class Find(Query):
    lat: float = Field(ge=-90, le=90)
    q: str = ""
    exact: bool = False


class Shown(BaseModel):
    day: datetime.date


async def nothing(_: Call) -> Reply:
    return Reply()


PATCH = Endpoint("PATCH", "/things/{id}", nothing, "Change.", body=Thing)
FIND = Endpoint("GET", "/things", nothing, "Find.", Find)
LIST = Endpoint("GET", "/things", nothing, "List.", Page)


def patch(body: bytes, **headers: str) -> Request:
    return request("/things/1", body, method="PATCH", **JSON | headers)


def read(endpoint: Endpoint, asked: Request, principal: Principal = ANONYMOUS) -> Call:
    return endpoint.read(asked, {"id": "1"}, principal)


def refused(endpoint: Endpoint, asked: Request, principal: Principal = ANONYMOUS) -> Refused:
    with pytest.raises(Refused) as caught:
        read(endpoint, asked, principal)
    return caught.value


# --- bodies


def test_a_body_is_what_the_endpoint_declares() -> None:
    call = read(PATCH, patch(b'{"name": " x ", "parts": [{"size": 2}], "made": "2026-02-07"}'))
    assert call.body == Thing(name="x", parts=[Part(size=2)], made=datetime.date(2026, 2, 7))
    assert (call.arguments, call.principal) == ({"id": "1"}, ANONYMOUS)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "name"),
        (b'{"name": ""}', "name"),
        (b'{"name": "  "}', "name"),
        (b'{"name": 5}', "name"),
        (b'{"name": null}', "name"),
        (b'{"name": "a.b"}', "name"),
        (b'{"name": "\\ud800"}', "name"),
        (b'{"name": "x", "kind": "flat"}', "kind"),
        (b'{"name": "x", "parts": [{"size": 1}, {"size": 10}]}', "parts.1.size"),
        (b'{"name": "x", "parts": {}}', "parts"),
        (b'{"name": "x", "weight": NaN}', "weight"),
        (b'{"name": "x", "weight": 1e400}', "weight"),
        (b'{"name": "x", "made": "tomorrow"}', "made"),
        (b'{"name": "x", "nmae": "y"}', "nmae"),
        (b'{"name": "x", "parts": [{"length": 1}]}', "parts.0.length"),
        (b"[]", ""),
        (b'"text"', ""),
        (b"null", ""),
        (b"5", ""),
    ],
)
def test_json_whose_fields_are_not_valid_is_a_422_that_names_the_field(body: bytes, field: str) -> None:
    error = refused(PATCH, patch(body))
    assert (error.status, error.code, error.field) == (422, "invalid", field)
    assert error.reason


@pytest.mark.parametrize("body", [b"", b"{", b"{'name': 'x'}", b"\xff", b'{"name": "\xc3"}', b"nothing", b"[" * 5000])
def test_what_is_no_json_is_a_400(body: bytes) -> None:
    error = refused(PATCH, patch(body))
    assert (error.status, error.code, error.field, error.reason) == (400, "bad_request", "", "the body must be JSON")


def test_all_that_is_wrong_is_told_and_the_first_of_it_first() -> None:
    error = refused(PATCH, patch(b'{"name": "", "kind": "flat"}'))
    assert error.field == "name"
    assert isinstance(error.more, list)
    assert [one["field"] for one in error.more] == ["name", "kind"]
    assert refused(PATCH, patch(b"{}")).more is None


def test_a_reason_of_ours_is_given_in_its_own_words() -> None:
    assert refused(PATCH, patch(b'{"name": "a.b"}')).reason == "must not have dots"


@pytest.mark.parametrize(
    ("media_type", "good"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        (" application/json ", True),
        ("", True),
        ("text/plain", False),
        ("application/x-www-form-urlencoded", False),
        ("application/merge-patch+json", False),
    ],
)
def test_a_body_is_declared_as_json_or_not_at_all(media_type: str, good: bool) -> None:
    asked = patch(b'{"name": "x"}', **{"Content-Type": media_type})
    if good:
        assert read(PATCH, asked).body.name == "x"
    else:
        error = refused(PATCH, asked)
        assert (error.status, error.code, error.field) == (415, "unsupported_type", "Content-Type")


@given(st.binary(max_size=60) | st.text('{}[]":,0123456789.eE+-nametru fl\\ud8', max_size=60).map(str.encode))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(Refused):  # nothing else may come out
        assert isinstance(read(PATCH, patch(body)).body, Thing)


# --- parameters


def test_parameters_are_what_the_endpoint_declares() -> None:
    query = read(FIND, request("/things?lat=6.50&q=%C3%A9+x&exact=true&utm=1")).query
    assert query == Find(lat=6.5, q="é x", exact=True)
    assert read(FIND, request("/things?lat=1&lat=no")).query.lat == 1  # the first counts


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "lat"),
        ("lat=", "lat"),
        ("lat=x", "lat"),
        ("lat=91", "lat"),
        ("lat=nan", "lat"),
        ("lat=inf", "lat"),
        ("lat=1&exact=perhaps", "exact"),
        ("lat=1&q=%ff", "q"),
        ("lat=1&%ff=1", ""),
    ],
)
def test_a_parameter_that_is_not_valid_is_a_400_that_names_it(query: str, field: str) -> None:
    error = refused(FIND, request(f"/things?{query}"))
    assert (error.status, error.code, error.field) == (400, "bad_request", field)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("limit=1.5", "limit"),
        ("offset=-1", "offset"),
        ("offset=1000001", "offset"),
    ],
)
def test_pages_have_a_range(query: str, field: str) -> None:
    error = refused(LIST, request(f"/things?{query}"))
    assert (error.status, error.field) == (400, field)
    assert read(LIST, request("/things?limit=500&offset=1000000")).query == Page(limit=500, offset=1_000_000)
    assert read(LIST, request("/things")).query == Page(limit=50, offset=0)


# --- who may


@pytest.mark.parametrize(
    ("access", "principal", "status"),
    [
        (everybody, ANONYMOUS, 0),
        (signed_in, ANONYMOUS, 401),
        (signed_in, Principal("shop"), 0),
        (signed_in, DEVELOPMENT, 0),
        (operators, ANONYMOUS, 401),
        (operators, Principal("shop"), 403),
        (operators, Principal("shop", operate=True), 0),
        (operators, DEVELOPMENT, 0),
    ],
)
def test_who_may_is_asked_before_anything_is_read(access: Any, principal: Principal, status: int) -> None:
    endpoint = Endpoint("PATCH", "/things/{id}", nothing, "Change.", body=Thing, access=access)
    error = refused(endpoint, patch(b"no json"), principal)
    assert error.status == (status or 400)
    assert (error.challenge is not None) == (status in (401, 403))


# --- answers


def test_a_reply_is_json_in_utf_8_that_nobody_keeps() -> None:
    response = Reply({"é": 1.5, "a": [None, True]}, 201, [("Location", "/things/1")]).response()
    assert (response.status, response.body) == (201, '{"é":1.5,"a":[null,true]}'.encode())
    assert response.headers == [*COMMON_HEADERS, ("Location", "/things/1")]


def test_a_model_is_written_as_it_declares() -> None:
    assert facts(Reply(Shown(day=datetime.date(2026, 2, 7))).response()) == {"day": "2026-02-07"}


def test_a_reply_of_nothing_is_a_204() -> None:
    response = Reply(headers=[("A", "b")]).response()
    assert (response.status, response.body, dict(response.headers)["A"]) == (204, b"", "b")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (not_found("id", "there is none"), 404, "not_found"),
        (conflict("id", "is taken"), 409, "conflict"),
        (invalid("id", "makes no sense"), 422, "invalid"),
    ],
)
def test_refusals_have_a_status_a_code_and_a_field(error: Refused, status: int, code: str) -> None:
    assert (error.status, error.code, error.field) == (status, code, "id")
    assert error.reason
