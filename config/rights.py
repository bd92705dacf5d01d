"""Settings of keys, tokens and origins.

Owns their form; who may do what is decided by the server's authorisation. Keys never print.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr, field_validator
from pydantic_settings import NoDecode

from config.fields import COMMA_SEPARATED, Group, LeewaySeconds, setting
from config.loopback import is_loopback

Algorithm = Literal["HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"]
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII)


class Rights(Group):
    """Who may publish and subscribe.

    Without any key the server is in development mode: everybody on the loopback interface may do everything.
    """

    jwt_secret: SecretStr | None = setting(
        None,
        "Shared secret that tokens are signed with (HMAC).",
        why="At least as many bytes as the hash has (32 for HS256): shorter ones can be guessed.",
        hidden=True,
    )
    jwt_algorithm: Algorithm = setting(
        "HS256",
        "The one algorithm that is accepted with the configured key.",
        why="Chosen here and never by the token: a token could pick a weaker one.",
    )
    jwt_public_key: str | None = setting(
        None, "Public key (PEM text, or the path of a PEM file) for RS256, ES256 or EdDSA.", hidden=True
    )
    jwks_url: str | None = setting(
        None,
        "Where the key set of a token issuer is: `https://…`, `file://…`, or `http://` on loopback.",
        why="Keys that came over plain HTTP could be anybody's.",
        hidden=True,
    )
    jwt_issuer: str | None = setting(None, "The `iss` that a token must have; not checked if unset.")
    jwt_audience: str | None = setting(None, "The `aud` that a token must have; not checked if unset.")
    jwt_leeway_seconds: LeewaySeconds = setting(0.0, "How far the issuer's clock may differ.", zero="not at all")
    query_token: bool = setting(
        True,
        "Accept the token as the query parameter `authorization`.",
        why="A browser's EventSource cannot send headers; yet proxies log addresses with their query.",
    )
    anonymous: bool = setting(False, "Let clients without a token read public events.")
    allowed_origins: Annotated[list[str], NoDecode, COMMA_SEPARATED] = setting(
        [],
        "Web origins that may use the server from a browser, exactly as the browser sends them.",
        why="A pattern that is a little too wide lets a stranger's page read.",
    )

    @field_validator("jwt_public_key")
    @classmethod
    def _check_public_key(cls, value: str | None) -> str | None:
        if value is not None and "PRIVATE KEY" in value:
            raise ValueError("holds a private key; give the public one")
        if value is not None and not value.strip():
            raise ValueError("must not be empty")
        return value

    @field_validator("jwks_url")
    @classmethod
    def _check_key_set(cls, value: str | None) -> str | None:
        if value is None:
            return value
        parts = urlsplit(value)
        if "@" in parts.netloc:
            raise ValueError("must not hold a user name or password")
        allowed = {
            "https": bool(parts.hostname),
            "file": bool(parts.path) and parts.netloc in ("", "localhost"),
            "http": is_loopback(parts.hostname or ""),
        }
        if not allowed.get(parts.scheme, False):
            raise ValueError("must be https://HOST/…, file:///PATH, or http:// on loopback")
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, values: list[str]) -> list[str]:
        for value in values:
            if not _ORIGIN.fullmatch(value):
                raise ValueError(f"{value!r} is not an origin such as https://app.example (lower case, no path, no *)")
        return values
