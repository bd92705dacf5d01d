"""Authentication: where tokens are found, which are refused, what they grant. Forged tokens are made by hand."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import jwt
import pytest
import structlog
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Settings
from server.auth import ANONYMOUS, DEVELOPMENT, Authenticator, AuthError, Principal
from server.exchange import Request
from server.rights import EVERYTHING, NOTHING, Rights
from server.selectors import parse_selector

SECRET = "a secret that is at least thirty-two bytes long"
NOW = 1_800_000_000.0
ALL = {"publish": ["*"], "subscribe": ["*"]}
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def authenticator(**settings: Any) -> Authenticator:
    clock = settings.pop("clock", lambda: NOW)
    return Authenticator(Settings(**{"jwt_secret": SECRET} | settings), clock)


def request(query: str = "", *, method: str = "GET", remote: str = "192.0.2.1", **headers: str) -> Request:
    named = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return Request(method, "/.well-known/mercure", query, named, remote)


def bearing(token: str) -> Request:
    return request(authorization=f"Bearer {token}")


def token(claims: dict[str, Any] | None = None, key: Any = SECRET, algorithm: str = "HS256", **headers: Any) -> str:
    return jwt.encode({"mercure": ALL} if claims is None else claims, key, algorithm, headers or None)


def segment(data: bytes | str | dict[str, Any]) -> str:
    raw = json.dumps(data) if isinstance(data, dict) else data
    return base64.urlsafe_b64encode(raw.encode() if isinstance(raw, str) else raw).rstrip(b"=").decode()


def forged(
    header: dict[str, Any] | str,
    claims: dict[str, Any] | str | None = None,
    secret: bytes = SECRET.encode(),
    digest: str = "sha256",
) -> str:
    """A token from raw parts, signed with HMAC whatever its header says."""
    text = f"{segment(header)}.{segment({'mercure': ALL} if claims is None else claims)}"
    return f"{text}.{segment(hmac.new(secret, text.encode(), digest).digest())}"


def refusal(subject: Authenticator, asked: Request) -> AuthError:
    with pytest.raises(AuthError) as caught:
        subject.authenticate(asked)
    return caught.value


def outcome(subject: Authenticator, asked: Request) -> Principal | int:
    """The principal, or the status of the refusal."""
    try:
        return subject.authenticate(asked)
    except AuthError as error:
        return error.ending.status


def assert_bad_token(subject: Authenticator, text: str) -> None:
    error = refusal(subject, bearing(text))
    # One form for every reason: the answer must not tell a forger how far it came.
    assert (error.ending.status, error.field, error.reason) == (401, "", "a valid token is needed")
    assert error.challenge == 'Bearer error="invalid_token"'
    assert error.__cause__ is None


# Where a token may stand


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


# Forged tokens (S20 to S24)

HEADER = {"alg": "HS256", "typ": "JWT"}
PEM = RSA_KEY.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
EC_PEM = EC_KEY.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
DER = RSA_KEY.public_key().public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo)
JWK = jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key())
UNSIGNED = f"{segment({'mercure': ALL})}."


def test_a_well_made_token_is_accepted_so_that_the_refusals_mean_something() -> None:
    assert authenticator().authenticate(bearing(forged(HEADER))).rights("main") == EVERYTHING


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "HS384", "RS256", "hs256", " HS256", "HS256\x00"])
def test_an_algorithm_other_than_the_keys_is_refused(name: str) -> None:
    header = {"alg": name}
    for text in (
        f"{segment(header)}.{UNSIGNED}",
        forged(header),
        forged(header, digest="sha384"),
        forged(header, secret=b""),
    ):
        if text.endswith("."):
            assert refusal(authenticator(), bearing(text)).ending.status == 401
        assert_bad_token(authenticator(), text)


@pytest.mark.parametrize(
    "header", [{}, {"alg": None}, {"alg": 1}, {"alg": ["HS256"]}, {"alg": {"HS256": 1}}, {"alg": True}]
)
def test_an_algorithm_that_is_no_text_is_refused(header: dict[str, Any]) -> None:
    assert_bad_token(authenticator(), forged(header))


@pytest.mark.parametrize(
    "secret",
    [
        PEM,
        PEM.strip(),
        PEM.replace(b"\n", b"\r\n"),
        DER,
        base64.b64encode(DER),
        JWK.encode(),
        json.dumps({"keys": [json.loads(JWK)]}).encode(),
        json.dumps(json.loads(JWK)).encode(),
    ],
)
def test_a_public_key_cannot_be_used_as_an_hmac_secret(secret: bytes) -> None:
    subject = authenticator(jwt_secret=None, jwt_public_key=PEM.decode(), jwt_algorithm="RS256")
    for name in ("HS256", "RS256"):
        assert_bad_token(subject, forged({"alg": name}, secret=secret))
    assert subject.authenticate(bearing(token(key=RSA_KEY, algorithm="RS256"))).authenticated


def test_the_public_elliptic_key_cannot_be_used_as_an_hmac_secret() -> None:
    subject = authenticator(jwt_secret=None, jwt_public_key=EC_PEM.decode(), jwt_algorithm="ES256")
    assert_bad_token(subject, forged(HEADER, secret=EC_PEM))
    assert subject.authenticate(bearing(token(key=EC_KEY, algorithm="ES256"))).authenticated


@pytest.mark.parametrize(("key", "name"), [(RSA_KEY, "RS256"), (EC_KEY, "ES256"), (ED_KEY, "EdDSA")])
def test_public_keys_verify_their_own_algorithm_and_no_other_key(key: Any, name: str) -> None:
    pem = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo).decode()
    subject = authenticator(jwt_secret=None, jwt_public_key=pem, jwt_algorithm=name)
    good = token(key=key, algorithm=name)
    assert subject.authenticate(bearing(good)).rights("main") == EVERYTHING
    head, claims, signature = good.split(".")
    changed = segment({"mercure": ALL, "sub": "root"})
    zero = segment(bytes(64))  # "psychic signatures": r = s = 0
    for text in (
        f"{head}.{changed}.{signature}",
        f"{head}.{claims}.{zero}",
        f"{head}.{claims}.{signature[:-8]}",
        forged(HEADER),
    ):
        assert_bad_token(subject, text)


@pytest.mark.parametrize(
    "extra",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": "b64"},
        {"crit": None},
        {"b64": False},
        {"b64": False, "crit": ["b64"]},
        {"b64": True},
        {"jku": "http://127.0.0.1:1/keys"},
        {"x5u": "http://127.0.0.1:1/certificate"},
        {"x5c": ["MIIB"]},
        {"jwk": {"kty": "oct", "k": segment(SECRET)}},
    ],
)
def test_extensions_and_embedded_keys_are_refused_even_with_a_good_signature(extra: dict[str, Any]) -> None:
    assert_bad_token(authenticator(), forged(HEADER | extra))


@pytest.mark.parametrize(
    "key_id",
    [
        "../../../dev/null",
        "' OR 1=1 --",
        "a\x00b",
        "",
        "k" * 65,
        "k" * 6000,
        "k\n",
        7,
        None,
        ["k"],
        {},
        True,
        "\u212a",
        "a b",
    ],
)
def test_a_hostile_key_id_is_refused_even_with_a_good_signature(key_id: object) -> None:
    assert_bad_token(authenticator(), forged(HEADER | {"kid": key_id}))


def test_a_key_id_that_is_only_a_hint_is_accepted_with_the_one_configured_key() -> None:
    assert authenticator().authenticate(bearing(forged(HEADER | {"kid": "2024-11_a.b"}))).authenticated


NESTED = "[" * 2400 + "]" * 2400


@pytest.mark.parametrize(
    "header",
    [
        '{"alg":"HS256","alg":"none"}',
        '{"alg":"none","alg":"HS256"}',
        "[]",
        "1",
        "null",
        '"HS256"',
        "",
        "{",
        f'{{"alg":"HS256","x":{NESTED}}}',
        '{"alg":"HS256"}x',
        "\ufeff" + '{"alg":"HS256"}',
        '{"alg":"HS256","x":NaN}',
        '{"alg":"HS256","x":' + "9" * 5000 + "}",
    ],
)
def test_a_hostile_header_is_refused(header: str) -> None:
    assert_bad_token(authenticator(), forged(header))


@pytest.mark.parametrize(
    "claims",
    [
        '{"exp":1e999}',
        '{"exp":NaN}',
        '{"exp":Infinity}',
        '{"exp":-Infinity}',
        '{"sub":"a","sub":"b"}',
        "[]",
        "null",
        "7",
        "{",
        "[" * 4000,
        '{"x":' + NESTED + "}",
        '{"exp":' + "9" * 5000 + "}",
        '{"sub":"\\ud800"}',
        '{"mercure":{"publish":["a"],"publish":["*"]}}',
    ],
)
def test_hostile_json_in_the_claims_is_refused_at_once(claims: str) -> None:
    start = time.perf_counter()
    assert_bad_token(authenticator(), forged(HEADER, claims))
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    "text", ["a", "a.b", "a.b.c.d", "..", "a..c", "e30.e30.", "!.!.!", "%", "a.b.c=", "\u00e9.b.c", "a.b.c\n", " "]
)
def test_what_is_no_compact_token_is_refused_wherever_it_stands(text: str) -> None:
    assert refusal(authenticator(), request(f"authorization={quote(text)}")).ending.status == 401


def test_a_token_has_one_spelling() -> None:
    good = forged(HEADER)
    last = good[-1]
    # The last of 43 characters carries two unused bits.
    twins = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" if c != last]
    for twin in twins:
        assert_bad_token(authenticator(), good[:-1] + twin)
    assert_bad_token(authenticator(), good + "=")


def test_an_oversize_token_is_refused_before_any_key_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = authenticator()
    monkeypatch.setattr(subject.keys, "find", lambda *_: pytest.fail("a key was looked up"))
    big = forged(HEADER, {"x": "y" * 8000})
    for asked in (bearing(big), request(f"authorization={big}"), request(cookie=f"mercureAuthorization={big}")):
        assert refusal(subject, asked).ending.status == 400


# Time, issuer, audience


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", [True, False, "9999999999", "", None, [NOW + 60], {}, -1, -0.5, 1e308, 10**300, 253402300800]
)
def test_a_time_of_a_hostile_type_is_refused(name: str, value: object) -> None:
    assert_bad_token(authenticator(), forged(HEADER, {name: value}))


@pytest.mark.parametrize(
    ("claims", "accepted"),
    [
        ({}, True),
        ({"exp": NOW + 1}, True),
        ({"exp": NOW + 0.5}, True),
        ({"exp": NOW}, False),
        ({"exp": 0}, False),
        ({"nbf": NOW}, True),
        ({"nbf": NOW + 1}, False),
        ({"iat": NOW + 5}, True),
        ({"iat": NOW + 3600}, False),
        ({"exp": NOW + 10, "nbf": NOW + 20}, False),
    ],
)
def test_times_are_enforced(claims: dict[str, Any], accepted: bool) -> None:
    if accepted:
        assert authenticator().authenticate(bearing(forged(HEADER, claims))).authenticated
    else:
        assert_bad_token(authenticator(), forged(HEADER, claims))


def test_leeway_widens_both_ends_and_the_expiry_of_the_rights() -> None:
    subject = authenticator(jwt_leeway_seconds=10)
    assert subject.authenticate(bearing(forged(HEADER, {"exp": NOW - 9}))).expires == NOW + 1
    assert subject.authenticate(bearing(forged(HEADER, {"nbf": NOW + 10}))).expires is None
    assert_bad_token(subject, forged(HEADER, {"exp": NOW - 10}))


@pytest.mark.parametrize("issuer", [None, "", "other", ["issuer"], 1, "issuer "])
def test_another_issuer_is_refused(issuer: object) -> None:
    subject = authenticator(jwt_issuer="issuer")
    assert subject.authenticate(bearing(forged(HEADER, {"iss": "issuer"}))).authenticated
    assert_bad_token(subject, forged(HEADER, {} if issuer is None else {"iss": issuer}))


@pytest.mark.parametrize("audience", [None, "", "other", [], ["other"], 1, ["us", 1], {"us": 1}, [["us"]]])
def test_another_audience_is_refused(audience: object) -> None:
    subject = authenticator(jwt_audience="us")
    for good in ("us", ["other", "us"]):
        assert subject.authenticate(bearing(forged(HEADER, {"aud": good}))).authenticated
    assert_bad_token(subject, forged(HEADER, {} if audience is None else {"aud": audience}))


# Rights


def principal(claims: dict[str, Any]) -> Principal:
    return authenticator().authenticate(bearing(forged(HEADER, claims)))


def test_the_mercure_claim_grants_channel_main_alone() -> None:
    who = principal(
        {"sub": "shop-7", "exp": NOW + 60, "mercure": {"publish": ["a/{x}"], "subscribe": ["b"], "payload": 1}}
    )
    assert (who.subject, who.expires, who.operate) == ("shop-7", NOW + 60, False)
    assert who.rights("main") == Rights((parse_selector("a/{x}"),), (parse_selector("b"),))
    assert who.rights("prices") == NOTHING


def test_the_ringcast_claim_grants_other_channels_by_name() -> None:
    who = principal(
        {"ringcast": {"prices": {"publish": ["*"]}, "jobs": {}, "main": {"subscribe": ["*"]}, "operate": True}}
    )
    assert who.operate
    assert who.rights("prices").may_publish(["anything"])
    assert not who.rights("prices").may_read_private(["anything"])
    assert who.rights("jobs") == NOTHING
    assert who.rights("main").may_read_private(["x"])


def test_the_namespaced_mercure_claim_counts_before_the_plain_one() -> None:
    assert principal({"https://mercure.rocks/": ALL}).rights("main") == EVERYTHING
    assert principal({"https://mercure.rocks/": {}, "mercure": ALL}).rights("main") == NOTHING


def test_publishing_needs_a_grant_for_every_topic_and_reading_one_for_any() -> None:
    rights = principal({"mercure": {"publish": ["a", "b/{x}"], "subscribe": ["a", "b/{x}"]}}).rights("main")
    assert rights.may_publish(["a"])
    assert rights.may_publish(["a", "b/1"])
    assert not rights.may_publish(["a", "c"])
    assert not rights.may_publish([])
    assert rights.may_read_private(["c", "b/1"])
    assert not rights.may_read_private(["c"])
    assert not rights.may_read_private([])
    assert EVERYTHING.may_publish([])
    assert not NOTHING.may_publish([])
    assert not NOTHING.may_publish(["a"])


@pytest.mark.parametrize(
    "claims",
    [
        {"mercure": value}
        for value in (
            None,
            [],
            "x",
            1,
            {"publish": "*"},
            {"publish": [1]},
            {"subscribe": [None]},
            {"publish": {"*": 1}},
        )
    ]
    + [{"mercure": {"publish": [text]}} for text in ("", "a\n", "\u200b", "x" * 4097)]
    + [
        {"mercure": {"publish": ["a"] * 101}},
        {"mercure": {"publish": ["a"] * 60}, "ringcast": {"b": {"subscribe": ["a"] * 41}}},
    ]
    + [
        {"ringcast": value}
        for value in (None, [], {"operate": 1}, {"operate": "true"}, {"Bad": {}}, {"a/b": {}}, {"a": []}, {"a": None})
    ]
    + [{"sub": value} for value in (None, 1, [], "a\nb", "\u202e", "x" * 257)],
)
def test_malformed_claims_spoil_the_token(claims: dict[str, Any]) -> None:
    assert_bad_token(authenticator(), forged(HEADER, claims))


def test_a_hundred_selectors_are_accepted() -> None:
    assert len(principal({"mercure": {"publish": ["a"] * 100}}).rights("main").publish) == 100


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


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["alg", "kid", "crit", "typ", "exp", "nbf", "iat", "iss", "aud", "sub", "mercure", "ringcast", "publish", "main"]
)


@given(
    st.dictionaries(NAMES, JSON_VALUES, max_size=4),
    st.dictionaries(NAMES, JSON_VALUES | st.dictionaries(NAMES, JSON_VALUES), max_size=4),
)
def test_any_signed_header_and_claims_are_accepted_or_refused_and_nothing_else(
    header: dict[str, Any], claims: dict[str, Any]
) -> None:
    for tried in (header, HEADER):
        subject = authenticator(jwt_issuer="issuer" if "iss" in claims else None)
        assert isinstance(result := outcome(subject, bearing(forged(tried, claims))), Principal) or result in (400, 401)
