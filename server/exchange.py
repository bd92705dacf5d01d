"""Requests and responses as plain values, whichever way they came in (front door or Tornado).

Owns the two value types between transport and handlers. Must never know of sockets or of Tornado. Header names are
lower-case bytes; a header that came more than once is joined with ", " as RFC 9110 section 5.3 allows (for
`Authorization` the result is malformed, as it should be). Cost: one of each per request, none per event.
"""

from __future__ import annotations

from dataclasses import dataclass, field

JSON_TYPE = "application/json"


@dataclass(slots=True)
class Request:
    """One HTTP request. `path` and `query` are undecoded; `remote` is the peer's address ("" on a Unix socket)."""

    method: str
    path: str
    query: str
    headers: dict[bytes, bytes]
    remote: str
    body: bytes = b""
    http_1_0: bool = False

    def header(self, name: bytes) -> str | None:
        """A header's value with its bytes as latin-1 characters, or None."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


@dataclass(slots=True)
class Response:
    """One whole HTTP answer (streams never take this form)."""

    status: int
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: list[tuple[str, str]] = field(default_factory=list)
