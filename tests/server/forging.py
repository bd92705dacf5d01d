"""Tokens, good and forged by hand, and what becomes of them. A library would refuse to make the forged ones."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import jwt
import pytest

from config.settings import Settings
from server.auth import Authenticator, AuthError, Principal
from server.exchange import Request

SECRET = "a secret that is at least thirty-two bytes long"
NOW = 1_800_000_000.0
HEADER = {"alg": "HS256", "typ": "JWT"}
ALL = {"publish": ["*"], "subscribe": ["*"]}


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
