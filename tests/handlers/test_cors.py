"""Origins: an exact list, and nothing reflected; and the names that a server without a key answers to."""

from __future__ import annotations

import pytest

from handlers.answers import Refused
from handlers.cors import Origins
from tests.handlers.lodge import request

ORIGINS = Origins(["https://app.example", "http://127.0.0.1:3000"])
OPEN = Origins([], development=True)
VARY = ("Vary", "Origin, Authorization, Cookie")


@pytest.mark.parametrize("origin", ["https://app.example", "http://127.0.0.1:3000"])
def test_a_listed_origin_is_named(origin: str) -> None:
    asked = request("/", origin=origin)
    assert ORIGINS.check(asked) == origin
    headers = dict(ORIGINS.headers(asked))
    assert headers["Access-Control-Allow-Origin"] == origin
    assert headers["Access-Control-Allow-Credentials"] == "true"
    exposed = headers["Access-Control-Expose-Headers"].split(", ")
    assert {"Last-Event-ID", "Location", "Retry-After", "X-Cache", "Age"} <= set(exposed)
    assert headers["Vary"] == VARY[1]


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.evil", "https://evil.example", "http://app.example", "https://app.example:443",
        "https://app.example/", "HTTPS://app.example", "https://sub.app.example", "null", "", "*", "https://localhost.evil",
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


@pytest.mark.parametrize("origin", ["http://localhost", "https://localhost"])
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


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin", "none"])
def test_a_page_of_another_site_shows_its_origin(site: str) -> None:
    asked = request("/", **{"Sec-Fetch-Site": site})
    if site != "cross-site":
        assert ORIGINS.check(asked) is None
        return
    with pytest.raises(Refused) as caught:
        ORIGINS.check(asked)
    assert (caught.value.status, caught.value.field) == (403, "Origin")
    listed = request("/", origin="https://app.example", **{"Sec-Fetch-Site": site})
    assert ORIGINS.check(listed) == "https://app.example"


# --- without a key


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8888", "LocalHost:1", "127.0.0.1", "127.0.0.1:8888", "127.8.7.6:80", "[::1]", "[::1]:8888",
     "app.localhost", "a.b.localhost:3000", "localhost:"],
)  # fmt: skip
def test_without_a_key_names_of_this_machine_are_answered_to(host: str) -> None:
    assert OPEN.check(request("/", host=host)) is None
    assert OPEN.check(request("/", host=host, origin=f"http://{host}")) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8888", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost",
     "192.0.2.1", "0.0.0.0", "[::]", "[2001:db8::1]", "2130706433", "127.1", "0x7f.0.0.1", "localhost.", "", ":8888",
     "localhost:8888:1", "evil.example@localhost", "localhost/", "localhost, evil.example", "localhost evil.example",
     "[::1", "::1", "\u0131ocalhost", "localhost:\u0661"],
)  # fmt: skip
def test_without_a_key_any_other_name_is_refused_by_name(host: str) -> None:
    for origin in ({}, {"origin": f"http://{host}"}):
        with pytest.raises(Refused) as caught:
            OPEN.check(request("/", host=host, **origin))
        assert (caught.value.status, caught.value.field) == (403, "Host")
        assert "localhost" in caught.value.reason


def test_without_a_key_a_client_that_names_nobody_is_no_browser() -> None:
    asked = request("/")
    del asked.headers[b"host"]
    assert OPEN.check(asked) is None


def test_with_a_key_any_name_will_do() -> None:
    assert ORIGINS.check(request("/", host="events.example")) is None
    ORIGINS.check_host(request("/", host="events.example"))
