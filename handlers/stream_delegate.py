"""Requests that leave Tornado as soon as their head has been read: streams (later requests of a kept-alive connection,
and those whose admission takes waiting), and requests whose head is enough to refuse them.

Owns the moment at which a connection leaves Tornado: before anything behind the head is looked at, so a request that
follows a stream on the same connection is never obeyed, and no body is held for who may not send one. From there on a
stream is the same as at the front door: the same surface, the same opening, answers in the same bytes. Must never
decide anything by itself.

Invariant: the descriptor is the opener's, or an HTTP connection's, or closed, whatever happens on the way. Leaving
takes no second descriptor: there may be none to spare.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import Awaitable
from typing import Any

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream

from handlers.answers import bad
from handlers.http_connections import HttpConnections, answer_bytes, write_and_close
from handlers.incoming import request_of
from handlers.surface import StreamSurface
from server.channel import Start
from server.door import SURPLUS
from server.exchange import Request, Response
from server.logs import get_logger
from server.opening import Opener, Subscription

log = get_logger("stream")

_LENGTH = re.compile("0*([0-9]+)", re.ASCII)
_MAX_LENGTH_DIGITS = 18


class StreamDelegate(HTTPMessageDelegate):
    """Takes a request for a stream (GET, or HEAD for its head) off its connection, and one that is refused by its head;
    leaves any other to `other`."""

    def __init__(
        self,
        surface: StreamSurface,
        opener: Opener,
        connections: HttpConnections,
        connection: HTTPConnection,
        other: HTTPMessageDelegate,
    ) -> None:
        self._surface = surface
        self._opener = opener
        self._connections = connections
        self._connection: Any = connection  # Tornado's HTTP1Connection, of which the base class knows less
        self._other = other

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """Decide by the head."""
        assert isinstance(start_line, RequestStartLine)
        self._connections.at_work(self._connection.stream)
        request = request_of(HTTPServerRequest(connection=self._connection, start_line=start_line, headers=headers))
        if request.method in ("GET", "HEAD") and self._surface.is_stream(request.path):
            self._take(request, has_body="Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0")
            return None
        refusal = self._surface.unwelcome(request, declared_bytes(headers.get("Content-Length", "")))
        if refusal is not None:
            self._connections.turn_away(self._connection.detach(), refusal, request)
            return None
        return self._other.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._other.data_received(chunk)

    def finish(self) -> None:
        self._other.finish()

    def on_connection_close(self) -> None:
        self._other.on_connection_close()

    def _take(self, request: Request, *, has_body: bool) -> None:
        fd, surplus = _released(self._connection.detach())
        if fd >= 0:
            self._connections.enter(self)  # in place of the stream, until there is a reader
            self._surface.keep(self._serve(fd, request, unwanted=surplus or has_body))

    async def _serve(self, fd: int, request: Request, *, unwanted: bool) -> None:
        try:
            answer = await self._admit(request)
            if unwanted and not isinstance(answer, Response):
                answer = self._surface.refuse(bad("", SURPLUS.decode()), request)
            own, fd = fd, -1  # whoever is called next owns it, and closes it if need be
            if isinstance(answer, Response):
                write_and_close(own, answer_bytes(answer, request))
            elif request.method == "HEAD":
                write_and_close(own, self._opener.head(*answer))
            else:
                self._opener.open(own, *answer)
        except Exception:
            log.exception("request_failed", path=request.path)
        finally:
            if fd >= 0:
                os.close(fd)
            self._connections.leave(self)

    async def _admit(self, request: Request) -> tuple[Subscription, Start] | Response:
        answer = await self._surface.subscribe_later(request)
        if isinstance(answer, Response):
            return answer
        start = self._opener.locate(answer) or await self._surface.find(self._opener, answer, request)
        return start if isinstance(start, Response) else (answer, start)


def declared_bytes(content_length: str) -> int:
    """What the header says; 0 if it says nothing, or no number: Tornado answers that."""
    found = _LENGTH.fullmatch(content_length)
    if found is None:
        return 0
    return int(found[1]) if len(found[1]) <= _MAX_LENGTH_DIGITS else sys.maxsize


def _released(stream: IOStream) -> tuple[int, bool]:
    """The stream's descriptor (-1 if the client is gone), and whether more bytes came after the head."""
    if stream.closed():
        return -1, False
    more = asyncio.ensure_future(stream.read_bytes(1, partial=True))
    more.add_done_callback(lambda done: done.exception())  # closing the stream ends it with one
    if stream.closed():
        return -1, False
    sock, surplus = stream.socket, more.done()
    if sock.family != socket.AF_UNIX:
        stream.set_nodelay(True)  # Tornado turns it off between two requests
    stream.io_loop.remove_handler(sock)
    fd = sock.detach()
    stream.close()  # all but the socket
    return fd, surplus
