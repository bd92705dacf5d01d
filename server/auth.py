"""Authentication: from a request to a principal.

Owns where a token may stand in a request, what is answered if it is not a good one, and the memory of tokens already
judged. Must never know what the rights are for. A token, and what a library says of it, never leaves this module: not
in an error, not in a log line.

Invariants: one answer for every kind of bad token; the kind is only logged, and at most once in ten seconds for each,
so that a flood of forged tokens floods nothing else. A remembered verdict is checked against the clock each time, and
forgotten when the keys change.
Cost: 5 us for a token seen before, good or bad; 50 to 300 us for a new one. Both memories are bounded: 16,384 good and
4,096 bad tokens, as their hashes.
Sources: RFC 6750 (bearer tokens), Mercure draft-07, "Authorization".
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import NoReturn, Protocol, TypeVar
from urllib.parse import unquote_plus, urlsplit

from config.loopback import is_loopback
from server.endings import BAD_REQUEST, FORBIDDEN, UNAUTHORIZED, UNAVAILABLE, Ending
from server.exchange import Request
from server.keys import KeySet, KeySettings, KeysUnavailable
from server.logs import get_logger
from server.revocations import TOPIC, Revocations
from server.rights import ANONYMOUS, DEVELOPMENT, InvalidClaims, Principal, Rights, principal_of
from server.tokens import MAX_TOKEN_CHARACTERS, InvalidToken, Rules, checked_expiry, verified_claims

__all__ = ["ANONYMOUS", "DEVELOPMENT", "AuthError", "AuthSettings", "Authenticator", "Principal", "Rights"]

log = get_logger("auth")

COOKIE = "mercureAuthorization"
PARAMETER = "authorization"
MAX_ACCEPTED = 16_384
MAX_REFUSED = 4_096
REFUSAL_SECONDS = 60.0
LOG_INTERVAL_SECONDS = 10.0

_CHALLENGE_INVALID = 'Bearer error="invalid_token"'
_CHALLENGE_MALFORMED = 'Bearer error="invalid_request"'

_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]++=*+)")
_Value = TypeVar("_Value")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class AuthSettings(KeySettings, Protocol):
    """The settings of authentication."""

    @property
    def jwt_issuer(self) -> str | None: ...
    @property
    def jwt_audience(self) -> str | None: ...
    @property
    def jwt_leeway_seconds(self) -> float: ...
    @property
    def query_token(self) -> bool: ...
    @property
    def allowed_origins(self) -> Sequence[str]: ...


class AuthError(Exception):
    """The request is refused. `field` and `reason` are fixed texts, fit for the client.

    `challenge` is the value of WWW-Authenticate.
    """

    def __init__(self, ending: Ending, field: str = "", reason: str = "", challenge: str | None = None) -> None:
        super().__init__(reason or ending.reason)
        self.ending = ending
        self.field = field
        self.reason = reason or ending.reason
        self.challenge = challenge


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A bad token: it is bad from `since` until `until`, in unix seconds. A clock that is set back ends it too."""

    since: float
    until: float


