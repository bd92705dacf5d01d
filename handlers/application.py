"""The Tornado application: everything over HTTP that the front door does not answer by itself.

Owns routing, and the translation between Tornado's requests and this project's values. Must never decide anything that
the front door decides too: both ask the same `StreamSurface`, and a stream that comes this way ends as the same kind of
reader.

Invariants: no request line, query or token reaches a log; every error is JSON with a code and a reason; a stream leaves
Tornado before its first byte, and so does what its head is enough to refuse (handlers/stream_delegate.py); a body is
held for a publish alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from http import HTTPStatus
from http.client import responses
from typing import Any, ClassVar, NamedTuple

import tornado.web
from tornado.httputil import HTTPConnection, HTTPMessageDelegate
from tornado.routing import URLSpec

from handlers.answers import COMMON_HEADERS, Refused, bad, dumps
from handlers.begun_stream import BegunStream
from handlers.console import CONSOLE_FILES, console_file
from handlers.cors import PREFLIGHT
from handlers.http_connections import HttpConnections
from handlers.incoming import request_of
from handlers.revocations import MAX_BODY_BYTES, Revoker
from handlers.stream_delegate import StreamDelegate
from handlers.surface import StreamSurface
from handlers.vitals import Vitals
from server.exchange import Response
from server.logs import get_logger
from server.opening import Opener

log = get_logger("http")


@tornado.web.stream_request_body
class Handler(tornado.web.RequestHandler):
    """What all handlers share. A method is answered when its body has come, so the connection can serve the next."""

    SUPPORTED_METHODS: tuple[str, ...] = (
        "GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE", "QUERY", "TRACE",
    )  # fmt: skip
    allowed: ClassVar[str] = "GET, HEAD, OPTIONS"
    preflight: ClassVar[list[tuple[str, str]]] = PREFLIGHT

    def initialize(self, surface: StreamSurface, vitals: Vitals, connections: HttpConnections) -> None:
        self.surface = surface
        self.vitals = vitals
        self._connections = connections

    def data_received(self, chunk: bytes) -> None:
        """Nobody has a use for it."""

    def on_finish(self) -> None:
        """The answer is on its way."""
        self._connections.idle(self._stream)

    @property
    def _stream(self) -> BegunStream:
        return self.request.server_connection.stream  # type: ignore[attr-defined, no-any-return]

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
            response.headers += self.preflight
        self.answer(response)

    def query(self, *_: str) -> None:
        """A method that Tornado's handlers do not know, and none of these has."""
        raise tornado.web.HTTPError(405)

    trace = query

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
        if self.request.method not in self.SUPPORTED_METHODS:  # Tornado does not wait for the body of such a one
            self.set_header("Connection", "close")
        self.finish(dumps({"code": code, "reason": responses.get(status_code, "Error")}))

    def log_exception(self, _type: type[BaseException] | None, value: BaseException | None, _trace: Any) -> None:
        """Tornado's own line would hold the request's URL, and so perhaps a token."""
        if isinstance(value, tornado.web.HTTPError):
            return
        log.error("handler_failed", path=self.request.path, exc_info=value)


class PublishHandler(Handler):
    """The publishes that the door passes on: large ones, chunked ones, and those that come after another request. Who
    may not publish does not get here.

    The body is collected here and not by Tornado, which would answer 400 to one that is too large, and only count it
    as it comes. (A GET of the same paths never comes here: see handlers/stream_delegate.py.)
    """

    allowed = "GET, HEAD, POST, OPTIONS"

    def initialize(self, surface: StreamSurface, vitals: Vitals, connections: HttpConnections) -> None:
        super().initialize(surface, vitals, connections)
        self._body = bytearray()
        self._answering = False

    def prepare(self) -> None:
        if self.request.method == "POST":
            self.request.connection.set_max_body_size(sys.maxsize)  # type: ignore[union-attr]
            self.surface.begin(self)
            self._connections.publishes(self._stream)

    def data_received(self, chunk: bytes) -> None:
        if self.request.method != "POST":
            return
        self._body += chunk
        if len(self._body) > self.surface.max_body_bytes:
            refusal = self.surface.unwelcome(request_of(self.request), len(self._body))
            assert refusal is not None
            self.set_header("Connection", "close")  # which Tornado does, amid a body
            self.answer(refusal)

    async def post(self, *_: str) -> None:
        self._answering = True
        try:
            answer = self.surface.publish(request_of(self.request, bytes(self._body)))
            self.answer(answer if isinstance(answer, Response) else await answer)
        finally:
            self.surface.end(self)

    def on_connection_close(self) -> None:
        self._body.clear()
        if not self._answering:
            self.surface.end(self)
        super().on_connection_close()  # ends the wait for the rest of the body


class VitalsHandler(Handler):
    """Health, readiness, statistics, metrics."""

    async def get(self) -> None:
        request = request_of(self.request)
        self.answer(await self.surface.answered(self.vitals.answer(request), request))

    head = get


class RevocationsHandler(Handler):
    """Ends rights on all nodes."""

    allowed = "POST, OPTIONS"

    def initialize(  # type: ignore[override]
        self, surface: StreamSurface, vitals: Vitals, connections: HttpConnections, revoker: Revoker
    ) -> None:
        super().initialize(surface, vitals, connections)
        self._revoker = revoker
        self._body = bytearray()

    def data_received(self, chunk: bytes) -> None:
        self._body += chunk
        if len(self._body) > MAX_BODY_BYTES:
            self.set_header("Connection", "close")
            too_large = bad("", f"must be at most {MAX_BODY_BYTES} bytes", too_large=True)
            self.answer(self.surface.refuse(too_large, request_of(self.request)))

    async def post(self) -> None:
        request = request_of(self.request, bytes(self._body))
        self.answer(await self.surface.answered(self._revoker.answer(request), request))


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

    def options(self, *_: str) -> None:
        self.set_status(404)
        self.write_error(404)

    get = head = post = put = patch = delete = query = trace = options


class Application(tornado.web.Application):
    """Routes what is left after requests for streams have been taken off their connections."""

    surface: StreamSurface
    opener: Opener
    connections: HttpConnections

    def start_request(self, server_conn: Any, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Tornado's hook where it begins to wait for a request."""
        self.connections.idle(server_conn.stream)
        other = super().start_request(server_conn, request_conn)
        return StreamDelegate(self.surface, self.opener, self.connections, request_conn, other)


class Parts(NamedTuple):
    """What every handler is given."""

    surface: StreamSurface
    vitals: Vitals
    connections: HttpConnections


def make_application(
    given: Parts, revoker: Revoker, opener: Opener, more: Sequence[URLSpec] = (), *, console: bool
) -> Application:
    """The application with all its routes; `more` are those of applications, after its own."""
    parts = given._asdict()
    routes = [
        URLSpec(r"/\.well-known/mercure", PublishHandler, parts),
        URLSpec(r"/channels/[a-z][a-z0-9_-]{0,63}/events", PublishHandler, parts),
        URLSpec(r"/(?:health|ready|stats|metrics)", VitalsHandler, parts),
        URLSpec(r"/revocations", RevocationsHandler, parts | {"revoker": revoker}),
    ]
    if console:
        names = "|".join(name.replace(".", r"\.") for name in CONSOLE_FILES)
        routes += [URLSpec(r"/", ConsoleHandler, parts), URLSpec(rf"/console/({names})", ConsoleHandler, parts)]
    application = Application(
        [*routes, *more], default_handler_class=NotFoundHandler, default_handler_args=parts, log_function=lambda _: None
    )
    application.surface, application.opener, application.connections = given.surface, opener, given.connections
    return application
