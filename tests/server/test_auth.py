"""Authentication: where a token may stand in a request, and what is remembered of those seen before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from server.auth import ANONYMOUS, DEVELOPMENT, Authenticator, Principal
from server.exchange import Request
from server.rights import EVERYTHING, NOTHING
from tests.server.forging import (
    HEADER,
    NOW,
    assert_bad_token,
    authenticator,
    bearing,
    forged,
    outcome,
    refusal,
    request,
    token,
)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR", "Bearer  "])
def test_the_scheme_is_case_insensitive(scheme: str) -> None:
    assert authenticator().authenticate(request(authorization=f"{scheme} {token()}")).authenticated


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "Bearer a.b.c, Bearer a.b.c",
        "Bearer a b",
        "Token a.b.c",
        "a.b.c",
        "Bearer a.b.c\x00",
        "Bearer é",
        "Bearer=a.b.c",
        "Bearer " + "a" * 8193,
    ],
)
def test_several_or_malformed_authorization_headers_are_a_bad_request(header: str) -> None:
    error = refusal(authenticator(), request(authorization=header))
    assert (error.ending.status, error.challenge) == (400, 'Bearer error="invalid_request"')
    assert "a.b.c" not in error.reason


def test_the_header_counts_before_the_cookie_and_the_cookie_before_the_query() -> None:
    def subject(header: str | None, cookie: str | None, query: str | None) -> str:
        tokens = [None if name is None else token({"sub": name}) for name in (header, cookie, query)]
        headers = {"authorization": f"Bearer {tokens[0]}"} if tokens[0] else {}
        headers |= {"cookie": f"a=b; mercureAuthorization={tokens[1]}; c=d"} if tokens[1] else {}
        found = authenticator().authenticate(
            request(f"topic=x&authorization={tokens[2]}" if tokens[2] else "", **headers)
        )
        return found.subject

    assert subject("header", "cookie", "query") == "header"
    assert subject(None, "cookie", "query") == "cookie"
    assert subject(None, None, "query") == "query"


def test_a_bad_token_in_the_first_place_is_not_made_good_by_the_next() -> None:
    asked = request(f"authorization={token()}", cookie="mercureAuthorization=bad")
    assert refusal(authenticator(), asked).ending.status == 401


@pytest.mark.parametrize(
    "cookie", ["", "mercureAuthorization=", 'mercureAuthorization=""', "xmercureAuthorization=a", "other=1"]
)
def test_an_absent_or_emptied_cookie_is_no_token(cookie: str) -> None:
    assert authenticator().authenticate(request(cookie=cookie)) is ANONYMOUS


def test_a_quoted_cookie_is_read_without_its_quotes() -> None:
    assert authenticator().authenticate(request(cookie=f'mercureAuthorization="{token()}"')).authenticated


def test_the_first_of_two_cookies_counts() -> None:
    cookie = f"mercureAuthorization={token({'sub': 'first'})}; mercureAuthorization={token({'sub': 'second'})}"
    assert authenticator().authenticate(request(cookie=cookie)).subject == "first"


def test_the_name_of_the_query_parameter_is_compared_after_decoding() -> None:
    assert authenticator().authenticate(request(f"%61uthorization={token()}")).authenticated
    assert authenticator().authenticate(request(f"Authorization={token()}")) is ANONYMOUS
    assert authenticator().authenticate(request(f"xauthorization={token()}")) is ANONYMOUS
    assert authenticator().authenticate(request("authorization=")) is ANONYMOUS


def test_a_query_parameter_that_comes_twice_is_a_bad_request() -> None:
    error = refusal(authenticator(), request(f"authorization={token()}&authorization={token()}"))
    assert (error.ending.status, error.field) == (400, "authorization")


def test_the_query_parameter_can_be_switched_off() -> None:
    assert authenticator(query_token=False).authenticate(request(f"authorization={token()}")) is ANONYMOUS


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"origin": "https://app.example"}, True),
        ({"referer": "https://app.example/page?x=1"}, True),
        ({"referer": "HTTPS://App.Example/page"}, True),
        ({}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "https://evil.example", "referer": "https://app.example/"}, False),
        ({"origin": "", "referer": "https://app.example/"}, False),
        ({"referer": "https://app.example.evil.example/"}, False),
        ({"referer": "https://app.example@evil.example/"}, False),
        ({"referer": "https://evil.example/https://app.example"}, False),
        ({"referer": "http://app.example/"}, False),
        ({"referer": "https://[bad"}, False),
        ({"origin": "https://app.example:8443"}, False),
    ],
)
def test_a_cookie_with_a_post_needs_an_allowed_origin(headers: dict[str, str], allowed: bool) -> None:
    subject = authenticator(allowed_origins=["https://app.example"])
    asked = request(method="POST", cookie=f"mercureAuthorization={token()}", **headers)
    if allowed:
        assert subject.authenticate(asked).authenticated
    else:
        assert refusal(subject, asked).ending.status == 403


def test_neither_a_get_with_a_cookie_nor_a_post_with_a_header_needs_an_origin() -> None:
    assert authenticator().authenticate(request(cookie=f"mercureAuthorization={token()}")).authenticated
    assert authenticator().authenticate(request(method="POST", authorization=f"Bearer {token()}")).authenticated


def test_without_a_token_nobody_is_authenticated_and_nothing_is_granted() -> None:
    who = authenticator().authenticate(request())
    assert who is ANONYMOUS
    assert not who.authenticated
    assert not who.operate
    assert who.rights("main") == NOTHING


@pytest.mark.parametrize(
    ("remote", "who"), [("127.0.0.1", DEVELOPMENT), ("::1", DEVELOPMENT), ("", DEVELOPMENT), ("192.0.2.1", ANONYMOUS)]
)
def test_without_a_key_everybody_on_loopback_may_do_everything(remote: str, who: Principal) -> None:
    subject = authenticator(jwt_secret=None)
    assert subject.authenticate(request(remote=remote)) is who
    assert subject.authenticate(request(remote=remote, authorization="Bearer nonsense")) is who
    assert DEVELOPMENT.operate
    assert DEVELOPMENT.rights("any") == EVERYTHING


# Memory of tokens


def counted(subject: Authenticator, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    calls: list[object] = []
    find = subject.keys.find
    monkeypatch.setattr(subject.keys, "find", lambda *wanted: (calls.append(wanted), find(*wanted))[1])
    return lambda: len(calls)


def test_a_token_is_verified_once_good_or_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = authenticator()
    count = counted(subject, monkeypatch)
    first = subject.authenticate(bearing(token()))
    for _ in range(50):
        assert subject.authenticate(bearing(token())) is first
    assert count() == 1
    for _ in range(50):
        assert_bad_token(subject, token(key="x" * 40))
    assert count() == 2


def test_a_remembered_token_still_expires() -> None:
    now = [NOW]
    subject = authenticator(clock=lambda: now[0])
    text = forged(HEADER, {"exp": NOW + 10})
    assert subject.authenticate(bearing(text)).authenticated
    now[0] = NOW + 9.9
    assert subject.authenticate(bearing(text)).authenticated
    now[0] = NOW + 10
    assert_bad_token(subject, text)
    now[0] = NOW + 5  # the clock was wrong and is set back: the verdict of the wrong clock must not stay
    assert subject.authenticate(bearing(text)).authenticated


def test_a_token_that_came_too_early_is_accepted_in_time() -> None:
    now = [NOW]
    subject = authenticator(clock=lambda: now[0])
    text = forged(HEADER, {"nbf": NOW + 3})
    assert_bad_token(subject, text)
    now[0] = NOW + 3
    assert subject.authenticate(bearing(text)).authenticated


def test_both_memories_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.auth.MAX_ACCEPTED", 10)
    monkeypatch.setattr("server.auth.MAX_REFUSED", 5)
    subject = authenticator()
    for number in range(40):
        subject.authenticate(bearing(forged(HEADER, {"sub": str(number)})))
        assert_bad_token(subject, forged(HEADER, {"sub": str(number)}, secret=b"x"))
    assert len(subject._accepted) == 10
    assert len(subject._refused) == 5


def test_neither_errors_nor_log_lines_hold_anything_of_the_token() -> None:
    with structlog.testing.capture_logs() as lines:
        subject = authenticator()
        texts = [
            forged(HEADER, {"CANARY": 1, "exp": "CANARY"}),
            forged({"alg": "CANARY"}),
            forged({"alg": "HS256", "kid": "CANARY/"}),
            "CANARY.x.y",
        ]
        for text in texts:
            error = refusal(subject, bearing(text))
            assert "CANARY" not in f"{error!r} {error.reason} {error.field} {error.challenge}"
        refusal(subject, request(authorization="Basic CANARY"))
        refusal(subject, request("authorization=CANARY&authorization=CANARY"))
    assert lines
    written = repr(lines)
    assert "CANARY" not in written
    assert not any(part in written for text in texts for part in text.split(".") if len(part) > 8)


def test_a_flood_of_bad_tokens_is_logged_once_for_each_kind() -> None:
    subject = authenticator()
    with structlog.testing.capture_logs() as lines:
        for number in range(100):
            assert_bad_token(subject, forged(HEADER, {"sub": str(number)}, secret=b"x"))
            assert_bad_token(subject, f"{number}.a.b")
    assert len(lines) == 2
    assert subject.refusals == {"signature": 100, "malformed": 100}


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60))
def test_any_presentation_is_judged_or_refused_and_nothing_else(header: str, cookie: str, query: str) -> None:
    subject = authenticator(allowed_origins=["https://app.example"])
    for headers in ({b"authorization": header.encode()}, {b"cookie": f"mercureAuthorization={cookie}".encode()}, {}):
        for method in ("GET", "POST"):
            asked = Request(method, "/", f"authorization={query}", headers, "192.0.2.1")
            assert outcome(subject, asked) in (ANONYMOUS, 400, 401, 403)