class Authenticator:
    """Judges requests. Raises InvalidKey if a configured key cannot be used.

    `keys.start()` must run before a remote key set can serve. `refusals` counts refusals by kind.
    """

    def __init__(
        self, settings: AuthSettings, clock: Callable[[], float] = time.time, keys: KeySet | None = None
    ) -> None:
        self.keys = keys or KeySet(settings)
        self._clock = clock
        self._rules = Rules(settings.jwt_issuer, settings.jwt_audience, settings.jwt_leeway_seconds)
        self._query_token = settings.query_token
        self._allowed_origins = frozenset(settings.allowed_origins)
        self._generation = self.keys.generation
        self._accepted: OrderedDict[bytes, Principal] = OrderedDict()
        self._refused: OrderedDict[bytes, _Verdict] = OrderedDict()
        self.revocations = Revocations()
        self.refusals: dict[str, int] = {}
        self._logged: dict[str, float] = {}

    def authenticate(self, request: Request, parameter: str = PARAMETER) -> Principal:
        """Who is asking: DEVELOPMENT if no key is configured, ANONYMOUS without a token. Never waits. `parameter` is
        the name that a token in the query has.

        Raises AuthError. Whether ANONYMOUS will do is the caller's to say: it is a policy of each channel.
        """
        if not self.keys.configured:
            # Whoever comes from elsewhere came through something that should not be there.
            return DEVELOPMENT if not request.remote or is_loopback(request.remote) else ANONYMOUS
        token = self._token(request, parameter)
        if token is None:
            return ANONYMOUS
        principal = self._principal(token)
        self.check_revoked(principal.marks)
        return principal

    def check_revoked(self, marks: Sequence[str]) -> None:
        """Raise AuthError for one who carries these, if that is revoked by now."""
        if self.revocations.holds(marks, self._clock()):
            self._note("revoked")
            raise _invalid()

    def is_closed(self, topic: str) -> bool:
        """True if nobody may ask for this topic by name now."""
        return self.revocations.holds((f"{TOPIC} {topic}",), self._clock())

    def _token(self, request: Request, parameter: str) -> str | None:
        header = request.header(b"authorization")
        if header is not None:
            found = _BEARER.fullmatch(header) if len(header) <= MAX_TOKEN_CHARACTERS + 16 else None
            if found is None:
                self._bad_request("Authorization", "must be one bearer token of at most 8192 characters")
            return found[1]
        token = _cookie(request.header(b"cookie"))
        if token is not None:
            if request.method not in _SAFE_METHODS:
                self._check_origin(request)
            return token
        return self._parameter(request.query, parameter) if self._query_token else None

    def _parameter(self, query: str, parameter: str) -> str | None:
        if parameter not in query and "%" not in query:
            return None
        pairs = (pair.partition("=") for pair in query.split("&"))
        values = [value for name, _, value in pairs if _is_parameter(name, parameter)]
        if len(values) > 1:
            self._bad_request(parameter, "must come once")
        return unquote_plus(values[0]) or None if values else None

    def _check_origin(self, request: Request) -> None:
        """A cookie goes along whichever page made the browser post, so the page must be one of the allowed."""
        origin = request.header(b"origin")
        if origin is None:
            origin = _origin_of(request.header(b"referer") or "")
        if origin not in self._allowed_origins:
            self._note("origin")
            raise AuthError(FORBIDDEN, "Origin", "a cookie is accepted from allowed origins only")

    def _principal(self, token: str) -> Principal:
        if len(token) > MAX_TOKEN_CHARACTERS:
            self._bad_request("token", "must be at most 8192 characters")
        if self._generation != self.keys.generation:
            self._generation = self.keys.generation
            self._accepted.clear()
            self._refused.clear()
        now = self._clock()
        digest = sha256(token.encode("utf-8", "replace")).digest()
        principal = self._accepted.get(digest)
        if principal is not None and (principal.expires is None or now < principal.expires):
            self._accepted.move_to_end(digest)
            return principal
        verdict = self._refused.get(digest)
        if verdict is not None and verdict.since <= now < verdict.until:
            raise _invalid()
        return self._judge(token, digest, now)

    def _judge(self, token: str, digest: bytes, now: float) -> Principal:
        self._accepted.pop(digest, None)
        try:
            claims = verified_claims(token, self.keys)
            fingerprint = blake2b(token.encode(), digest_size=16).hexdigest()
            principal = principal_of(claims, checked_expiry(claims, self._rules, now), fingerprint)
        except KeysUnavailable:
            self._note("keys unavailable")
            raise AuthError(UNAVAILABLE, reason="the keys of the token issuer are not available yet") from None
        except (InvalidToken, InvalidClaims) as error:
            self._refuse(digest, error, now)
        _remember(self._accepted, digest, principal, MAX_ACCEPTED)
        return principal

    def _refuse(self, digest: bytes, error: InvalidToken | InvalidClaims, now: float) -> NoReturn:
        valid_from = error.valid_from if isinstance(error, InvalidToken) else None
        until = now + REFUSAL_SECONDS if valid_from is None else min(now + REFUSAL_SECONDS, valid_from)
        _remember(self._refused, digest, _Verdict(now, until), MAX_REFUSED)
        self._note(error.reason)
        raise _invalid() from None

    def _bad_request(self, field: str, reason: str) -> NoReturn:
        self._note("presentation")
        raise AuthError(BAD_REQUEST, field, reason, _CHALLENGE_MALFORMED)

    def _note(self, reason: str) -> None:
        """Count a refusal; log it if this kind was not logged lately. The reasons are a fixed set."""
        count = self.refusals[reason] = self.refusals.get(reason, 0) + 1
        now = time.monotonic()
        if now >= self._logged.get(reason, 0.0):
            self._logged[reason] = now + LOG_INTERVAL_SECONDS
            log.info("token_refused", reason=reason, count=count)


def _invalid() -> AuthError:
    return AuthError(UNAUTHORIZED, challenge=_CHALLENGE_INVALID)


def _remember(memory: OrderedDict[bytes, _Value], digest: bytes, value: _Value, limit: int) -> None:
    memory[digest] = value
    if len(memory) > limit:
        memory.popitem(last=False)


def _cookie(header: str | None) -> str | None:
    """The token in a Cookie header. An emptied cookie is none. Of several the first counts: its path is the longest."""
    if header is None or COOKIE not in header:
        return None
    for pair in header.split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE:
            return value.strip('"') or None
    return None


def _is_parameter(name: str, parameter: str) -> bool:
    return name == parameter or ("%" in name and unquote_plus(name) == parameter)


def _origin_of(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}".lower()
