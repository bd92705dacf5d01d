"""Keys: which are accepted for which algorithm, and how an issuer's key set is fetched, renewed and lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
import structlog
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from config.settings import Settings
from server.auth import Authenticator, AuthError
from server.exchange import Request
from server.keys import InvalidKey, KeySet, keys_of, public_key, secret_key
from tests.server.engine import turns
from tests.server.issuer import Issuer, until

SECRET = b"a secret that is at least thirty-two bytes long"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {"RS256": RSA_KEY, "ES256": EC_KEY, "EdDSA": ED_KEY}


def pem(key: Any) -> str:
    data: bytes = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    return data.decode()


def private_pem(key: Any) -> str:
    data: bytes = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    return data.decode()


def jwk(algorithm: str, key_id: str | None = None, *, key: Any = None, **members: Any) -> dict[str, Any]:
    key = key or PRIVATE[algorithm].public_key()
    entry = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key))
    return entry | ({} if key_id is None else {"kid": key_id}) | members


def document(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"keys": entries}).encode()


def token(algorithm: str, key_id: str | None = None) -> str:
    return jwt.encode({"sub": algorithm}, PRIVATE[algorithm], algorithm, {} if key_id is None else {"kid": key_id})


# One key


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_public_key_is_read_from_text_from_one_line_and_from_a_file(algorithm: str, tmp_path: Path) -> None:
    text = pem(PRIVATE[algorithm])
    file = tmp_path / "key.pem"
    file.write_text(text)
    head, _, signature = token(algorithm).rpartition(".")
    for source in (text, text.replace("\n", "\\n"), str(file)):
        key = public_key(source, algorithm)
        assert key.algorithm == algorithm
        assert key.verifies(head.encode(), jwt.utils.base64url_decode(signature))
        assert not key.verifies(head.encode(), b"")
        assert not key.verifies(b"x", jwt.utils.base64url_decode(signature))


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        (pem(RSA_KEY), "ES256"),
        (pem(EC_KEY), "RS256"),
        (pem(ED_KEY), "ES256"),
        (pem(RSA_KEY), "HS256"),
        (pem(rsa.generate_private_key(65537, 1024)), "RS256"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "ES256"),
        (private_pem(RSA_KEY), "RS256"),
        (private_pem(ED_KEY), "EdDSA"),
        ("-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----", "RS256"),
        ("/no/such/file", "RS256"),
        ("a\x00b", "RS256"),
    ],
)
def test_a_key_that_does_not_fit_its_algorithm_is_refused(text: str, algorithm: str) -> None:
    with pytest.raises(InvalidKey) as refused:
        public_key(text, algorithm)
    assert "BEGIN" not in str(refused.value)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_secret_must_be_as_long_as_its_hash_and_no_key_file(algorithm: str) -> None:
    size = int(algorithm[2:]) // 8
    assert secret_key(b"x" * size, algorithm).algorithm == algorithm
    entry = json.dumps(jwk("RS256")).encode()
    for bad in (b"", b"x" * (size - 1), pem(RSA_KEY).encode(), private_pem(RSA_KEY).encode(), entry):
        with pytest.raises(InvalidKey):
            secret_key(bad, algorithm)


def test_a_secret_is_refused_for_an_algorithm_of_public_keys() -> None:
    with pytest.raises(InvalidKey):
        secret_key(SECRET, "RS256")


def test_a_key_does_not_print() -> None:
    assert SECRET.decode() not in repr(secret_key(SECRET, "HS256"))


@pytest.mark.parametrize(
    "settings",
    [
        {"jwt_secret": SECRET.decode(), "jwt_public_key": pem(RSA_KEY)},
        {"jwt_secret": SECRET.decode(), "jwt_algorithm": "RS256"},
        {"jwt_public_key": pem(RSA_KEY)},
        {"jwks_url": "file:///no/such/file"},
    ],
)
def test_settings_that_cannot_work_are_refused_at_start(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidKey):
        KeySet(Settings(**settings))


class Elsewhere:
    """Settings with a key set at any address: the engine checks for itself."""

    jwt_secret = jwt_public_key = None
    jwt_algorithm = "HS256"

    def __init__(self, url: str) -> None:
        self.jwks_url = url


@pytest.mark.parametrize(
    "url", ["http://keys.example/set", "http://192.0.2.1/set", "ftp://127.0.0.1/x", "data:,x", "keys.json", ""]
)
def test_a_key_set_over_plain_http_must_be_on_loopback(url: str) -> None:
    with pytest.raises(InvalidKey):
        KeySet(Elsewhere(url))


# A set of keys


def test_a_key_set_binds_each_key_to_the_algorithm_of_its_kind() -> None:
    keys = keys_of(document(jwk("RS256", "r"), jwk("ES256", "e"), jwk("EdDSA", "d")), secrets=False)
    assert {name: key.algorithm for name, [key] in keys.items()} == {"r": "RS256", "e": "ES256", "d": "EdDSA"}


OCT = {"kty": "oct", "k": jwt.utils.base64url_encode(SECRET).decode(), "kid": "o"}


def test_secrets_in_a_set_count_only_where_nobody_else_can_read_it() -> None:
    assert keys_of(document(OCT), secrets=True)["o"][0].algorithm == "HS256"
    assert keys_of(document(OCT), secrets=False) == {}


UNUSABLE = [
    jwk("RS256", use="enc"),
    jwk("RS256", key_ops=["encrypt"]),
    jwk("RS256", key_ops=7),
    jwk("RS256", alg="RS512"),
    jwk("RS256", alg="HS256"),
    jwk("RS256", alg="ES256"),
    jwk("RS256", alg=["RS256"]),
    jwk("RS256", alg="none"),
    jwk("RS256", key=RSA_KEY),
    jwk("RS256", key=rsa.generate_private_key(65537, 1024).public_key()),
    jwk("RS256", n="!"),
    jwk("RS256", n=7),
    jwk("RS256", kty=["RSA"]),
    jwk("ES256", crv="P-384"),
    jwk("ES256", x="AAAA"),
    jwk("EdDSA", crv="Ed448"),
    OCT | {"alg": "RS256"},
    OCT | {"k": "AAAA"},
    {},
    {"kty": None},
]


@pytest.mark.parametrize("entry", UNUSABLE)
def test_an_unusable_key_is_left_out_and_the_others_stay(entry: dict[str, Any]) -> None:
    with structlog.testing.capture_logs() as lines:
        keys = keys_of(document(entry, jwk("ES256", "good")), secrets=True)
    assert list(keys) == ["good"]
    assert [line["event"] for line in lines] == ["key_left_out"]


@pytest.mark.parametrize(
    "broken", [b"", b"{", b"[]", b"{}", b'{"keys":1}', b'{"keys":null}', b"\xff", b"[" * 100_000, b'{"keys":{}}']
)
def test_what_is_no_key_set_is_refused(broken: bytes) -> None:
    with pytest.raises(InvalidKey):
        keys_of(broken, secrets=False)


def test_more_keys_than_the_limit_are_not_read() -> None:
    assert len(keys_of(document(*(OCT | {"kid": str(number)} for number in range(200))), secrets=True)) == 100


# Fetching


def run(body: Callable[[Issuer, Callable[..., Authenticator]], Awaitable[None]], *entries: dict[str, Any]) -> None:
    """Run `body(issuer, start)`; `start(interval)` makes an authenticator that uses the issuer's keys."""

    async def whole() -> None:
        issuer = Issuer(document(*entries))
        begun: list[KeySet] = []

        def start(interval: float = 0.0, **settings: Any) -> Authenticator:
            chosen = Settings(**{"jwks_url": issuer.url} | settings)
            begun.append(KeySet(chosen, fetch_interval_seconds=interval))
            return Authenticator(chosen, keys=begun[-1])

        try:
            await body(issuer, start)
        finally:
            for keys in begun:
                await keys.stop()
            await issuer.close()

    with structlog.testing.capture_logs():
        asyncio.run(whole())


