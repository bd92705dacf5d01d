"""Keys: what tokens are verified with.

Owns the configured key, the key set (JWKS) of an issuer and its renewal. Must never know of tokens or requests. Each
key is bound to one algorithm when it is loaded, and to a kind of key that fits it, so a public key can never serve as
an HMAC secret.

Invariants: `find` returns at once and never fetches; it only asks the renewing task to. That task is the only one that
fetches: never two at a time, at most one fetch a minute however many unknown key ids come. A failed fetch keeps the
keys there are. `generation` changes whenever a key does.
Cost: a look-up is one or two dictionary accesses; a verification 6 us (HMAC) to 220 us (EdDSA).
Sources: RFC 7517 (JWK), 7518 (algorithms and key sizes), 8037 (EdDSA).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import Algorithm
from tornado.httpclient import HTTPError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from config.loopback import is_loopback
from server.logs import get_logger

log = get_logger("keys")

RENEWAL_SECONDS = 300.0
FETCH_INTERVAL_SECONDS = 60.0
FETCH_LIMIT_SECONDS = 10.0
MAX_KEY_SET_BYTES = 256 * 1024
MAX_KEYS = 100
MAX_UNKNOWN_IDS = 4096

# RFC 7518, section 3.2: an HMAC key is at least as long as the hash.
_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
ALGORITHMS = (*_SECRET_BYTES, "RS256", "ES256", "EdDSA")
# The upper bound keeps a verification from taking seconds.
_RSA_BITS = range(2048, 8193)
_FITTING = {
    "RS256": "a public RSA key of 2048 to 8192 bits",
    "ES256": "a public P-256 key",
    "EdDSA": "a public Ed25519 key",
}
# For keys of a set that do not name their algorithm.
_BY_KIND = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA", "oct": "HS256"}


class InvalidKey(ValueError):
    """A key that cannot be used. The text names no part of the key."""


class KeysUnavailable(Exception):
    """The issuer's keys have never been fetched: no token can be judged yet."""


class Secret(Protocol):
    """A text that does not print."""

    def get_secret_value(self) -> str: ...


class KeySettings(Protocol):
    """The settings that name keys."""

    @property
    def jwt_secret(self) -> Secret | None: ...
    @property
    def jwt_algorithm(self) -> str: ...
    @property
    def jwt_public_key(self) -> str | None: ...
    @property
    def jwks_url(self) -> str | None: ...


@dataclass(frozen=True, slots=True, repr=False)
class SigningKey:
    """A key and the one algorithm it is for."""

    algorithm: str
    _key: Any
    _verifier: Algorithm

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """True if the signature is this key's."""
        return self._verifier.verify(message, self._key, signature)


def secret_key(secret: bytes, algorithm: str) -> SigningKey:
    """A shared secret. Raises InvalidKey for a short one, for a key file, and for an algorithm of public keys."""
    if algorithm not in _SECRET_BYTES:
        raise InvalidKey(f"{algorithm} needs a public key, not a secret")
    if len(secret) < _SECRET_BYTES[algorithm]:
        raise InvalidKey(f"a secret for {algorithm} must be at least {_SECRET_BYTES[algorithm]} bytes")
    verifier = jwt.get_algorithm_by_name(algorithm)
    try:
        return SigningKey(algorithm, verifier.prepare_key(secret), verifier)
    except jwt.InvalidKeyError:
        raise InvalidKey("a public key or certificate must not be used as a secret") from None


def public_key(pem_or_path: str, algorithm: str) -> SigningKey:
    """A public key, as PEM text (line breaks may be written as \\n) or the path of a PEM file. Raises InvalidKey."""
    if "-----BEGIN" in pem_or_path:
        pem = pem_or_path.replace("\\n", "\n").encode()
    else:
        try:
            pem = Path(pem_or_path).read_bytes()
        except (OSError, ValueError):
            raise InvalidKey("the file of the public key cannot be read") from None
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidKey("not a public key in PEM form") from None
    return _fitting(key, algorithm)


