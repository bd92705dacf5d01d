"""HTTP connections: those that the front door has handed over to Tornado, counted and bounded.

Owns how many there may be, and who goes when there are too many: the one that has been idle longest. Publishers do not
go for strangers, unless they hold more than half of the places, so a flood does not cut them off and they lock nobody
out. If nobody may go, the newcomer is told to come back. Idle is who keeps nobody waiting: between two requests, amid a
head, slow in taking an answer, or sending a body that was refused. Owns also how a connection ends with an answer of
this server. Must never know of tokens or paths: the surface makes the refusal.

Invariants: never more than `most` sockets; one at work is not closed for another; a socket counts until it is closed or
a reader's. Cost: a few operations on a dictionary per request, whose order is that of falling idle.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from handlers.begun_stream import BegunStream
from handlers.surface import StreamSurface
from server.exchange import Request, Response
from server.heads import parse_head, response_bytes

WRITE_BUFFER_BYTES = 4 << 20
LINGER_SECONDS = 2.0
LINGER_PIECE_BYTES = 65_536

Serve = Callable[[BegunStream, tuple[str, int] | tuple[()]], None]


class HttpConnections:
    """`serve` gives a stream and its peer's address to Tornado. `most` 0: no limit."""

    def __init__(self, surface: StreamSurface, serve: Serve, *, most: int, max_body_bytes: int) -> None:
        self._surface = surface
        self._serve = serve
        self._most = most
        self._max_body_bytes = max_body_bytes
        self._held: set[object] = set()
        self._publishers: set[object] = set()
        self._idle: dict[object, Callable[[], None]] = {}  # with what closes each
        self._idle_publishers: dict[object, Callable[[], None]] = {}
        self._lingering: set[asyncio.Task[None]] = set()
        self.evicted = self.refused = 0

    def take(self, fd: int, remote: str, data: bytes) -> None:
        """Own a socket whose first bytes, a whole head, are `data`: it is served, or refused."""
        if self._most and len(self._held) >= self._most and not self.make_room():
            self.refused += 1
            self._refuse(fd, remote, data)
            return
        stream = BegunStream(
            socket.socket(fileno=fd),
            data,
            self.leave,
            max_buffer_size=2 * self._max_body_bytes,
            max_write_buffer_size=WRITE_BUFFER_BYTES,
        )
        self.enter(stream)
        self._serve(stream, (remote, 0) if remote else ())

    def enter(self, one: object) -> None:
        """Count one, at work."""
        self._held.add(one)

    def leave(self, one: object) -> None:
        """It is closed, or a reader's."""
        self._held.discard(one)
        self._publishers.discard(one)
        self._idle.pop(one, None)
        self._idle_publishers.pop(one, None)

    def at_work(self, stream: BegunStream) -> None:
        """The client waits for this server."""
        self._idle.pop(stream, None)
        self._idle_publishers.pop(stream, None)

    def publishes(self, stream: BegunStream) -> None:
        """Somebody who may publish is there."""
        if stream in self._held:
            self._publishers.add(stream)

    def idle(self, stream: BegunStream) -> None:
        """This server waits for the client."""
        if stream in self._held:
            (self._idle_publishers if stream in self._publishers else self._idle).setdefault(stream, stream.close)

    def make_room(self) -> bool:
        """Close the one that has been idle longest; False if there is none that may go."""
        close = next(iter(self._idle.values()), None)
        if close is None and 2 * len(self._publishers) > self._most:
            close = next(iter(self._idle_publishers.values()), None)
        if close is None:
            return False
        self.evicted += 1
        close()  # and the stream calls `leave`
        return True

    def facts(self) -> dict[str, int]:
        """How many there are now, and running totals since the start."""
        idle = len(self._idle) + len(self._idle_publishers)
        return {"open": len(self._held), "idle": idle, "evicted": self.evicted, "refused": self.refused}

    def turn_away(self, stream: BegunStream, answer: Response, request: Request) -> None:
        """End a connection with an answer to a request whose body may still be coming."""
        self.idle(stream)
        task = asyncio.get_running_loop().create_task(self._linger(stream, answer_bytes(answer, request)))
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)

    async def _linger(self, stream: BegunStream, data: bytes) -> None:
        """Answer, and take in what is on its way: to close on unread bytes would reset the connection, and the client
        might never see the answer."""
        left = self._max_body_bytes
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                await stream.write(data)
                if not stream.closed():
                    stream.socket.shutdown(socket.SHUT_WR)
                while left > 0:
                    left -= len(await stream.read_bytes(LINGER_PIECE_BYTES, partial=True))
        except OSError:
            pass  # the client has hung up, or was made to, or takes too long (a TimeoutError)
        finally:
            stream.close()

    def _refuse(self, fd: int, remote: str, data: bytes) -> None:
        head = parse_head(data[: data.find(b"\r\n\r\n") + 4])
        request = head.request(remote) if head is not None else Request("", "", "", {}, remote)
        write_and_close(fd, answer_bytes(self._surface.overloaded(request), request))


def answer_bytes(answer: Response, request: Request) -> bytes:
    """A whole answer that ends the connection."""
    data = response_bytes(answer, close=True, http_1_0=request.http_1_0)
    return data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if request.method == "HEAD" else data


def write_and_close(fd: int, data: bytes) -> None:
    """Write what the socket takes at once, and close it."""
    try:
        os.write(fd, data)
    except OSError:
        pass  # the client is gone
    os.close(fd)
