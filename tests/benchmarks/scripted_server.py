"""An event-stream server of a few lines that does exactly what a test tells it: lose, repeat, swap, cut, refuse, hang
up.

A publish is `POST` with the event as its body. `deliver(reader, number, event)` gives the pieces of bytes that one
reader gets for one event; each piece is a write of its own.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.parse
from collections.abc import Callable, Sequence

Deliver = Callable[[int, int, bytes], Sequence[bytes]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n42"


def frame(event: bytes) -> bytes:
    """An event as it goes over the wire."""
    return b"data: " + event + b"\n\n"


def to_everybody(_reader: int, _number: int, event: bytes) -> Sequence[bytes]:
    """What a good server does."""
    return [frame(event)]


class ScriptedServer:
    """Threads and blocking sockets; `close` ends them all."""

    def __init__(
        self,
        deliver: Deliver = to_everybody,
        *,
        answer: Callable[[int], bytes] = lambda _number: OK,
        history: Callable[[int, list[bytes]], Sequence[bytes]] = lambda _reader, _events: [],
        refuse: Callable[[int], bool] = lambda _reader: False,
        hang_up_after: Callable[[int], int | None] = lambda _reader: None,
        path: str | None = None,
    ) -> None:
        self.deliver, self.answer, self.history = deliver, answer, history
        self.refuse, self.hang_up_after = refuse, hang_up_after
        self.lock = threading.Lock()
        self.readers: dict[int, socket.socket] = {}
        self.groups: dict[int, int] = {}
        self.cursors: dict[int, str] = {}
        self.events: list[bytes] = []
        self.bodies: list[bytes] = []
        self.open: list[socket.socket] = []
        self.listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self.listener.bind(path or ("127.0.0.1", 0))
        self.listener.listen(100)
        self.address = f"unix:{path}" if path else f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.threads[0].join()
        with self.lock:
            for connection in self.open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self.threads[1:]:
            thread.join()
        for connection in [*self.open, self.listener]:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.open.append(connection)
            self.threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self.threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            rest = b""
            while (request := self._request(connection, rest)) is not None:
                head, body, rest = request
                if head.startswith("GET"):
                    self._subscribe(connection, head)
                else:
                    self._publish(connection, body)

    @staticmethod
    def _request(connection: socket.socket, got: bytes) -> tuple[str, bytes, bytes] | None:
        while True:
            head, found, rest = got.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            if found and len(rest) >= length:
                return head.decode(), rest[:length], rest[length:]
            more = connection.recv(65536)
            if not more:
                return None
            got += more

    def _subscribe(self, connection: socket.socket, head: str) -> None:
        query = urllib.parse.parse_qs(head.split()[1].partition("?")[2])
        number = int(query["n"][0])
        if self.refuse(number):
            connection.sendall(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n")
            return
        with self.lock:
            self.groups[number] = int(query["group"][0])
            self.cursors[number] = head.partition("Last-Event-ID: ")[2].partition("\r\n")[0]
            connection.sendall(HEAD)
            for piece in self.history(number, self.events) if self.cursors[number] else []:
                connection.sendall(piece)
            self.readers[number] = connection

    def _publish(self, connection: socket.socket, body: bytes) -> None:
        with self.lock:
            number = len(self.bodies)
            self.bodies.append(body)
            answer = self.answer(number)
            if b" 200 " in answer:
                for event in body.split(b"\n"):
                    self._fan_out(event)
        connection.sendall(answer)
        if b"connection: close" in answer.lower():
            connection.shutdown(socket.SHUT_RDWR)

    def _fan_out(self, event: bytes) -> None:
        number = len(self.events)
        self.events.append(event)
        for reader, connection in list(self.readers.items()):
            with contextlib.suppress(OSError):
                for piece in self.deliver(reader, number, event):
                    connection.sendall(piece)
                if self.hang_up_after(reader) == number:
                    connection.shutdown(socket.SHUT_RDWR)
                    del self.readers[reader]