def keys_of(document: bytes, *, secrets: bool) -> dict[str | None, list[SigningKey]]:
    """The usable keys of a JWK set by id; others are left out, as RFC 7517 section 5 asks. Raises InvalidKey.

    `secrets`: symmetric keys count too. Over a network they would not be secret.
    """
    try:
        members = json.loads(document)["keys"]
        entries = [entry for entry in members[:MAX_KEYS] if isinstance(entry, dict)]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidKey("not a JWK set") from None
    keys: dict[str | None, list[SigningKey]] = {}
    for entry in entries:
        try:
            key = _key_of(entry, secrets=secrets)
        except (InvalidKey, jwt.PyJWTError, ValueError, TypeError, KeyError, UnsupportedAlgorithm) as error:
            log.warning("key_left_out", reason=str(error) if isinstance(error, InvalidKey) else "malformed")
        else:
            name = entry.get("kid")
            keys.setdefault(name if isinstance(name, str) else None, []).append(key)
    return keys


def _key_of(entry: dict[str, Any], *, secrets: bool) -> SigningKey:
    if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ("verify",)):
        raise InvalidKey("is not for signatures")
    algorithm = entry.get("alg", _BY_KIND.get(str(entry.get("kty"))))
    if algorithm not in ALGORITHMS:
        raise InvalidKey("is of a kind or algorithm that is not supported")
    # Each algorithm reads only its own kind of key, so `kty` and `alg` cannot contradict each other.
    key = jwt.get_algorithm_by_name(algorithm).from_jwk(entry)
    if algorithm not in _SECRET_BYTES:
        return _fitting(key, algorithm)
    if not secrets:
        raise InvalidKey("is a secret that everybody can read")
    return secret_key(key, algorithm)


def _fitting(key: object, algorithm: str) -> SigningKey:
    fits = {
        "RS256": isinstance(key, RSAPublicKey) and key.key_size in _RSA_BITS,
        "ES256": isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1),
        "EdDSA": isinstance(key, Ed25519PublicKey),
    }
    if not fits.get(algorithm, False):
        raise InvalidKey(f"is not {_FITTING.get(algorithm, 'a secret')}, which {algorithm} needs")
    return SigningKey(algorithm, key, jwt.get_algorithm_by_name(algorithm))


