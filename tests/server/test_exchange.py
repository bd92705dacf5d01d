"""Requests and responses as values."""

from __future__ import annotations

from server.exchange import JSON_TYPE, Request, Response


def request(headers: dict[bytes, bytes]) -> Request:
    return Request("GET", "/", "", headers, "192.0.2.1")


def test_a_header_is_found_by_its_lower_case_name() -> None:
    assert request({b"accept": b"text/event-stream"}).header(b"accept") == "text/event-stream"
    assert request({}).header(b"accept") is None


def test_a_headers_bytes_become_the_characters_of_the_same_numbers() -> None:
    assert request({b"x": bytes(range(256))}).header(b"x") == "".join(map(chr, range(256)))


def test_an_empty_header_is_not_a_missing_one() -> None:
    assert request({b"last-event-id": b""}).header(b"last-event-id") == ""


def test_a_request_is_http_1_1_without_a_body_unless_said_otherwise() -> None:
    assert (request({}).body, request({}).http_1_0) == (b"", False)


def test_responses_are_json_and_share_no_headers() -> None:
    one, other = Response(200), Response(404)
    one.headers.append(("Vary", "Origin"))
    assert (one.content_type, one.body, other.headers) == (JSON_TYPE, b"", [])
