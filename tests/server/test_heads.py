"""Request heads at the door, and whole responses as bytes."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

import server.heads
from server.exchange import Response
from server.heads import Head, http_date, parse_head, response_bytes


def head_of(first: str = "GET /a?b=c HTTP/1.1", *fields: str, host: str | None = "h") -> Head | None:
    lines = [first, *([f"Host: {host}"] if host is not None else []), *fields]
    return parse_head(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))


def parsed(first: str = "GET /a?b=c HTTP/1.1", *fields: str, host: str | None = "h") -> Head:
    found = head_of(first, *fields, host=host)
    assert found is not None
    return found


def test_a_head_is_taken_apart() -> None:
    head = parsed("POST /a/b?c=d?e HTTP/1.1", "X-One: 1", "Content-Length: 12")
    assert (head.method, head.path, head.query) == ("POST", "/a/b", "c=d?e")
    assert (head.content_length, head.keep_alive, head.http_1_0, head.unusual) == (12, True, False, False)
    assert head.headers == {b"host": b"h", b"x-one": b"1", b"content-length": b"12"}


def test_the_path_and_query_stay_as_they_came() -> None:
    head = parsed("GET /a%2Fb/%zz?x=%41&y=+;&& HTTP/1.1")
    assert (head.path, head.query) == ("/a%2Fb/%zz", "x=%41&y=+;&&")


def test_names_are_lower_case_and_values_without_the_space_around_them() -> None:
    assert parsed("GET / HTTP/1.1", "X-ODD: \t a b \t ").headers[b"x-odd"] == b"a b"


def test_a_header_that_came_twice_is_joined_in_order() -> None:
    head = parsed("GET / HTTP/1.1", "Authorization: Bearer a", "authorization: Bearer b")
    assert head.headers[b"authorization"] == b"Bearer a, Bearer b"
    assert not head.unusual


@pytest.mark.parametrize("length", ["3", "0"])
@pytest.mark.parametrize(
    ("version", "fields", "keep_alive"),
    [
        ("1.1", [], True),
        ("1.1", ["Connection: close"], False),
        ("1.1", ["Connection: x, CLOSE"], False),
        ("1.0", [], False),
        ("1.0", ["Connection: keep-alive"], True),
    ],
)
def test_a_connection_is_kept_as_version_and_client_have_it(
    version: str, fields: list[str], keep_alive: bool, length: str
) -> None:
    assert parsed(f"POST / HTTP/{version}", f"Content-Length: {length}", *fields).keep_alive is keep_alive


@pytest.mark.parametrize(
    "field",
    ["Transfer-Encoding: chunked", "Upgrade: h2c", "Expect: 100-continue", "Content-Encoding: gzip", "Trailer: x"],
)
def test_what_the_door_does_not_do_is_unusual(field: str) -> None:
    head = head_of("POST / HTTP/1.1", field)
    assert head is None or head.unusual


def test_two_hosts_or_none_are_unusual() -> None:
    assert parsed("GET / HTTP/1.1", "Host: other").unusual
    assert parsed("GET / HTTP/1.1", host=None).unusual
    assert not parsed("GET / HTTP/1.0", host=None).unusual


@pytest.mark.parametrize(
    "first",
    [
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / HTTP/1.2",
        "GET /",
        "GET http://h/ HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "CONNECT h:80 HTTP/1.1",
        "GET  / HTTP/1.1 x",
        "get / HTTP/1.1",
        "\x16\x03\x01",
        "PRI * HTTP/2.0",
        "",
    ],
)
def test_anything_else_than_a_path_and_http_1_is_not_for_the_door(first: str) -> None:
    assert head_of(first) is None


@pytest.mark.parametrize("field", ["X: a\0b", "X : a", "X\x01: a", ": a", "X: a\rb", "novalue"])
def test_a_malformed_field_is_not_for_the_door(field: str) -> None:
    assert head_of("GET / HTTP/1.1", field) is None


@pytest.mark.parametrize("length", ["-1", "+1", "1 1", "1, 1", "0x1", "", "1000000000", "99999999999999999999"])
def test_a_length_that_is_no_small_number_is_not_for_the_door(length: str) -> None:
    assert head_of("POST / HTTP/1.1", f"Content-Length: {length}") is None


def test_two_lengths_are_not_for_the_door() -> None:
    assert head_of("POST / HTTP/1.1", "Content-Length: 1", "Content-Length: 1") is None


@pytest.mark.parametrize("data", [b"\r\n\r\n", b"\r\n\r\n\r\n", b"\r\n" * 100])
def test_nothing_but_line_ends_is_not_for_the_door(data: bytes) -> None:
    assert parse_head(data) is None


PIECES = st.sampled_from(
    [b"GET", b"POST", b" ", b"/", b"a", b"?", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\n", b"\r", b":", b"Host: h", b"\0",
     b"Content-Length: 1", b"Transfer-Encoding: chunked", b"\xff", b"*", b"//", b","]
)  # fmt: skip


@given(st.lists(PIECES, max_size=15).map(lambda pieces: b"".join(pieces) + b"\r\n\r\n") | st.binary(max_size=60))
def test_any_bytes_are_a_head_or_not_and_nothing_else(data: bytes) -> None:
    head = parse_head(data)
    assert head is None or (head.path.startswith("/") and head.method)


def test_a_request_is_what_handlers_take() -> None:
    request = parsed("POST /a?b HTTP/1.0", "X: 1").request("192.0.2.1", b"body")
    assert (request.method, request.path, request.query, request.remote) == ("POST", "/a", "b", "192.0.2.1")
    assert (request.body, request.http_1_0, request.header(b"x")) == (b"body", True, "1")


# --- responses


def test_a_response_is_a_status_headers_and_a_body() -> None:
    response = Response(404, b"{}", headers=[("Vary", "Origin")])
    *lines, _, body = response_bytes(response, close=False, http_1_0=False).split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 404 Not Found"
    assert body == b"{}"
    fields = dict(line.split(b": ", 1) for line in lines[1:])
    assert fields.pop(b"Date")
    assert fields == {b"Content-Type": b"application/json", b"Content-Length": b"2", b"Vary": b"Origin"}


def test_no_content_has_neither_a_type_nor_a_length() -> None:
    data = response_bytes(Response(204), close=False, http_1_0=False)
    assert data.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert data.endswith(b"\r\n\r\n")
    assert b"Content-" not in data


@pytest.mark.parametrize(
    ("close", "http_1_0", "connection"),
    [(True, False, b"close"), (True, True, b"close"), (False, True, b"keep-alive"), (False, False, None)],
)
def test_the_client_is_told_what_becomes_of_the_connection(
    close: bool, http_1_0: bool, connection: bytes | None
) -> None:
    lines = response_bytes(Response(200), close=close, http_1_0=http_1_0).split(b"\r\n")
    found = [line.split(b": ")[1] for line in lines if line.startswith(b"Connection: ")]
    assert found == ([] if connection is None else [connection])


def test_the_date_is_the_present_in_the_form_of_http(monkeypatch: pytest.MonkeyPatch) -> None:
    assert abs(parsedate_to_datetime(http_date()).timestamp() - time.time()) < 3
    monkeypatch.setattr(server.heads.time, "time", lambda: 784111777.9)
    assert http_date() == "Sun, 06 Nov 1994 08:49:37 GMT"
    monkeypatch.setattr(server.heads.time, "time", lambda: 784111778.0)
    assert http_date() == "Sun, 06 Nov 1994 08:49:38 GMT"
