"""The Tornado side of endpoints: from a request to the endpoint of its path and method, and back.

Owns the routing of endpoints, the bound on their bodies, and the answers where there is no such method or the endpoint
fails. Must never know what an endpoint does.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence

import tornado.web
from tornado.routing import URLSpec

from handlers.answers import bad
from handlers.application import Handler, Parts
from handlers.cors import PREFLIGHT
from handlers.endpoints import Endpoint, not_found
from handlers.http_connections import HttpConnections
from handlers.incoming import request_of
from handlers.paths import arguments_of
from handlers.response_cache import ResponseCache
from handlers.rooms import Rooms
from handlers.surface import StreamSurface
from handlers.vitals import Vitals
from server.exchange import Request, Response
from server.rights import ANONYMOUS


class EndpointHandler(Handler):
    """Serves the endpoints of one path."""

    def initialize(  # type: ignore[override]
        self,
        surface: StreamSurface,
        vitals: Vitals,
        connections: HttpConnections,
        endpoints: Mapping[str, Endpoint],
        rooms: Rooms,
        cache: ResponseCache,
    ) -> None:
        super().initialize(surface, vitals, connections)
        self._endpoints = endpoints
        self._rooms = rooms
        self._cache = cache
        self._body = bytearray()
        methods = [*endpoints, *(["HEAD"] if "GET" in endpoints else [])]
        self.allowed = ", ".join([*methods, "OPTIONS"])  # type: ignore[misc]
        self.preflight = [("Access-Control-Allow-Methods", ", ".join(methods)), *PREFLIGHT[1:]]  # type: ignore[misc]

    def prepare(self) -> None:
        endpoint = self._endpoints.get(str(self.request.method))
        if endpoint is not None and endpoint.head is not None:  # `data_received` bounds what it may send
            self.request.connection.set_max_body_size(sys.maxsize)  # type: ignore[union-attr]
            self._connections.publishes(self._stream)

    def data_received(self, chunk: bytes) -> None:
        endpoint = self._endpoints.get(str(self.request.method))
        most = endpoint.max_body_bytes if endpoint is not None else 0
        self._body += chunk[: most + 1]
        if endpoint is not None and len(self._body) > most:
            self.set_header("Connection", "close")
            too_large = bad("", f"the body must be at most {most} bytes", too_large=True)
            self.answer(self.surface.refuse(too_large, request_of(self.request)))

    async def _serve(self) -> None:
        method = "GET" if self.request.method == "HEAD" else str(self.request.method)
        endpoint = self._endpoints.get(method)
        if endpoint is None:
            raise tornado.web.HTTPError(405)
        request = request_of(self.request, bytes(self._body))
        self.answer(await self.surface.answered(self._answer(endpoint, request), request))

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        self._rooms.origins.check(request)
        principal = self._rooms.authenticate(request) if endpoint.head is None else ANONYMOUS
        arguments = arguments_of(endpoint.pattern, request.path)
        if arguments is None:
            raise not_found("", "nothing is called by what is not UTF-8, or has a NUL in it")
        call = endpoint.read(request, arguments, principal)
        if endpoint.keep_seconds:
            return await self._cache.answer(endpoint, call)
        return (await endpoint.run(call)).response()

    async def get(self) -> None:
        await self._serve()

    head = post = put = patch = delete = get


def endpoint_routes(endpoints: Sequence[Endpoint], parts: Parts, rooms: Rooms, cache: ResponseCache) -> list[URLSpec]:
    """The routes of all endpoints, those without arguments first: `/x/search` is not the argument of `/x/{id}`."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    ordered = sorted(by_path, key=lambda path: (path.count("{"), path))
    return [
        URLSpec(
            # Without the arguments' names: Tornado would decode them in its own way, and give them to every method.
            re.sub(r"\?P<\w+>", "?:", next(iter(by_path[path].values())).pattern.pattern),
            EndpointHandler,
            {**parts._asdict(), "endpoints": by_path[path], "rooms": rooms, "cache": cache},
        )
        for path in ordered
    ]
