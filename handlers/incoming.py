"""Tornado's requests as this project's values.

Owns the translation, and nothing else.
"""

from __future__ import annotations

from tornado.httputil import HTTPServerRequest

from server.exchange import Request


def request_of(request: HTTPServerRequest, body: bytes = b"") -> Request:
    """The request as a plain value, with the given body."""
    headers: dict[bytes, bytes] = {}
    for name, text in request.headers.get_all():
        key, value = name.lower().encode("latin-1", "replace"), text.encode("latin-1", "replace")
        headers[key] = headers[key] + b", " + value if key in headers else value
    # On a Unix socket Tornado gives "0.0.0.0" for the peer.
    remote = "" if request.remote_ip in (None, "0.0.0.0") else str(request.remote_ip)
    return Request(
        str(request.method), request.path, request.query, headers, remote, body, request.version == "HTTP/1.0"
    )
