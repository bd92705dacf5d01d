"""The Tornado application: everything over HTTP that the front door does not answer by itself.

Owns routing, and the translation between Tornado's requests and this project's values. Must never decide anything that the front door decides too: both ask
the same `StreamSurface`, and a stream that comes this way ends as the same kind of reader.

Invariants: no request line, query or token reaches a log; every error is JSON with a code and a reason; a stream leaves Tornado before its first byte.
"""

from __future__ import annotations

import os
from http import HTTPStatus
from http.client import responses
from typing import Any, ClassVar

import tornado.web
from tornado.routing import URLSpec

from handlers.answers import COMMON_HEADERS, Refused, dumps
from handlers.console import CONSOLE_FILES, console_file
from handlers.cors import PREFLIGHT
from handlers.surface import StreamSurface
from handlers.vitals import Vitals
from server.exchange import Request, Response
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
        headers[key] = headers[key] + b", " + value.encode("latin-1", "replace") if key in headers else value.encode("latin-1", "replace")
    # On a Unix socket Tornado gives "0.0.0.0" for the peer.
    remote = "" if request.remote_ip in (None, "0.0.0.0") else str(request.remote_ip)  # noqa: S104
    return Request(
        str(request.method), request.path, request.query, headers, remote, request.body, request.version == "HTTP/1.0"
    )


class Handler(tornado.web.RequestHandler):
    """What all handlers share."""

    SUPPORTED_METHODS: ClassVar[tuple[str, ...]] = ("GET", "HEAD", "POST", "OPTIONS")  # type: ignore[misc]
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
        for name, value in response.headers:
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

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Every error in one form."""
        for name, value in [*COMMON_HEADERS, *self.surface.cors(request_of(self))]:
            self.set_header(name, value)
        self.set_header("Content-Type", "application/json")
        code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(status_code, "internal" if status_code >= 500 else "bad_request")
        if status_code == 405:
            self.set_header("Allow", self.allowed)
        self.finish(dumps({"code": code, "reason": responses.get(status_code, "Error")}))

    def log_exception(self, typ: type[BaseException] | None, value: BaseException | None, tb: Any) -> None:
        """Tornado's own line would hold the request's URL, and so perhaps a token."""
        if isinstance(value, tornado.web.HTTPError):
            return
        log.error("handler_failed", path=self.request.path, exc_info=value)


class StreamHandler(Handler):
    """A streaming GET that did not come first on its connection, or whose admission takes waiting; and all publishes that the door passes on."""

    allowed = "GET, HEAD, POST, OPTIONS"

    async def get(self, *_: str) -> None:
        request = request_of(self)
        if request.body:
            self.answer(self.surface.refuse_body(request))
            return
        answer = await self.surface.subscribe_later(request)
        if isinstance(answer, Response):
            self.answer(answer)
            return
        await self._open(answer, request)

    async def _open(self, wanted: Subscription, request: Request) -> None:
        opener = self.node.opener
        start = opener.locate(wanted)
        if start is None:
            found = await self.surface.find(opener, wanted, request)
            if isinstance(found, Response):
                self.answer(found)
                return
            start = found
        self._auto_finish = False
        stream = self.detach()
        if stream.closed():
            return
        # The reader gets a descriptor of its own for the connection; Tornado's goes with its stream.
        fd = os.dup(stream.socket.fileno())
        stream.close()
        opener.open(fd, wanted, start)

    async def head(self, *_: str) -> None:
        request = request_of(self)
        answer = await self.surface.subscribe_later(request)
        if isinstance(answer, Subscription):
            answer = Response(200, b"", "text/event-stream", [("Cache-Control", "no-store, no-transform"), ("X-Accel-Buffering", "no"), *self.surface.cors(request)])
        self.answer(answer)

    async def post(self, *_: str) -> None:
        request = request_of(self)
        answer = self.surface.publish(request)
        self.answer(answer if isinstance(answer, Response) else await answer)


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
    """Any other path."""

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
    return tornado.web.Application(routes, default_handler_class=NotFoundHandler, default_handler_args=parts, log_function=lambda _: None)
