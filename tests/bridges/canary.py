"""A server on the loopback interface that notes who connects, and a guard of outgoing requests to try on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from bridges.outbound import Answer, Outbound, OutboundFailed, OutboundRefused

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """On the loop that the processes have."""
    uvloop.run(work())


class Canary:
    """A server on 127.0.0.1; `requests` are the heads that came."""

    def __init__(self, answer: bytes | Serve) -> None:
        self._answer = answer
        self.requests: list[str] = []
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if isinstance(self._answer, bytes):
                writer.write(self._answer)
            else:
                await self._answer(reader, writer)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def canary(
    answer: bytes | Serve = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", **options: Any
) -> AsyncIterator[Canary]:
    made = Canary(answer)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, **options)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


@asynccontextmanager
async def guard(**options: Any) -> AsyncIterator[Outbound]:
    made = Outbound(**options)
    try:
        yield made
    finally:
        made.close()


async def reason_of(work: Awaitable[Answer]) -> str:
    with pytest.raises((OutboundRefused, OutboundFailed)) as caught:
        await work
    return str(caught.value)
