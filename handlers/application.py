"""The Tornado application: everything over HTTP that the front door does not answer by itself.

Owns routing, and the translation between Tornado's requests and this project's values. Must never decide anything that
the front door decides too: both ask the same `StreamSurface`, and a stream that comes this way ends as the same kind of
reader.

Invariants: no request line, query or token reaches a log; every error is JSON with a code and a reason; a stream leaves
Tornado before its first byte.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from http import HTTPStatus
from http.client import responses
from typing import Any, ClassVar

import tornado.web
from tornado.routing import URLSpec

from handlers.answers import COMMON_HEADERS, Refused, bad, dumps
from handlers.console import CONSOLE_FILES, console_file
from handlers.cors import PREFLIGHT
from handlers.surface import StreamSurface
from handlers.vitals import Vitals
from server.channel import Start
from server.door import SURPLUS
from server.exchange import Request, Response
from server.heads import response_bytes
from server.logs import get_logger
from server.node import Node
from server.opening import Subscription

log = get_logger("http")


def request_of(handler: tornado.web.RequestHandler) -> Request:
    """The request as a plain value."""
    request = handler.request
    headers: dict[bytes, bytes] = {}
    for name, value in request.headers.get_all():
        key = name.lower().encode("latin-1", "replace")
        headers[key] = (
            headers[key] + b", " + value.encode("latin-1", "replace")
            if key in headers
            else value.encode("latin-1", "replace")
        )
    # On a Unix socket Tornado gives "0.0.0.0" for the peer.
    remote = "" if request.remote_ip in (None, "0.0.0.0") else str(request.remote_ip)
    return Request(
        str(request.method), request.path, request.query, headers, remote, request.body, request.version == "HTTP/1.0"
    )


class Handler(tornado.web.RequestHandler):
    """What all handlers share."""

    SUPPORTED_METHODS: tuple[str, ...] = ("GET", "HEAD", "POST", "OPTIONS")
    allowed: ClassVar[str] = "GET, HEAD, OPTIONS"

    def initialize(self, surface: StreamSurface, vitals: Vitals, node: Node) -> None:
        self.surface = surface
        self.vitals = vitals
        self.node = node

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.clear_header("Content-Type")

    def answer(self, response: Response) -> None:
        """Send a whole response."""
        self.set_status(response.status)
        if response.status != HTTPStatus.NO_CONTENT:
            self.set_header("Content-Type", response.content_type)
        for name, value in [*self.surface.cors(request_of(self)), *response.headers]:
            self.set_header(name, value)
        self.finish(response.body if response.status != HTTPStatus.NO_CONTENT else None)

    def compute_etag(self) -> None:
        """No ETags: nothing here may be cached."""

    def options(self, *_: str) -> None:
        """CORS preflight; needs no token."""
        request = request_of(self)
        try:
            self.surface.check_origin(request)
        except Refused as refused:
            self.answer(self.surface.refuse(refused, request))
            return
        response = Response(204, headers=[*COMMON_HEADERS, ("Allow", self.allowed), *self.surface.cors(request)])
        if request.headers.get(b"origin"):
            response.headers += PREFLIGHT
        self.answer(response)

    def write_error(self, status_code: int, **_kwargs: Any) -> None:
        """Every error in one form."""
        for name, value in [*COMMON_HEADERS, *self.surface.cors(request_of(self))]:
            self.set_header(name, value)
        self.set_header("Content-Type", "application/json")
        code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(
            status_code, "internal" if status_code >= 500 else "bad_request"
        )
        if status_code == 405:
            self.set_header("Allow", self.allowed)
        self.finish(dumps({"code": code, "reason": responses.get(status_code, "Error")}))

    def log_exception(self, _type: type[BaseException] | None, value: BaseException | None, _trace: Any) -> None:
        """Tornado's own line would hold the request's URL, and so perhaps a token."""
        if isinstance(value, tornado.web.HTTPError):
            return
        log.error("handler_failed", path=self.request.path, exc_info=value)


@tornado.web.stream_request_body
class StreamHandler(Handler):
    """A stream that did not come first on its connection, or whose admission takes waiting; and all publishes that the
    door passes on.

    The body is collected here and not by Tornado, which would answer 400 to one that is too large, and only count it as
    it comes.
    """

    allowed = "GET, HEAD, POST, OPTIONS"

    def prepare(self) -> None:
        self._body = bytearray()
        self._most = self.surface.max_body_bytes
        self.request.connection.set_max_body_size(sys.maxsize)  # type: ignore[union-attr]
        declared = self.request.headers.get("Content-Length", "0")
        if self.request.method == "POST" and declared.isdigit() and int(declared) > self._most:
            self.answer(self.surface.too_large(request_of(self)))

    def data_received(self, chunk: bytes) -> None:
        if len(self._body) + len(chunk) > self._most:
            if not self._finished:
                self.answer(self.surface.too_large(request_of(self)))
            return
        self._body += chunk

    def on_connection_close(self) -> None:
        self._body.clear()

    def _whole_request(self) -> Request:
        request = request_of(self)
        request.body = bytes(self._body)
        return request

    async def post(self, *_: str) -> None:
        answer = self.surface.publish(self._whole_request())
        self.answer(answer if isinstance(answer, Response) else await answer)

    async def get(self, *_: str) -> None:
        opener = self.node.opener
        request = self._whole_request()
        answer = await self._admit(request)
        fd, surplus = self._take_connection()
        if fd < 0:
            return
        if isinstance(answer, Response):
            say_and_close(fd, answer, request)
        elif surplus:
            say_and_close(fd, self.surface.refuse(bad("", SURPLUS.decode()), request), request)
        else:
            opener.open(fd, *answer)

    async def head(self, *_: str) -> None:
        """The head of the stream that a GET would open, byte for byte, and the end."""
        request = self._whole_request()
        answer = await self._admit(request)
        fd = self._take_connection()[0]
        if fd >= 0:
            if isinstance(answer, Response):
                answer.body = b""
                say_and_close(fd, answer, request)
            else:
                write_and_close(fd, self.node.opener.head(*answer))

    async def _admit(self, request: Request) -> tuple[Subscription, Start] | Response:
        answer = await self.surface.subscribe_later(request)
        if isinstance(answer, Response):
            return answer
        if request.body:
            return self.surface.refuse(bad("", SURPLUS.decode()), request)
        start = self.node.opener.locate(answer) or await self.surface.find(self.node.opener, answer, request)
        return start if isinstance(start, Response) else (answer, start)

    def _take_connection(self) -> tuple[int, bool]:
        """The connection's own descriptor (-1 if the client is gone), out of Tornado's hands, and whether more bytes
        came after the request."""
        setattr(self, "_auto_finish", False)  # noqa: B010  # a stream has no end that Tornado could write
        stream = self.detach()
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


def say_and_close(fd: int, response: Response, request: Request) -> None:
    """Answer as the front door does, and end the connection."""
    write_and_close(fd, response_bytes(response, close=True, http_1_0=request.http_1_0))


def write_and_close(fd: int, data: bytes) -> None:
    """Write what the socket takes at once, and close it."""
    try:
        os.write(fd, data)
    except OSError:
        pass  # the client is gone
    os.close(fd)


class VitalsHandler(Handler):
    """Health, readiness, statistics, metrics."""

    def get(self) -> None:
        request = request_of(self)
        try:
            response = self.vitals.answer(request)
        except Refused as refused:
            response = self.surface.refuse(refused, request)
        self.answer(response)

    head = get


class ConsoleHandler(Handler):
    """The page at `/` and its files."""

    def get(self, name: str = "") -> None:
        response = console_file(name)
        if response is None:
            raise tornado.web.HTTPError(404)
        self.answer(response)

    head = get


class NotFoundHandler(Handler):
    """Any other path, whatever the method."""

    SUPPORTED_METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE", "QUERY", "TRACE")

    def prepare(self) -> None:
        self.set_status(404)
        self.write_error(404)


def make_application(surface: StreamSurface, vitals: Vitals, node: Node, *, console: bool) -> tornado.web.Application:
    """The application with all its routes."""
    parts = {"surface": surface, "vitals": vitals, "node": node}
    routes = [
        URLSpec(r"/\.well-known/mercure", StreamHandler, parts),
        URLSpec(r"/channels/([^/]+)/events", StreamHandler, parts),
        URLSpec(r"/(?:health|ready|stats|metrics)", VitalsHandler, parts),
    ]
    if console:
        names = "|".join(name.replace(".", r"\.") for name in CONSOLE_FILES)
        routes += [URLSpec(r"/", ConsoleHandler, parts), URLSpec(rf"/console/({names})", ConsoleHandler, parts)]
    return tornado.web.Application(
        routes, default_handler_class=NotFoundHandler, default_handler_args=parts, log_function=lambda _: None
    )
