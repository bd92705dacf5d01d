"""An issuer of keys: a server of key sets on loopback, and waiting for what it causes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from tornado.netutil import bind_sockets


class Issuer:
    """A server of key sets on loopback: answers `body` with `status` and counts."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.status = 200
        self.headers: dict[str, str] = {}
        self.fetches = 0
        self.under_way = self.most_at_once = 0
        self.answering = asyncio.Event()
        self.answering.set()
        [sock] = bind_sockets(0, "127.0.0.1")
        self.url = f"http://127.0.0.1:{sock.getsockname()[1]}/keys"
        self._server = HTTPServer(self._answer)
        self._server.add_sockets([sock])

    def _answer(self, request: HTTPServerRequest) -> None:
        self.fetches += 1
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        self._task = asyncio.ensure_future(self._write(request))

    async def _write(self, request: HTTPServerRequest) -> None:
        await self.answering.wait()
        self.under_way -= 1
        assert request.connection is not None
        headers = HTTPHeaders({"Content-Length": str(len(self.body)), **self.headers})
        request.connection.write_headers(ResponseStartLine("HTTP/1.1", self.status, "Status"), headers, self.body)
        request.connection.finish()

    async def close(self) -> None:
        self._server.stop()
        await self._server.close_all_connections()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is not an event of this code
            await asyncio.sleep(0.005)
