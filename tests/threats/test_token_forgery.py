"""Tokens that were not signed by the holder of the key."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.harness.process import TOKEN_SECRET, Node
from tests.threats.conftest import finish
from tests.threats.tokens import EVERYTHING, PublicKey, b64, bearer, by_hand, pem, signed
from tests.threats.wire import WAYS, Answer, answered, request

PATH = "/.well-known/mercure?topic=a"
FORM = {"Content_Type": "application/x-www-form-urlencoded"}
SECRET = TOKEN_SECRET.encode()
ADMITTED = signed()


def tries(port: int, token: str) -> Iterator[Answer]:
    """The answers to a token on every surface and by both ways in."""
    header = bearer(token)
    for way in WAYS:
        yield answered(port, request("GET", PATH, Authorization=header), way)
        yield answered(port, request("GET", "/channels/main/events", Cookie=f"mercureAuthorization={token}"), way)
        yield answered(port, request("GET", f"{PATH}&authorization={token}"), way)
    yield answered(port, request("POST", "/.well-known/mercure", b"topic=a&data=x", Authorization=header, **FORM))
    body = b'{"topic": "a", "data": "x"}'
    yield answered(
        port, request("POST", "/channels/main/events", body, Authorization=header, Content_Type="application/json")
    )


def check_refused(port: int, token: str) -> None:
    for answer in tries(port, token):
        assert answer.status == 401, (answer, token[:200])


def test_the_good_token_is_let_in(keyed_node: Node) -> None:
    """S20: the tests below would mean nothing otherwise."""
    for answer in tries(keyed_node.port, ADMITTED):
        assert answer.status == 200, answer


@pytest.mark.parametrize(
    "name", ["none", "None", "NONE", "nOnE", "", " ", "hs256", "HS256 ", "HS1", "none\x00", "HS256\n"]
)
def test_no_algorithm_is_no_signature(keyed_node: Node, name: str) -> None:
    """S20: `none` in every spelling, with and without a signature."""
    check_refused(keyed_node.port, by_hand({"alg": name, "typ": "JWT"}))
    check_refused(keyed_node.port, by_hand({"alg": name, "typ": "JWT"}, secret=SECRET))


@pytest.mark.parametrize("algorithm", [None, 1, True, ["HS256"], {"HS256": 1}])
def test_an_algorithm_that_is_no_text_is_refused(keyed_node: Node, algorithm: object) -> None:
    """S20: the header's field is data of the attacker."""
    check_refused(keyed_node.port, by_hand({"alg": algorithm, "typ": "JWT"}, secret=SECRET))


def test_a_signature_that_is_empty_cut_altered_or_of_another_key_is_refused(keyed_node: Node) -> None:
    """S20: every byte of the signature and of what it covers counts."""
    head, claims, signature = ADMITTED.split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    others = [b"", raw[:-1], raw + b"\0", bytes([raw[0] ^ 1]) + raw[1:], b"\0" * 32]
    for other in others:
        check_refused(keyed_node.port, f"{head}.{claims}.{b64(other)}")
    check_refused(keyed_node.port, by_hand({"alg": "HS256"}, secret=b""))
    check_refused(keyed_node.port, by_hand({"alg": "HS256"}, secret=SECRET + b"\n"))
    check_refused(keyed_node.port, by_hand({"alg": "HS512"}, secret=SECRET, digest="sha512"))
    wider = b64(json.dumps(EVERYTHING | {"ringcast": {"a": {"publish": ["*"]}}}).encode())
    check_refused(keyed_node.port, f"{head}.{wider}.{signature}")


@pytest.mark.parametrize(
    "token",
    [
        "a",
        ".",
        "..",
        "a.b",
        "a.b.c",
        "a.b.c.d.e",
        "%00",
        "e30.e30.",
        "e30.e30.e30",
        "=.=.=",
        "\u00e9.\u00e9.\u00e9",
        "a b.c d.e",
    ],
)
def test_what_is_no_token_is_refused_without_an_accident(keyed_node: Node, token: str) -> None:
    """S20: garbage in place of a token is 401, or 400 where it makes the header malformed."""
    for way in WAYS:
        assert answered(keyed_node.port, request("GET", PATH, Authorization=bearer(token)), way).status in (400, 401)


