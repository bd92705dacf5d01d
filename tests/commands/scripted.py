"""A server that follows a script: the n-th connection gets the n-th answer, whatever it asks. Requests are kept."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came; header names in lower case."""

    line: str
    headers: dict[str, str]
    body: bytes


class Scripted:
    """An answer of None closes the connection without a byte. One that ends in HOLD keeps it open until `close`."""

    def __init__(self, *answers: bytes | None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.requests: list[Seen] = []
        self._answers = answers
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for answer in self._answers:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                self._serve(connection, answer)
        # One request too many is refused at once instead of waiting for ever.
        self._listener.close()

    def _serve(self, connection: socket.socket, answer: bytes | None) -> None:
        with connection.makefile("rb") as stream:
            self.requests.append(_read_request(stream))
        if answer is None:
            connection.close()
            return
        connection.sendall(answer.removesuffix(HOLD))
        if answer.endswith(HOLD):
            self._held.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        for connection in self._held:
            connection.close()


HOLD = b"<and the connection stays open>"


def _read_request(stream: Any) -> Seen:
    line = stream.readline().decode().strip()
    headers = {}
    while row := stream.readline().decode("latin-1").strip():
        name, _, value = row.partition(":")
        headers[name.lower()] = value.strip()
    return Seen(line, headers, stream.read(int(headers.get("content-length", 0))))


def answer(status: int, body: object = None, **headers: str) -> bytes:
    """A whole answer with a JSON body. Underscores in header names become hyphens."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} X",
        f"Content-Length: {len(content)}",
        "Content-Type: application/json",
        "Connection: close",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def stream(text: str, *, end: bool = True) -> bytes:
    """A streaming answer; without `end` it is cut off."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    content = text.encode()
    chunk = b"%x\r\n%b\r\n" % (len(content), content) if content else b""
    return head + chunk + (b"0\r\n\r\n" if end else b"")


def hello(cursor: str | None = None, heartbeat_seconds: float = 30) -> str:
    """The first block of a stream."""
    body = {
        "client_id": "c",
        "channel": "main",
        "epoch": "k3x9q1",
        "cursor": cursor,
        "heartbeat_seconds": heartbeat_seconds,
    }
    first = f"id: {cursor}\n" if cursor else ""
    return f"retry: 1500\n{first}event: hello\ndata: {json.dumps(body)}\n\n"


def event(number: int, data: str = "x") -> str:
    """A published event's block."""
    return f"id: {event_id(number)}\ndata: {data}\n\n"


def event_id(number: int) -> str:
    return f"k3x9q1-{number:013x}"


def ending(code: str, *, reconnect: bool) -> str:
    """The last block of a stream that the server ends."""
    body = json.dumps({"code": code, "reason": "r", "reconnect": reconnect})
    return f"{'retry: 700' if reconnect else ':'}\nevent: {code}\ndata: {body}\n\n"
