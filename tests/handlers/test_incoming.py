"""Tornado's requests as values."""

from __future__ import annotations

from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from handlers.incoming import request_of


def incoming(
    path: str = "/a%2Fb?c=%41", version: str = "HTTP/1.1", headers: HTTPHeaders | None = None
) -> HTTPServerRequest:
    start = RequestStartLine("GET", path, version)
    asked = HTTPServerRequest(start_line=start, headers=headers or HTTPHeaders({"Host": "h"}))
    asked.remote_ip = "192.0.2.1"
    return asked


def test_path_and_query_stay_as_they_came() -> None:
    found = request_of(incoming(), b"body")
    assert (found.method, found.path, found.query, found.remote) == ("GET", "/a%2Fb", "c=%41", "192.0.2.1")
    assert (found.body, found.http_1_0) == (b"body", False)


def test_headers_are_lower_case_bytes_and_those_that_came_twice_are_joined() -> None:
    headers = HTTPHeaders({"Host": "h"})
    for value in ("Bearer a", "Bearer b"):
        headers.add("Authorization", value)
    headers.add("X-Odd", "caf\xe9")
    found = request_of(incoming(headers=headers)).headers
    assert found == {b"host": b"h", b"authorization": b"Bearer a, Bearer b", b"x-odd": b"caf\xe9"}


def test_a_unix_socket_has_no_address() -> None:
    asked = incoming()
    for nothing in ("0.0.0.0", None):
        asked.remote_ip = nothing  # type: ignore[assignment]
        assert request_of(asked).remote == ""


def test_the_old_version_is_noticed() -> None:
    assert request_of(incoming(version="HTTP/1.0")).http_1_0