def status(subject: Authenticator, text: str) -> int:
    try:
        subject.authenticate(Request("GET", "/", "", {b"authorization": f"Bearer {text}".encode()}, "192.0.2.1"))
    except AuthError as error:
        return error.ending.status
    return 200


def test_keys_are_fetched_at_start_and_used_by_their_id() -> None:
    async def body(issuer: Issuer, start: Callable[..., Authenticator]) -> None:
        subject = start(60)
        await subject.keys.start()
        assert status(subject, token("ES256", "a")) == 200
        assert status(subject, token("RS256", "b")) == 200
        assert status(subject, token("RS256", "a")) == 401
        assert status(subject, token("EdDSA", "a")) == 401
        assert issuer.fetches == 1
        assert subject.keys.renewing

    run(body, jwk("ES256", "a"), jwk("RS256", "b"))


def test_a_token_without_a_key_id_fits_only_a_single_key_of_its_algorithm() -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()

    async def body(issuer: Issuer, start: Callable[..., Authenticator]) -> None:
        subject = start(60)
        await subject.keys.start()
        assert status(subject, token("RS256")) == 200
        assert status(subject, token("ES256")) == 401

    run(body, jwk("ES256", "a"), jwk("ES256", "b", key=other), jwk("RS256", "c"))


def test_an_unknown_key_id_is_refused_at_once_and_known_after_a_renewal() -> None:
    async def body(issuer: Issuer, start: Callable[..., Authenticator]) -> None:
        subject = start()
        await subject.keys.start()
        issuer.body = document(jwk("ES256", "old"), jwk("RS256", "new"))
        assert status(subject, token("RS256", "new")) == 401
        await until(lambda: status(subject, token("RS256", "new")) == 200)
        assert status(subject, token("ES256", "old")) == 200

    run(body, jwk("ES256", "old"))