class KeySet:
    """The configured key, and the keys of an issuer if there is a `jwks_url`.

    Raises InvalidKey for a key that cannot be used, and for a key set in a file that cannot be read. A remote one is
    fetched by `start`.
    """

    def __init__(
        self,
        settings: KeySettings,
        *,
        fetch_interval_seconds: float = FETCH_INTERVAL_SECONDS,
        renewal_seconds: float = RENEWAL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.generation = 0
        self._configured = list(_configured(settings))
        self._source = None if settings.jwks_url is None else _Source(settings.jwks_url)
        self._document: bytes | None = None
        self._issued: dict[str | None, list[SigningKey]] = {}
        self._unknown: dict[str, float] = {}
        self._wanted = asyncio.Event()
        self._interval = fetch_interval_seconds
        self._renewal = renewal_seconds
        self._clock = clock
        self._next_fetch = 0.0
        self._task: asyncio.Task[None] | None = None
        if self._source is not None and not self._source.remote:
            self._take(self._source.read(), self._source)

    @property
    def configured(self) -> bool:
        """False if there is no key at all: development mode."""
        return bool(self._configured) or self._source is not None

    @property
    def renewing(self) -> bool:
        """False if keys should be renewed and are not: before `start`, after `stop`, or if the task has died."""
        return self._source is None or (self._task is not None and not self._task.done())

    def find(self, key_id: str | None, algorithm: str) -> SigningKey | None:
        """The key for a token with this `kid` and `alg`. Raises KeysUnavailable.

        An issuer's key goes by its id; a token without one fits only if there is a single key of the algorithm. The
        configured key has no id: any will do.
        """
        for key in self._issued_as(key_id, algorithm) + self._configured:
            if key.algorithm == algorithm:
                return key
        if self._source is not None:
            if self._document is None and not self._configured:
                self._wanted.set()
                raise KeysUnavailable
            if key_id is not None and key_id not in self._issued:
                self._miss(key_id)
        return None

    def _issued_as(self, key_id: str | None, algorithm: str) -> list[SigningKey]:
        if key_id is not None:
            return self._issued.get(key_id, [])
        fitting = [key for keys in self._issued.values() for key in keys if key.algorithm == algorithm]
        return fitting if len(fitting) == 1 else []

    def _miss(self, key_id: str) -> None:
        """Ask for new keys, unless this id was missed lately: then the issuer does not have it."""
        now = self._clock()
        if self._unknown.get(key_id, 0.0) > now:
            return
        if len(self._unknown) >= MAX_UNKNOWN_IDS:
            del self._unknown[next(iter(self._unknown))]
        self._unknown[key_id] = now + self._renewal
        self._wanted.set()

    async def start(self) -> None:
        """Fetch a remote key set (a failure is logged and tried again), and begin to renew it."""
        if self._source is None or self._task is not None:
            return
        if self._document is None and not await self._renew(self._source):
            self._wanted.set()
        self._task = asyncio.create_task(self._keep_fresh(self._source), name="key renewal")
        self._task.add_done_callback(_notice_death)

    async def stop(self) -> None:
        """End the renewing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _keep_fresh(self, source: _Source) -> None:
        while True:
            # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._renewal):
                    await self._wanted.wait()
            await asyncio.sleep(max(0.0, self._next_fetch - self._clock()))
            self._wanted.clear()
            if not await self._renew(source):
                self._wanted.set()

    async def _renew(self, source: _Source) -> bool:
        """Fetch once; True if it worked. Only `start` and then the task call this: never a second fetch under way."""
        self._next_fetch = self._clock() + self._interval
        try:
            self._take(await source.fetch(), source)
        except Exception as error:  # whatever the issuer does, the keys there are stay
            status = error.code if isinstance(error, HTTPError) else None
            log.warning("key_fetch_failed", error=type(error).__name__, status=status)
            return False
        return True

    def _take(self, document: bytes, source: _Source) -> None:
        if document == self._document:
            return
        self._issued = keys_of(document, secrets=not source.remote)
        self._document = document
        self._unknown.clear()
        self.generation += 1
        log.info("keys_loaded", keys=sum(map(len, self._issued.values())))


def _configured(settings: KeySettings) -> Iterator[SigningKey]:
    secret = settings.jwt_secret
    if secret is not None and settings.jwt_public_key is not None:
        raise InvalidKey("jwt_secret and jwt_public_key cannot be used together: there is one jwt_algorithm")
    if secret is not None:
        yield secret_key(secret.get_secret_value().encode(), settings.jwt_algorithm)
    if settings.jwt_public_key is not None:
        yield public_key(settings.jwt_public_key, settings.jwt_algorithm)


def _notice_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("key_renewal_died", error=type(error).__name__)


class _Source:
    """Where a key set is: a file, or https, or http on loopback. Raises InvalidKey for any other."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._url = url
        self.remote = parts.scheme != "file"
        self._path = Path(unquote(parts.path))
        if parts.scheme not in ("file", "https") and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise InvalidKey("jwks_url must be https://HOST/…, file:///PATH, or http:// on loopback")

    def read(self) -> bytes:
        """The file's content. Raises InvalidKey."""
        try:
            with self._path.open("rb") as file:
                document = file.read(MAX_KEY_SET_BYTES + 1)
        except (OSError, ValueError):
            raise InvalidKey("the file of the key set cannot be read") from None
        if len(document) > MAX_KEY_SET_BYTES:
            raise InvalidKey(f"the key set is larger than {MAX_KEY_SET_BYTES} bytes")
        return document

    async def fetch(self) -> bytes:
        """The document as it is now. Follows no redirect: it could lead to plain HTTP or into the network behind."""
        if not self.remote:
            return await asyncio.to_thread(self.read)
        client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=MAX_KEY_SET_BYTES)
        request = HTTPRequest(
            self._url,
            follow_redirects=False,
            decompress_response=False,
            connect_timeout=FETCH_LIMIT_SECONDS,
            request_timeout=FETCH_LIMIT_SECONDS,
            headers={"Accept": "application/jwk-set+json, application/json"},
        )
        try:
            return (await client.fetch(request)).body
        finally:
            client.close()
