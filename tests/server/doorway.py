"""A door with a scripted surface behind it, and clients that come to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from server.channel import Start
from server.door import Door
from server.exchange import Request, Response
from server.frames import Encoding
from server.opening import Subscription
from server.selection import Selection
from server.sockets import listen_tcp
from tests.server.engine import channel, run

HEADER_SECONDS = 7.0
STREAM = b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n"


def post(body: bytes, path: str = "/publish", *fields: str, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: h", f"Content-Length: {len(body)}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Client:
    """One connection to the door. It reads whatever comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = b""

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next whole answer: status, headers, body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")[:-2]
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers.get("Content-Length", 0)))
        return int(first.split()[1]), headers, body

    async def rest(self) -> bytes:
        """Everything until the connection ends."""
        with contextlib.suppress(ConnectionResetError):
            self.received += await self.reader.read()
        return self.received


class Doorway:
    """A door, what is behind it, and what came through. `answers` make the answer to a publish of its body."""

    def __init__(self) -> None:
        self.door = Door(
            asyncio.get_running_loop(), self, self, self._hand_over, header_seconds=HEADER_SECONDS  # type: ignore[arg-type]
        )  # fmt: skip
        listener = listen_tcp("127.0.0.1", 0, send_buffer_bytes=0, receive_buffer_bytes=0, user_timeout_seconds=5)
        self.port = listener.getsockname()[1]
        self.door.listen(listener)
        self.requests: list[Request] = []
        self.handed: list[tuple[int, str, bytes]] = []
        self.opened: list[int] = []
        self.subscription: Any = Subscription(
            channel(), Selection(), None, 0, "", None, None, "", Encoding.CHUNKED
        )  # fmt: skip
        self.start: Start | None = Start(None)
        self.publish_answer: Callable[[bytes], Response | Awaitable[Response]] = lambda body: Response(200, body)
        self.clients: list[Client] = []
        self._finished = False

    # What the door asks of its surface and its opener.

    @staticmethod
    def is_stream(path: str) -> bool:
        return path == "/stream"

    @staticmethod
    def is_publish(path: str) -> bool:
        return path == "/publish"

    def subscribe(self, request: Request) -> Any:
        self.requests.append(request)
        return self.subscription

    def publish(self, request: Request) -> Response | Awaitable[Response]:
        self.requests.append(request)
        return self.publish_answer(request.body)

    def locate(self, _wanted: Subscription) -> Start | None:
        return self.start

    def open(self, fd: int, _wanted: Subscription, _start: Start) -> None:
        self.opened.append(fd)

    def _hand_over(self, fd: int, remote: str, data: bytes) -> None:
        self.handed.append((fd, remote, data))

    # What a test does.

    async def client(self, data: bytes = b"", path: Path | None = None) -> Client:
        if path is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        else:
            reader, writer = await asyncio.open_unix_connection(path)
        one = Client(reader, writer)
        self.clients.append(one)
        if data:
            one.send(data)
        return one

    def hold_publishes(self) -> asyncio.Event:
        """Publishes are answered when this event is set."""
        gate = asyncio.Event()

        async def answer(body: bytes) -> Response:
            await gate.wait()
            return Response(200, body)

        self.publish_answer = answer
        return gate

    async def finish(self, seconds: float) -> None:
        """The door's end, which comes once."""
        self._finished = True
        await self.door.finish(seconds)

    async def close(self) -> None:
        self.door.stop_listening()
        if not self._finished:
            await self.finish(0)
        for fd in (*self.opened, *(fd for fd, _, _ in self.handed)):
            os.close(fd)
        for one in self.clients:
            one.writer.close()


def with_door(doing: Callable[[Doorway], Awaitable[None]]) -> None:
    async def main() -> None:
        doorway = Doorway()
        try:
            await doing(doorway)
        finally:
            await doorway.close()

    run(main)
