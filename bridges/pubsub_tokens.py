"""The tokens of Pub/Sub's pushes: that Google made them, for this server, and for the account that may push.

Owns the rules for such a token. The strict reading of tokens is server/tokens.py's, their issuer's keys and the renewal
of these are server/keys.py's. Must never know what is pushed.

Invariants: RS256 alone, whatever the token or the issuer's key set says; without an end, or without a verified email,
there is no right. One answer for every kind of bad token; the kind is only logged, and at most once in ten seconds.
Cost: about 60 us for each push: the signature is verified each time.
Sources: OpenID Connect Core 1.0, section 3.1.3.7; Pub/Sub's documentation of authenticated pushes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from bridges.pubsub import Pusher
from handlers.answers import Refused, missing_grant, missing_token
from server.endings import UNAUTHORIZED, UNAVAILABLE
from server.exchange import Request
from server.keys import KeySet, KeysUnavailable, SigningKey
from server.logs import get_logger
from server.tokens import InvalidToken, Rules, checked_expiry, verified_claims

ALGORITHM = "RS256"
FETCH_INTERVAL_SECONDS = 10.0  # a push that is refused meanwhile comes again
LOG_INTERVAL_SECONDS = 10.0
LEEWAY_SECONDS = 10.0  # Google's clock and this machine's

log = get_logger("bridge")


@dataclass(frozen=True, slots=True)
class _IssuersKeys:
    """Keys of the issuer, and no others."""

    jwks_url: str
    jwt_secret: None = None
    jwt_algorithm: str = ALGORITHM
    jwt_public_key: None = None


class PushTokens:
    """Judges pushes. Raises InvalidKey for an address of keys that can't be. `start` fetches them."""

    def __init__(self, bridge: str, pusher: Pusher, clock: Callable[[], float] = time.time) -> None:
        self.keys = KeySet(_IssuersKeys(pusher.jwks_url), fetch_interval_seconds=FETCH_INTERVAL_SECONDS)
        self._bridge = bridge
        self._email = pusher.email
        self._rules = Rules(pusher.issuer, pusher.audience, LEEWAY_SECONDS)
        self._clock = clock
        self._told = float("-inf")

    def find(self, key_id: str | None, algorithm: str) -> SigningKey | None:
        """A key that a push may be signed with. Raises KeysUnavailable."""
        return self.keys.find(key_id, algorithm) if algorithm == ALGORITHM else None

    def check(self, request: Request) -> None:
        """Raise Refused unless the one who may push is asking."""
        header = request.header(b"authorization")
        if header is None:
            self._note("no token")
            raise missing_token()
        scheme, _, token = header.partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise InvalidToken("scheme")
            claims = verified_claims(token.strip(), self)
            if checked_expiry(claims, self._rules, self._clock()) is None:
                raise InvalidToken("no expiry")
        except InvalidToken as error:
            self._refuse(error.reason)
        except KeysUnavailable:
            raise Refused(UNAVAILABLE, reason="the keys of the token's issuer have not come yet") from None
        if claims.get("email") != self._email or claims.get("email_verified") is not True:
            self._note("email")
            raise missing_grant("the token is not of the account that may push")

    def _refuse(self, reason: str) -> NoReturn:
        self._note(reason)
        raise Refused(UNAUTHORIZED, challenge='Bearer error="invalid_token"') from None

    def _note(self, reason: str) -> None:
        now = self._clock()
        if abs(now - self._told) >= LOG_INTERVAL_SECONDS:
            self._told = now
            log.warning("push_refused", bridge=self._bridge, reason=reason)