def test_a_key_that_is_withdrawn_ends_the_tokens_that_were_accepted_with_it() -> None:
    async def body(issuer: Issuer, start: Callable[..., Authenticator]) -> None:
        subject = start()
        await subject.keys.start()
        assert status(subject, token("ES256", "old")) == 200
        issuer.body = document(jwk("RS256", "new"))
        status(subject, token("EdDSA", "anything"))
        await until(lambda: status(subject, token("ES256", "old")) == 401)

    run(body, jwk("ES256", "old"))


def test_ten_thousand_unknown_key_ids_cause_no_second_fetch_within_the_interval() -> None:
    async def body(issuer: Issuer, start: Callable[..., Authenticator]) -> None:
        subject = start(60)
        await subject.keys.start()
        for number in range(10_000):
            assert subject.keys.find(f"random-{number}", "ES256") is None
        for number in range(200):
            assert status(subject, token("EdDSA", f"other-{number}")) == 401
            await turns(1)
        assert issuer.fetches == 1
        assert len(subject.keys._unknown) <= 4096
        assert status(subject, token("ES256", "a")) == 200

    run(body, jwk("ES256", "a"))


def test_an_id_that_a_fetch_did_not_bring_is_not_asked_for_again() -> None:
    async def body(issuer: Issuer, start: Callable[..., Authenticator]) -> None:
        subject = start()
        await subject.keys.start()
        assert subject.keys.find("nobody", "ES256") is None
        await until(lambda: issuer.fetches == 2)
        assert subject.keys.find("nobody", "ES256") is None
        assert not subject.keys._wanted.is_set()
        assert subject.keys.find("somebody", "ES256") is None
        await until(lambda: issuer.fetches == 3)

    run(body, jwk("ES256", "a"))


def test_there_is_never_more_than_one_fetch_under_way() -> None:
    async def body(issuer: Issuer, start: Callable[..., Authenticator]) -> None:
        subject = start()
        await subject.keys.start()
        issuer.answering.clear()
        for number in range(50):
            subject.keys.find(f"a-{number}", "ES256")
            await turns(1)
        await until(lambda: issuer.fetches == 2)
        for number in range(50):
            subject.keys.find(f"b-{number}", "ES256")
            await turns(1)
        issuer.answering.set()
        await until(lambda: issuer.fetches == 3)
        assert issuer.most_at_once == 1

    run(body, jwk("ES256", "a"))


def test_before_the_first_keys_have_come_the_answer_is_to_come_back() -> None:
    async def body(issuer: Issuer, start: Callable[..., Authenticator]) -> None:
        subject = start()
        issuer.status = 500
        await subject.keys.start()
        assert status(subject, token("ES256", "a")) == 503
        issuer.status = 200
        # The verdict was not remembered: as soon as there are keys the same token is good.
        await until(lambda: status(subject, token("ES256", "a")) == 200)

    run(body, jwk("ES256", "a"))


