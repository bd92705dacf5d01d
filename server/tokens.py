"""Tokens: from the text of a JWT to verified claims.

Owns the strict reading of JSON Web Signatures and the rules of time, issuer and audience. Must never know of requests,
channels or grants. Nothing of a token is believed before its signature, but for `alg` and `kid`, and these only pick
among configured keys, each of which is bound to one algorithm.

The signature is PyJWT's work (its algorithm classes); the envelope is read here, because hostile envelopes are the
usual way in: members given twice, NaN, numbers as text, deep nesting, embedded keys, and critical extensions are all
refused.

Cost: 40 us for HMAC, 80 to 260 us for a public key; the caller remembers results. Nothing here grows with the number of
tokens.
Sources: RFC 7515, 7519, 8725 (best current practices).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

MAX_TOKEN_CHARACTERS = 8192
# `iat` says nothing about validity; one far ahead of the clock is made up, one a little ahead is an ordinary clock.
MAX_ISSUED_AHEAD_SECONDS = 60.0
# The end of the year 9999. Beyond it nobody means seconds.
MAX_UNIX_SECONDS = 253_402_300_799

_COMPACT = re.compile(r"([A-Za-z0-9_-]++)\.([A-Za-z0-9_-]++)\.([A-Za-z0-9_-]++)")
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# `crit` names extensions that must be understood, and none is; `b64` is one of them. The others bring a key, or the
# address of one, that the sender chose.
_REFUSED_HEADERS = ("crit", "b64", "jwk", "jku", "x5c", "x5u")


class InvalidToken(Exception):
    """A token that is not accepted. `reason` is for the log and quotes nothing.

    `valid_from` is when the token will be good, if time alone is missing.
    """

    def __init__(self, reason: str, valid_from: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.valid_from = valid_from


class Key(Protocol):
    """A key and the one algorithm it is for."""

    @property
    def algorithm(self) -> str: ...

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """True if the signature is this key's."""
        ...


class Keys(Protocol):
    """Where keys are found."""

    def find(self, key_id: str | None, algorithm: str) -> Key | None:
        """The key that a token with this header must be signed with. Must return at once."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What the claims of every token must satisfy; None is not checked."""

    issuer: str | None = None
    audience: str | None = None
    leeway_seconds: float = 0.0


def verified_claims(token: str, keys: Keys) -> dict[str, object]:
    """The claims of a token with a good signature. Raises InvalidToken."""
    found = _COMPACT.fullmatch(token) if len(token) <= MAX_TOKEN_CHARACTERS else None
    if found is None:
        raise InvalidToken("malformed")
    header = _json_object(_decoded(found[1]))
    key = _key(header, keys)
    if not key.verifies(token[: found.end(2)].encode(), _decoded(found[3])):
        raise InvalidToken("signature")
    return _json_object(_decoded(found[2]))


def checked_expiry(claims: Mapping[str, object], rules: Rules, now: float) -> float | None:
    """When the rights of these claims end, leeway included; None for never. Raises InvalidToken if not valid now."""
    expires, not_before, issued = (_seconds(claims, name) for name in ("exp", "nbf", "iat"))
    _check_parties(claims, rules)
    if expires is not None and now >= expires + rules.leeway_seconds:
        raise InvalidToken("expired")
    if not_before is not None and now < not_before - rules.leeway_seconds:
        raise InvalidToken("not valid yet", not_before - rules.leeway_seconds)
    if issued is not None and now < issued - MAX_ISSUED_AHEAD_SECONDS:
        raise InvalidToken("issued in the future", issued - MAX_ISSUED_AHEAD_SECONDS)
    return None if expires is None else expires + rules.leeway_seconds


def _key(header: Mapping[str, object], keys: Keys) -> Key:
    if any(name in header for name in _REFUSED_HEADERS):
        raise InvalidToken("refused header")
    key_id, algorithm = header.get("kid"), header.get("alg")
    if "kid" in header and not (isinstance(key_id, str) and _KEY_ID.fullmatch(key_id)):
        raise InvalidToken("malformed kid")
    if not isinstance(algorithm, str):
        raise InvalidToken("algorithm")
    key = keys.find(key_id if isinstance(key_id, str) else None, algorithm)
    if key is None:
        raise InvalidToken("unknown key")
    if key.algorithm != algorithm:
        raise InvalidToken("algorithm")
    return key


def _decoded(segment: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        raise InvalidToken("malformed") from None
    # One text for one value: the unused bits of the last character must be 0, else a token has many spellings.
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment.encode():
        raise InvalidToken("malformed")
    return data


def _json_object(data: bytes) -> dict[str, object]:
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise InvalidToken("malformed JSON") from None
    if not isinstance(value, dict):
        raise InvalidToken("malformed JSON")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers of `{"sub": "a", "sub": "b"}` may see two people.
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a member comes twice")
    return value


def _no_constant(_: str) -> NoReturn:
    raise ValueError("not a JSON number")


def _seconds(claims: Mapping[str, object], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    # A boolean is an int in Python; a comparison with NaN is false.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_UNIX_SECONDS:
        raise InvalidToken(f"malformed {name}")
    return float(value)


def _check_parties(claims: Mapping[str, object], rules: Rules) -> None:
    if rules.issuer is not None and claims.get("iss") != rules.issuer:
        raise InvalidToken("issuer")
    if rules.audience is None and "aud" not in claims:
        return
    audience = claims.get("aud")
    names = audience if isinstance(audience, list) else [audience]
    if not all(isinstance(name, str) for name in names):
        raise InvalidToken("malformed aud")
    if rules.audience is not None and rules.audience not in names:
        raise InvalidToken("audience")
