"""Origins: an exact list, and nothing reflected."""

from __future__ import annotations

import pytest

from handlers.answers import Refused
from handlers.cors import Origins
from tests.handlers.lodge import request

ORIGINS = Origins(["https://app.example", "http://127.0.0.1:3000"])
VARY = ("Vary", "Origin, Authorization, Cookie")


@pytest.mark.parametrize("origin", ["https://app.example", "http://127.0.0.1:3000"])
def test_a_listed_origin_is_named(origin: str) -> None:
    asked = request("/", origin=origin)
    assert ORIGINS.check(asked) == origin
    headers = dict(ORIGINS.headers(asked))
    assert headers["Access-Control-Allow-Origin"] == origin
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert "Last-Event-ID" in headers["Access-Control-Expose-Headers"]
    assert headers["Vary"] == VARY[1]


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.evil", "https://evil.example", "http://app.example", "https://app.example:443",
        "https://app.example/", "HTTPS://app.example", "https://sub.app.example", "null", "", "*", "https://h.evil",
    ],
)  # fmt: skip
def test_any_other_origin_is_refused_and_not_named(origin: str) -> None:
    asked = request("/", origin=origin)
    with pytest.raises(Refused) as caught:
        ORIGINS.check(asked)
    assert (caught.value.status, caught.value.field) == (403, "Origin")
    assert ORIGINS.headers(asked) == [VARY]


def test_who_brings_no_origin_is_no_page() -> None:
    assert ORIGINS.check(request("/")) is None
    assert ORIGINS.headers(request("/")) == [VARY]


@pytest.mark.parametrize("origin", ["http://h", "https://h"])
def test_the_servers_own_origin_needs_no_list(origin: str) -> None:
    asked = request("/", origin=origin)
    assert ORIGINS.check(asked) is None
    assert ORIGINS.headers(asked) == [VARY]


def test_without_a_host_there_is_no_own_origin() -> None:
    for origin in ("http://", "https://"):
        with pytest.raises(Refused):
            ORIGINS.check(request("/", origin=origin, host=""))


def test_two_origins_in_one_request_are_none_that_is_listed() -> None:
    with pytest.raises(Refused):
        ORIGINS.check(request("/", origin="https://app.example, https://app.example"))