@pytest.mark.parametrize("trouble", ["error", "redirect", "nonsense", "too large"])
def test_a_failed_fetch_keeps_the_keys_and_is_tried_again(trouble: str) -> None:
    async def body(issuer: Issuer, start: Callable[..., Authenticator]) -> None:
        subject = start()
        await subject.keys.start()
        good, canary = issuer.body, Issuer(document(jwk("RS256", "canary")))
        if trouble == "error":
            issuer.status = 503
        elif trouble == "redirect":
            issuer.status, issuer.headers = 302, {"Location": canary.url}
        else:
            issuer.body = b"nonsense" if trouble == "nonsense" else good + b" " * 300_000
        subject.keys.find("canary", "RS256")
        await until(lambda: issuer.fetches >= 3)
        assert status(subject, token("ES256", "a")) == 200
        assert status(subject, token("RS256", "canary")) == 401
        assert canary.fetches == 0
        issuer.status, issuer.headers, issuer.body = 200, {}, document(jwk("EdDSA", "b"))
        await until(lambda: status(subject, token("EdDSA", "b")) == 200)
        await canary.close()

    run(body, jwk("ES256", "a"))


def test_an_issuer_that_is_not_there_does_not_keep_the_server_from_starting() -> None:
    async def body(issuer: Issuer, start: Callable[..., Authenticator]) -> None:
        subject = start(60)
        await issuer.close()
        await subject.keys.start()
        assert subject.keys.renewing
        assert status(subject, token("ES256", "a")) == 503

    run(body)


def test_a_token_that_names_a_key_server_causes_no_fetch_there() -> None:
    async def body(issuer: Issuer, start: Callable[..., Authenticator]) -> None:
        subject = start()
        await subject.keys.start()
        canary = Issuer(document(jwk("RS256", "r")))
        for name in ("jku", "x5u"):
            text = jwt.encode({}, RSA_KEY, "RS256", {"kid": "r", name: canary.url})
            assert status(subject, text) == 401
        # Had a fetch begun, it would be over before this one.
        subject.keys.find("unknown", "ES256")
        await until(lambda: issuer.fetches == 2)
        assert canary.fetches == 0
        await canary.close()

    run(body, jwk("ES256", "a"))


def test_a_key_set_in_a_file_serves_from_the_first_moment_and_follows_the_file(tmp_path: Path) -> None:
    file = tmp_path / "key set.json"
    file.write_bytes(document(OCT, jwk("ES256", "a")))

    async def body(issuer: Issuer, start: Callable[..., Authenticator]) -> None:
        subject = start(jwks_url=file.as_uri())
        secret = jwt.encode({"sub": "o"}, SECRET, "HS256", {"kid": "o"})
        assert status(subject, token("ES256", "a")) == 200
        assert status(subject, secret) == 200
        await subject.keys.start()
        file.write_bytes(document(jwk("RS256", "b")))
        await until(lambda: status(subject, token("RS256", "b")) == 200)
        assert status(subject, secret) == 401
        assert issuer.fetches == 0

    run(body)


def test_a_configured_key_and_a_key_set_serve_side_by_side() -> None:
    async def body(issuer: Issuer, start: Callable[..., Authenticator]) -> None:
        subject = start(60, jwt_secret=SECRET.decode())
        secret = jwt.encode({"sub": "o"}, SECRET, "HS256")
        assert status(subject, secret) == 200
        await subject.keys.start()
        assert status(subject, secret) == 200
        assert status(subject, token("ES256", "a")) == 200
        # The issuer's public key is no secret, whatever the token says.
        assert status(subject, jwt.encode({}, "x" * 40, "HS256", {"kid": "a"})) == 401

    run(body, jwk("ES256", "a"))


def test_the_death_of_the_renewing_task_is_logged_and_visible() -> None:
    async def whole() -> list[Any]:
        issuer = Issuer(document(jwk("ES256", "a")))
        keys = KeySet(Settings(jwks_url=issuer.url), fetch_interval_seconds=0)
        with structlog.testing.capture_logs() as lines:
            await keys.start()

            async def broken(_: object) -> bool:
                raise RuntimeError("CANARY")

            keys._renew = broken  # type: ignore[method-assign]
            keys.find("unknown", "ES256")
            await until(lambda: not keys.renewing)
            await keys.stop()
        await issuer.close()
        return lines

    lines = asyncio.run(whole())
    assert {"event": "key_renewal_died", "error": "RuntimeError", "log_level": "error", "part": "keys"} in lines


def test_stopping_twice_or_before_the_start_does_nothing() -> None:
    async def whole() -> None:
        keys = KeySet(Settings(jwt_secret=SECRET.decode()))
        await keys.stop()
        await keys.start()
        await keys.stop()
        await keys.stop()

    asyncio.run(whole())
