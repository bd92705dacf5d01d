"""Tokens, good and forged, for tests of authentication. Forged ones are put together by hand: a library would refuse to
make them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.harness.process import TOKEN_SECRET

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
EVERYTHING: dict[str, Any] = {"mercure": {"publish": ["*"], "subscribe": ["*"]}}


def signed(
    claims: dict[str, Any] | None = None, *, key: Any = TOKEN_SECRET, algorithm: str = "HS256", **headers: Any
) -> str:
    """A properly signed token; it grants everything on channel main unless `claims` say otherwise."""
    return jwt.encode(EVERYTHING if claims is None else claims, key, algorithm, headers or None)


def bearer(token: str) -> str:
    """The value of the Authorization header."""
    return f"Bearer {token}"


def pem(key: PublicKey) -> bytes:
    """The text form in which an operator configures a public key."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(
    header: dict[str, Any] | str,
    claims: dict[str, Any] | str = "",
    *,
    secret: bytes | None = None,
    digest: str = "sha256",
) -> str:
    """A token from raw JSON texts or dicts, signed with HMAC under `secret`, or with an empty signature."""
    parts = [part if isinstance(part, str) else json.dumps(part) for part in (header, claims or EVERYTHING)]
    text = ".".join(b64(part.encode()) for part in parts)
    signature = b"" if secret is None else hmac.new(secret, text.encode(), getattr(hashlib, digest)).digest()
    return f"{text}.{b64(signature)}"
