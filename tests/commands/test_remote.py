"""Addresses, and what is said of a refusal."""

from __future__ import annotations

import pytest

from server.commands.remote import InvalidAddress, Remote, exit_code, refusal, visible


@pytest.mark.parametrize(
    ("url", "remote", "path"),
    [
        ("http://127.0.0.1:8888", Remote(False, "127.0.0.1", 8888, ""), "/channels/a/events"),
        ("http://127.0.0.1:8888/", Remote(False, "127.0.0.1", 8888, ""), "/channels/a/events"),
        ("https://hub.example/sse/", Remote(True, "hub.example", None, "/sse"), "/sse/channels/a/events"),
        ("http://[::1]:80", Remote(False, "::1", 80, ""), "/channels/a/events"),
    ],
)
def test_an_address_is_scheme_host_port_and_path(url: str, remote: Remote, path: str) -> None:
    assert Remote.parse(url) == remote
    assert remote.events_path("a") == path


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8888",
        "ftp://a.example",
        "http://",
        "http://a:b",
        "http://a:99999",
        "http://[::1",
        "http://a.example/?authorization=x",
        "http://a.example/#x",
        "http://user:password@a.example",
        "http://a.example/a b",
        "http://a.example/\r\nX: y",
    ],
)
def test_anything_else_is_no_address(url: str) -> None:
    with pytest.raises(InvalidAddress):
        Remote.parse(url)


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (400, b'{"field": "retry", "reason": "must be digits"}', "400 Bad Request: retry: must be digits"),
        (503, b'{"reason": "the node is full"}', "503 Service Unavailable: the node is full"),
        (403, b"<html>", "403 Forbidden: the token does not grant this"),
        (404, b"", "404 Not Found"),
        (400, b"[1]", "400 Bad Request"),
        (400, b'{"reason": "a\\u001b[2Jb\\nc"}', "400 Bad Request: a\\x1b[2Jb\\nc"),
        (799, b"", "799"),
    ],
)
def test_a_refusal_is_one_line_that_a_terminal_survives(status: int, body: bytes, text: str) -> None:
    assert refusal(status, body) == text


def test_refusals_have_exit_codes_of_their_own() -> None:
    assert [exit_code(status) for status in (400, 401, 403, 404, 409, 413)] == [1, 3, 3, 4, 1, 1]


def test_text_that_a_terminal_would_obey_is_spelled_out() -> None:
    assert visible("a\x1b]0;x\x07\n\r\u2028\u202e\x9bé€") == "a\\x1b]0;x\\x07\\n\\r\\u2028\\u202e\\x9bé€"
