"""Origins: which web pages may use this server.

Owns the allow-list and the headers that go with it, and, in development mode, under which names the server may be
asked. Exact comparison, no patterns, nothing reflected. Must never know of tokens.

A browser sends `Origin` with what a script may read, and not with what a page merely shows (an image, a frame): there
`Sec-Fetch-Site` tells that another site asks, with the visitor's cookie and for a stream that nobody reads.

Why names matter: a page whose own name its owner has pointed at 127.0.0.1 reaches this server in the visitor's browser
as its "own" origin (DNS rebinding). Where nobody needs a token, only `Host` gives such a page away. Cost: a cached
look-up of its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from config.loopback import is_loopback
from handlers.answers import Refused
from server.endings import FORBIDDEN
from server.exchange import Request
from server.opening import EXPOSED

PREFLIGHT = [
    ("Access-Control-Allow-Methods", "GET, HEAD, POST"),
    ("Access-Control-Allow-Headers", "Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID"),
    ("Access-Control-Max-Age", "600"),
]
# What a script may read of an answer that is no stream.
EXPOSED_ANSWERS = "Age, Location, Retry-After, X-Cache"
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]*)?")
_LOCAL_ONLY = "without a key the server answers to loopback addresses, localhost and *.localhost alone"


@lru_cache(256)
def _means_this_machine(host: bytes) -> bool:
    """True for a `Host` that leads back to the machine on which it was asked for, whatever its port."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1].decode().lower()
    return name.endswith(".localhost") or is_loopback(name)


class Origins:
    """The allow-list. In `development` mode, where nobody needs a token, it also checks the server's name."""

    def __init__(self, allowed: Iterable[str], *, development: bool = False) -> None:
        self._allowed = frozenset(allowed)
        self._development = development

    def check_host(self, request: Request) -> None:
        """Raise Refused if the request was made to a name that may be anybody's. (No browser leaves `Host` out.)"""
        if self._development:
            host = request.headers.get(b"host")
            if host is not None and not _means_this_machine(host):
                raise Refused(FORBIDDEN, "Host", _LOCAL_ONLY)

    def check(self, request: Request) -> str | None:
        """The allowed origin to name in the answer; None for no origin or the server's own. Raises Refused for any
        other."""
        self.check_host(request)
        origin = request.headers.get(b"origin")
        if origin is None:
            if request.headers.get(b"sec-fetch-site") == b"cross-site":
                raise Refused(FORBIDDEN, "Origin", "a page of another site has to show its origin")
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
                ("Access-Control-Expose-Headers", f"{EXPOSED}, {EXPOSED_ANSWERS}"),
            ]
        return headers
