"""Tokens: who is asking, and for which tenant.

Owns the making of tokens (`sub`, `tenant`, `exp`) and their judging where the engine does not do it: without a key
everybody is everything to the engine, but one tenant's data are not another's, so in development mode tokens are signed
with a key that the application keeps in its database, and judged here, by the same rules as the engine's. With
`jwt_secret` they are the engine's tokens; with an issuer's key only the issuer makes them.

Must never know of passwords.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from typing import NamedTuple

import jwt
from pydantic import SecretStr

from config.settings import Settings
from handlers.answers import Refused, missing_grant, missing_token
from handlers.endpoints import Call
from handlers.streams import StreamCall
from server.auth import PARAMETER, Authenticator, AuthError
from server.exchange import Request
from server.revocations import Revocations
from server.rights import ANONYMOUS, Principal

STREAM_PARAMETER = "token"
SUBJECT = "monitors-"  # before a user's number: another application's subjects are not ours
KEY_BYTES = 32
_TENANT = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)
_MARK = "token "


@dataclass(frozen=True, slots=True)
class _OwnKey:
    """The settings of authentication, with the application's own key."""

    jwt_secret: SecretStr
    jwt_algorithm: str = "HS256"
    jwt_public_key: None = None
    jwks_url: None = None
    jwt_issuer: None = None
    jwt_audience: None = None
    jwt_leeway_seconds: float = 0.0
    query_token: bool = True
    allowed_origins: tuple[str, ...] = ()


class Token(NamedTuple):
    """A token, and until when it holds, in unix seconds."""

    text: str
    expires: int


class Tokens:
    """`own_key` is asked for in development mode alone; `revocations` are those of all tokens."""

    def __init__(self, settings: Settings, revocations: Revocations) -> None:
        self._settings = settings
        self._revocations = revocations
        self._own: Authenticator | None = None
        self._secret = settings.jwt_secret

    @property
    def makes(self) -> bool:
        """True if this server makes tokens, and so keeps accounts."""
        return self._settings.development or self._settings.jwt_secret is not None

    def use_own_key(self, key: bytes) -> None:
        """Development mode: sign and judge with this key."""
        self._secret = SecretStr(key.hex())
        self._own = Authenticator(_OwnKey(self._secret))
        self._own.revocations = self._revocations

    def make(self, user: int, tenant: int) -> Token:
        """A token of a user."""
        settings = self._settings
        assert self._secret is not None, "start has not been called"
        expires = int(time.time() + settings.monitors_token_seconds)
        claims: dict[str, object] = {
            "sub": subject_of(user),
            "tenant": tenant,
            "iat": int(time.time()),
            "exp": expires,
            "jti": secrets.token_hex(12),
        }
        if not settings.development:
            also = {"iss": settings.jwt_issuer, "aud": settings.jwt_audience}
            claims |= {name: value for name, value in also.items() if value is not None}
        algorithm = "HS256" if settings.development else settings.jwt_algorithm
        return Token(jwt.encode(claims, self._secret.get_secret_value(), algorithm), expires)

    def signed_in(self, call: Call) -> None:
        """Access to an endpoint: for holders of a token that names a tenant. From here on the call's principal is the
        token's. Raises Refused."""
        call.principal = self._principal(call.request, call.principal, PARAMETER)

    def of_stream(self, call: StreamCall) -> Principal:
        """Who asks for a stream. Raises Refused."""
        return self._principal(call.request, call.principal, STREAM_PARAMETER)

    def _principal(self, request: Request, principal: Principal, parameter: str) -> Principal:
        if self._own is not None:
            try:
                principal = self._own.authenticate(request, parameter)
            except AuthError as error:
                raise Refused(error.ending, error.field, error.reason, challenge=error.challenge) from None
        if principal is ANONYMOUS:
            raise missing_token()
        tenant_of(principal)
        return principal


def tenant_of(principal: Principal) -> int:
    """The number of the tenant that a token is for. Raises Refused."""
    if _TENANT.fullmatch(principal.tenant) is None:
        raise missing_grant("the token names no tenant")
    return int(principal.tenant)


def subject_of(user: int) -> str:
    """The `sub` of a user's tokens."""
    return f"{SUBJECT}{user}"


def user_of(principal: Principal) -> int:
    """The number of the user whose token it is. Raises Refused for a token that no login made."""
    number = principal.subject.removeprefix(SUBJECT)
    if not principal.subject.startswith(SUBJECT) or _TENANT.fullmatch(number) is None:
        raise missing_grant("the token is not of a login here")
    return int(number)


def token_id_of(principal: Principal) -> str:
    """What this one token can be revoked by. Raises Refused if by nothing."""
    for mark in principal.marks:
        if mark.startswith(_MARK):
            return mark.removeprefix(_MARK)
    raise missing_grant("the token has no id")
