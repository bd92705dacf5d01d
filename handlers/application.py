"""The Tornado application: everything over HTTP that the front door does not answer by itself.

Owns routing, and the translation between Tornado's requests and this project's values. Must never decide anything that
the front door decides too: both ask the same `StreamSurface`, and a stream that comes this way ends as the same kind of
reader.

Invariants: no request line, query or token reaches a log; every error is JSON with a code and a reason; a stream leaves
Tornado before its first byte.
"""

from __future__ import annotations

import sys
from http import HTTPStatus
from http.client import responses
from typing import Any, ClassVar

import tornado.web
from tornado.httputil import HTTPConnection, HTTPMessageDelegate
from tornado.routing import URLSpec

from handlers.answers import COMMON_HEADERS, Refused, dumps
from handlers.console import CONSOLE_FILES, console_file
from handlers.cors import PREFLIGHT
from handlers.incoming import request_of
from handlers.stream_delegate import StreamDelegate
from handlers.surface import StreamSurface
from handlers.vitals import Vitals
from server.exchange import Response
from server.logs import get_logger
from server.node import Node

log = get_logger("http")


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
        for name, value in [*self.surface.cors(request_of(self.request)), *response.headers]:
            self.set_header(name, value)
        self.finish(response.body if response.status != HTTPStatus.NO_CONTENT else None)

    def compute_etag(self) -> None:
        """No ETags: nothing here may be cached."""

    def options(self, *_: str) -> None:
        """CORS preflight; needs no token."""
        request = request_of(self.request)
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
        for name, value in [*COMMON_HEADERS, *self.surface.cors(request_of(self.request))]:
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
class PublishHandler(Handler):
    """The publishes that the door passes on: large ones, chunked ones, and those that come after another request.

    The body is collected here and not by Tornado, which would answer 400 to one that is too large, and only count it
    as it comes. (A GET of the same paths never comes here: see handlers/stream_delegate.py.)
    """

    SUPPORTED_METHODS = ("POST", "OPTIONS")
    allowed = "GET, HEAD, POST, OPTIONS"

    def prepare(self) -> None:
        self._body = bytearray()
        self._most = self.surface.max_body_bytes
        self.request.connection.set_max_body_size(sys.maxsize)  # type: ignore[union-attr]
        declared = self.request.headers.get("Content-Length", "0")
        if self.request.method == "POST" and declared.isdigit() and int(declared) > self._most:
            self.answer(self.surface.too_large(request_of(self.request)))

    def data_received(self, chunk: bytes) -> None:
        if len(self._body) + len(chunk) > self._most:
            if not self._finished:
                self.answer(self.surface.too_large(request_of(self.request)))
            return
        self._body += chunk

    def on_connection_close(self) -> None:
        self._body.clear()
        super().on_connection_close()  # ends the wait for the rest of the body

    async def post(self, *_: str) -> None:
        answer = self.surface.publish(request_of(self.request, bytes(self._body)))
        self.answer(answer if isinstance(answer, Response) else await answer)


class VitalsHandler(Handler):
    """Health, readiness, statistics, metrics."""

    def get(self) -> None:
        request = request_of(self.request)
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


class Application(tornado.web.Application):
    """Routes what is left after requests for streams have been taken off their connections."""

    surface: StreamSurface
    node: Node

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Tornado's hook at the start of every request."""
        other = super().start_request(server_conn, request_conn)
        return StreamDelegate(self.surface, self.node.opener, request_conn, other)


def make_application(surface: StreamSurface, vitals: Vitals, node: Node, *, console: bool) -> Application:
    """The application with all its routes."""
    parts = {"surface": surface, "vitals": vitals, "node": node}
    routes = [
        URLSpec(r"/\.well-known/mercure", PublishHandler, parts),
        URLSpec(r"/channels/[a-z][a-z0-9_-]{0,63}/events", PublishHandler, parts),
        URLSpec(r"/(?:health|ready|stats|metrics)", VitalsHandler, parts),
    ]
    if console:
        names = "|".join(name.replace(".", r"\.") for name in CONSOLE_FILES)
        routes += [URLSpec(r"/", ConsoleHandler, parts), URLSpec(rf"/console/({names})", ConsoleHandler, parts)]
    application = Application(
        routes, default_handler_class=NotFoundHandler, default_handler_args=parts, log_function=lambda _: None
    )
    application.surface, application.node = surface, node
    return application
