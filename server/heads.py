"""Heads: the request line and header fields at the front door, and whole responses as bytes.

Owns parsing with llhttp (httptools) and the plain response format. Must never know of sockets or paths. Anything out of
the ordinary (an upgrade, a transfer coding, `Expect`, a syntax error) is None or `unusual`: Tornado deals with it.
Cost: one parser object and one call per header field, about 6 microseconds for curl's head, 12 for a browser's.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from http import HTTPStatus
from http.client import responses

import httptools

from server.exchange import Request, Response

NO_CONTENT = int(HTTPStatus.NO_CONTENT)
_SINGLE = frozenset({b"host", b"content-length"})
_HOST = re.compile(rb"[A-Za-z0-9._\-:\[\]]*")
_UNUSUAL = frozenset({b"transfer-encoding", b"upgrade", b"expect", b"content-encoding", b"trailer"})


class Head:
    """A parsed request head."""

    __slots__ = ("content_length", "headers", "http_1_0", "keep_alive", "method", "path", "query", "target", "unusual")

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.target = b""
        self.path = self.query = ""
        self.method = ""
        self.http_1_0 = False
        self.keep_alive = True
        self.content_length = -1
        self.unusual = False

    # Called by httptools.
    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        value = value.rstrip(b" \t")  # llhttp leaves white space at the end
        headers = self.headers
        if name in headers:
            if name in _SINGLE:
                self.unusual = True
            headers[name] = headers[name] + b", " + value
        else:
            headers[name] = value

    def request(self, remote: str, body: bytes = b"") -> Request:
        """The request as handlers take it."""
        return Request(self.method, self.path, self.query, self.headers, remote, body, self.http_1_0)


def parse_head(data: bytes) -> Head | None:
    """The head of a request; None if it is malformed or not HTTP/1.0 or 1.1."""
    head = Head()
    parser = httptools.HttpRequestParser(head)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    version = parser.get_http_version()
    if version != "1.1":
        if version != "1.0":
            return None
        head.http_1_0 = True
    target = head.target.decode("latin-1")
    if target[0] != "/":
        return None
    head.path, _, head.query = target.partition("?")
    head.method = parser.get_method().decode("ascii")
    headers = head.headers
    # Not the parser's should_keep_alive(): it forgets the answer once a message without a body is complete.
    options = headers.get(b"connection", b"").lower().replace(b" ", b"").split(b",")
    head.keep_alive = b"keep-alive" in options if head.http_1_0 else b"close" not in options
    host = headers.get(b"host")
    if (
        not headers.keys().isdisjoint(_UNUSUAL)
        or (host is None and not head.http_1_0)
        or (host is not None and _HOST.fullmatch(host) is None)
    ):
        head.unusual = True
    length = headers.get(b"content-length")
    if length is not None:
        if not length.isdigit() or len(length) > 9:
            return None
        head.content_length = int(length)
    return head


_date = (0, "")


def http_date() -> str:
    """The present as an HTTP date, made once a second."""
    global _date
    second = int(time.time())
    if second != _date[0]:
        _date = (second, formatdate(second, usegmt=True))
    return _date[1]


def response_bytes(response: Response, *, close: bool, http_1_0: bool) -> bytes:
    """A whole response."""
    status = response.status
    extra = "".join([f"{name}: {value}\r\n" for name, value in response.headers])
    if status != NO_CONTENT:
        extra = f"Content-Type: {response.content_type}\r\nContent-Length: {len(response.body)}\r\n{extra}"
    if close:
        extra += "Connection: close\r\n"
    elif http_1_0:
        extra += "Connection: keep-alive\r\n"
    head = f"HTTP/1.1 {status} {responses.get(status, '')}\r\n{extra}Date: {http_date()}\r\n\r\n"
    return head.encode("latin-1") + response.body