def disguises(key: PublicKey) -> dict[str, bytes]:
    """The public key in every form that somebody could have configured it in, as an HMAC secret."""
    text = pem(key)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    kinds = {rsa.RSAPublicKey: jwt.algorithms.RSAAlgorithm, ec.EllipticCurvePublicKey: jwt.algorithms.ECAlgorithm}
    kind = next((value for base, value in kinds.items() if isinstance(key, base)), jwt.algorithms.OKPAlgorithm)
    jwk = kind.to_jwk(key, as_dict=True)  # type: ignore[attr-defined]
    return {
        "PEM": text,
        "PEM without the last newline": text.rstrip(b"\n"),
        "PEM with CRLF": text.replace(b"\n", b"\r\n"),
        "PEM body": b"".join(text.split(b"\n")[1:-2]),
        "DER": der,
        "DER in base64": base64.b64encode(der),
        "JWK": json.dumps(jwk).encode(),
        "JWK without spaces": json.dumps(jwk, separators=(",", ":")).encode(),
        "JWKS": json.dumps({"keys": [jwk]}).encode(),
        "nothing": b"",
    }


KEYS = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_public_key_is_no_secret(tmp_path: Path, algorithm: str) -> None:
    """S21: HMAC under the public key in any text form, and `none`, are refused where the key pair's own signature is
    let in.
    """
    private = KEYS[algorithm]
    node = Node(
        tmp_path, drain_seconds=0, jwt_algorithm=algorithm, jwt_public_key=pem(private.public_key()).decode()
    ).start()
    try:
        for answer in tries(node.port, signed(key=private, algorithm=algorithm)):
            assert answer.status == 200, answer
        for secret in disguises(private.public_key()).values():
            for name, digest in (("HS256", "sha256"), ("HS512", "sha512"), (algorithm, "sha256")):
                token = by_hand({"alg": name, "typ": "JWT"}, secret=secret, digest=digest)
                assert answered(node.port, request("GET", PATH, Authorization=bearer(token))).status == 401
        check_refused(node.port, by_hand({"alg": "none"}))
        for other, key in KEYS.items():
            if other != algorithm:
                check_refused(node.port, signed(key=key, algorithm=other))
    finally:
        finish(node)


def test_a_public_key_as_an_hmac_secret_is_refused_at_start(tmp_path: Path) -> None:
    """S21: a PEM text where a secret belongs is a mistake that would let everybody in who has the public key."""
    node = Node(tmp_path, jwt_secret=pem(KEYS["RS256"].public_key()).decode())
    with pytest.raises(AssertionError, match="the server ended"):
        node.start()
    assert "Traceback" not in node.log()


def embedding(port: int) -> list[dict[str, object]]:
    """Headers that name a key of the attacker's, or ask for what the server does not know."""
    url = f"http://127.0.0.1:{port}/keys"
    jwk = {"kty": "oct", "k": b64(b"attacker's own key of thirty-two bytes")}
    return [
        {"jku": url}, {"x5u": url}, {"jwk": jwk}, {"x5c": ["MIIB"]}, {"jku": url, "kid": "a"}, {"kid": url},
        {"crit": ["x"], "x": 1}, {"crit": ["exp"]}, {"crit": []}, {"crit": "b64", "b64": False},
        {"b64": False, "crit": ["b64"]},
        {"zip": "DEF"}, {"enc": "A128GCM"},
    ]  # fmt: skip


def test_keys_that_a_token_brings_along_are_not_used_and_not_fetched(keyed_node: Node) -> None:
    """S22: signed with the key it names, a token is 401, and no connection goes out to the place it names."""
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.setblocking(False)
        for extra in embedding(canary.getsockname()[1]):
            token = by_hand({"alg": "HS256", "typ": "JWT"} | extra, secret=b"attacker's own key of thirty-two bytes")
            check_refused(keyed_node.port, token)
        with pytest.raises(BlockingIOError):
            canary.accept()


@pytest.mark.parametrize(
    "extra", [{"crit": ["x"], "x": 1}, {"crit": ["b64"], "b64": False}, {"crit": []}, {"crit": "x"}, {"b64": False}]
)
def test_what_a_token_calls_critical_must_be_understood(keyed_node: Node, extra: dict[str, object]) -> None:
    """S22: even with a good signature an unknown `crit` is 401."""
    check_refused(keyed_node.port, by_hand({"alg": "HS256", "typ": "JWT"} | extra, secret=SECRET))


def test_a_header_that_says_a_thing_twice_does_not_get_past_the_check(keyed_node: Node) -> None:
    """S22: duplicate members: whichever counts, it is never `none`."""
    for text in ('{"alg":"HS256","alg":"none"}', '{"alg":"none","alg":"HS256"}'):
        check_refused(keyed_node.port, by_hand(text))
