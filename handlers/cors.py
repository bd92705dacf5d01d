"""Origins: which web pages may use this server from another origin.

Owns the allow-list and the headers that go with it. Exact comparison, no patterns, nothing reflected. Must never know
of tokens.
"""

from __future__ import annotations

from collections.abc import Iterable

from handlers.answers import Refused
from server.endings import FORBIDDEN
from server.exchange import Request
from server.opening import EXPOSED

PREFLIGHT = [
    ("Access-Control-Allow-Methods", "GET, HEAD, POST"),
    ("Access-Control-Allow-Headers", "Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID"),
    ("Access-Control-Max-Age", "600"),
]


class Origins:
    """The allow-list."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(allowed)

    def check(self, request: Request) -> str | None:
        """The allowed origin to name in the answer; None for no origin or the server's own. Raises Refused for any
        other."""
        origin = request.headers.get(b"origin")
        if origin is None:
            return None
        text = origin.decode("latin-1")
        if text in self._allowed:
            return text
        host = request.headers.get(b"host", b"").decode("latin-1")
        if host and text in (f"http://{host}", f"https://{host}"):
            return None
        raise Refused(FORBIDDEN, "Origin", "this origin is not allowed")

    def headers(self, request: Request) -> list[tuple[str, str]]:
        """CORS headers for any answer to the request, error or not."""
        headers = [("Vary", "Origin, Authorization, Cookie")]
        origin = request.headers.get(b"origin", b"").decode("latin-1")
        if origin in self._allowed:
            headers += [
                ("Access-Control-Allow-Origin", origin),
                ("Access-Control-Allow-Credentials", "true"),
                ("Access-Control-Expose-Headers", EXPOSED),
            ]
        return headers
