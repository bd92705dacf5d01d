"""Streams that come to Tornado: later requests of a kept-alive connection, and those whose admission takes waiting.

Owns the moment at which a connection leaves Tornado: as soon as the head has been read, before anything behind it is
looked at, so a request that follows a stream on the same connection is never obeyed. From there on it is the same as at
the front door: the same surface, the same opening, answers in the same bytes. Must never decide anything by itself.

Invariant: the descriptor is either a reader's or closed, whatever happens on the way.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)

from handlers.answers import bad
from handlers.incoming import request_of
from handlers.surface import StreamSurface
from server.channel import Start
from server.door import SURPLUS
from server.exchange import Request, Response
from server.heads import response_bytes
from server.logs import get_logger
from server.opening import Opener, Subscription

log = get_logger("stream")


class StreamDelegate(HTTPMessageDelegate):
    """Takes a request for a stream (GET, or HEAD for its head) off its connection; leaves any other to `other`."""

    def __init__(
        self, surface: StreamSurface, opener: Opener, connection: HTTPConnection, other: HTTPMessageDelegate
    ) -> None:
        self._surface = surface
        self._opener = opener
        self._connection = connection
        self._other = other

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """Decide by the head."""
        assert isinstance(start_line, RequestStartLine)
        path = start_line.path.partition("?")[0]
        if start_line.method not in ("GET", "HEAD") or not self._surface.is_stream(path):
            return self._other.headers_received(start_line, headers)
        request = request_of(HTTPServerRequest(connection=self._connection, start_line=start_line, headers=headers))
        has_body = "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"
        fd, surplus = self._take_connection()
        if fd >= 0:
            self._surface.keep(self._serve(fd, request, unwanted=surplus or has_body))
        return None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._other.data_received(chunk)

    def finish(self) -> None:
        self._other.finish()

    def on_connection_close(self) -> None:
        self._other.on_connection_close()

    def _take_connection(self) -> tuple[int, bool]:
        """The connection's own descriptor (-1 if the client is gone), and whether more bytes came after the head."""
        stream = self._connection.detach()  # type: ignore[attr-defined]
        if stream.closed():
            return -1, False
        more = asyncio.ensure_future(stream.read_bytes(1, partial=True))
        surplus = more.done()
        more.add_done_callback(lambda done: done.exception())  # closing the stream ends it with one
        fd = os.dup(stream.socket.fileno())
        if stream.socket.family != socket.AF_UNIX:
            stream.set_nodelay(True)  # Tornado turns it off between two requests
        stream.close()
        return fd, surplus

    async def _serve(self, fd: int, request: Request, *, unwanted: bool) -> None:
        try:
            answer = await self._admit(request)
            if unwanted and not isinstance(answer, Response):
                answer = self._surface.refuse(bad("", SURPLUS.decode()), request)
            if request.method == "HEAD":
                data = self._opener.head(*answer) if not isinstance(answer, Response) else _head_of(answer, request)
                _write_and_close(fd, data)
            elif isinstance(answer, Response):
                _write_and_close(fd, response_bytes(answer, close=True, http_1_0=request.http_1_0))
            else:
                self._opener.open(fd, *answer)
        except Exception:
            log.exception("request_failed", path=request.path)
            os.close(fd)

    async def _admit(self, request: Request) -> tuple[Subscription, Start] | Response:
        answer = await self._surface.subscribe_later(request)
        if isinstance(answer, Response):
            return answer
        start = self._opener.locate(answer) or await self._surface.find(self._opener, answer, request)
        return start if isinstance(start, Response) else (answer, start)


def _head_of(answer: Response, request: Request) -> bytes:
    return response_bytes(answer, close=True, http_1_0=request.http_1_0).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def _write_and_close(fd: int, data: bytes) -> None:
    """Write what the socket takes at once, and close it."""
    try:
        os.write(fd, data)
    except OSError:
        pass  # the client is gone
    os.close(fd)
