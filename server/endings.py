"""Endings: why a stream ends or a request is refused, as values in one table.

Owns the codes, their HTTP status for API clients, whether a client should come back and after how long. Wire, logs,
metrics and docs all read this table. Must never know of sockets. Cost: nothing per reader.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ending:
    """A reason to end. `retry_ms` is the (low, high) range of the jittered `retry:`, for clients that should come
    back."""

    code: str
    status: int
    reason: str
    reconnect: bool
    retry_ms: tuple[int, int] = (0, 0)

    def jittered_retry_ms(self) -> int:
        """A delay drawn evenly from the range, in milliseconds."""
        low, high = self.retry_ms
        return random.randint(low, high)

    def farewell(self, retry_ms: int | None = None) -> bytes:
        """The last block of a stream that ends for this reason, not yet framed for transfer."""
        facts = f'{{"code":"{self.code}","reason":"{self.reason}","reconnect":{str(self.reconnect).lower()}}}'
        body = f"event: {self.code}\ndata: {facts}\n\n"
        if self.reconnect:
            body = f"retry: {self.jittered_retry_ms() if retry_ms is None else retry_ms}\n{body}"
        return body.encode()


OVERLOADED = Ending("overloaded", 503, "this node is full", True, (5_000, 20_000))
TOO_MANY = Ending("too_many", 429, "too many connections from this address or token", True, (10_000, 30_000))
RATE_LIMITED = Ending("rate_limited", 429, "too many new connections", True, (2_000, 10_000))
DRAINING = Ending("draining", 503, "this node is shutting down", True, (500, 5_000))
UNAVAILABLE = Ending("unavailable", 503, "the event log does not answer", True, (2_000, 10_000))
UNCERTAIN = Ending("uncertain", 504, "the event log did not answer in time", True, (1_000, 5_000))
MAX_AGE = Ending("max_age", 503, "the connection reached its age", True, (100, 2_000))
IDLE = Ending("idle", 503, "no event for too long", True, (1_000, 5_000))
SLOW = Ending("slow", 503, "the client reads too slowly", True, (1_000, 5_000))
AUTH_EXPIRED = Ending("auth_expired", 401, "the token has expired", False)
REVOKED = Ending("revoked", 401, "the rights to this stream have been revoked", False)
FINISHED = Ending("finished", 204, "there will be no more events", False)
UNAUTHORIZED = Ending("unauthorized", 401, "a valid token is needed", False)
FORBIDDEN = Ending("forbidden", 403, "not allowed", False)
NOT_FOUND = Ending("not_found", 404, "there is no such thing here", False)
BAD_REQUEST = Ending("bad_request", 400, "the request is not valid", False)

ENDINGS = {
    ending.code: ending
    for ending in (
        OVERLOADED, TOO_MANY, RATE_LIMITED, DRAINING, UNAVAILABLE, UNCERTAIN, MAX_AGE, IDLE, SLOW,
        AUTH_EXPIRED, REVOKED, FINISHED, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, BAD_REQUEST,
    )
}  # fmt: skip

# Names that only the server may put in `event:`.
CONTROL_EVENTS = frozenset(ENDINGS) | {"hello", "gap", "heartbeat"}
