"""Tokens: forged, hostile, early, late and foreign ones are refused, all in the same way."""

from __future__ import annotations

import base64
import json
import time
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from server.auth import Principal
from server.rights import EVERYTHING
from tests.server.forging import (
    ALL,
    HEADER,
    NOW,
    SECRET,
    assert_bad_token,
    authenticator,
    bearing,
    forged,
    outcome,
    refusal,
    request,
    segment,
    token,
)

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()

# Forged tokens (S20 to S24)

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
