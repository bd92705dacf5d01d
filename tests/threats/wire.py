"""Raw client connections for tests of attacks: what is sent is exactly what is written, and answers are read strictly.

`Wire` is one connection; `ask` sends one request by one of the ways in: as the first of a connection (which the front
door sees), as a later one behind a plain page, or as a later one behind a publish (on kept-alive connections, which
other code of the server may read). Must know nothing of the
server but HTTP/1.1.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import jwt

from tests.harness.process import TOKEN_SECRET

WAYS = ("first", "later", "published")


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer. For an event stream `body` is empty: the stream is still coming."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header, or None; several are joined by a comma as HTTP has it."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(values) if values else None


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a plain request. Underscores in header names become hyphens."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


FIRST = {
    "later": request("GET", "/health"),
    "published": request(
        "POST",
        "/channels/main/events",
        b'{"topic": "way in"}',
        Content_Type="application/json",
        Authorization=f"Bearer {jwt.encode({'mercure': {'publish': ['way in']}}, TOKEN_SECRET)}",
    ),
}


class Wire:
    """One raw connection with a deadline on every read."""

    def __init__(
        self, port: int, *, source: str = "127.0.0.1", receive_buffer_bytes: int = 0, seconds: float = 5
    ) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(seconds)
        if receive_buffer_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        if source != "127.0.0.1":
            self.socket.bind((source, 0))
        self.socket.connect(("127.0.0.1", port))
        self.received = b""

    def send(self, data: bytes) -> None:
        """Send all; a peer that has already hung up is no error, what it answered is still read."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def come_in(self, way: str) -> None:
        """Have a first request served, if that is the way."""
        if way != "first":
            self.send(FIRST[way])
            answer = self.answer()
            assert answer is not None, f"the way in ({way}) got no answer"
            assert answer.status in (200, 401), answer

    def _more(self) -> bool:
        try:
            got = self.socket.recv(65536)
        except ConnectionResetError:
            got = b""
        self.received += got
        return bool(got)

    def answer(self, method: str = "GET") -> Answer | None:
        """The next answer; None if the server hung up without one."""
        while b"\r\n\r\n" not in self.received:
            if not self._more():
                assert not self.received, f"an answer was cut off: {self.received[:200]!r}"
                return None
        head, self.received = self.received.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        assert first.startswith("HTTP/1."), first
        pairs = [line.partition(":") for line in lines]
        answer = Answer(int(first.split(" ")[1]), tuple((key, value.strip()) for key, _, value in pairs), b"")
        return Answer(answer.status, answer.headers, self._body(answer, method))

    def _body(self, answer: Answer, method: str) -> bytes:
        if method == "HEAD" or answer.status in (204, 304) or answer.header("Content-Type") == "text/event-stream":
            return b""
        length = answer.header("Content-Length")
        if length is None:
            return self.rest()
        while len(self.received) < int(length):
            assert self._more(), "the body was cut off"
        body, self.received = self.received[: int(length)], self.received[int(length) :]
        return body

    def rest(self, seconds: float = 5) -> bytes:
        """Everything until the server hangs up; AssertionError if it does not."""
        end = time.monotonic() + seconds
        try:
            while self._more():
                self.socket.settimeout(max(0.01, end - time.monotonic()))
        except TimeoutError:
            raise AssertionError(f"the connection was left open; received {self.received[-300:]!r}") from None
        body, self.received = self.received, b""
        return body

    def until(self, mark: bytes, seconds: float = 5) -> bytes:
        """What comes up to and with `mark`."""
        end = time.monotonic() + seconds
        while mark not in self.received:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            assert self._more(), f"the connection ended before {mark!r}: {self.received[-300:]!r}"
        cut = self.received.index(mark) + len(mark)
        part, self.received = self.received[:cut], self.received[cut:]
        return part

    def say_goodbye(self) -> None:
        """Send FIN: nothing further will come from here."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()


@contextlib.contextmanager
def wire(port: int, way: str = "first", *, source: str = "127.0.0.1", seconds: float = 5) -> Iterator[Wire]:
    """A connection that has served nothing yet (`first`), a plain page (`later`) or a publish (`published`)."""
    connection = Wire(port, source=source, seconds=seconds)
    try:
        connection.come_in(way)
        yield connection
    finally:
        connection.close()


def ask(port: int, raw: bytes, way: str = "first", *, source: str = "127.0.0.1", seconds: float = 5) -> Answer | None:
    """Send raw bytes by one of the ways in and read one answer; None if the server hung up without one."""
    with wire(port, way, source=source, seconds=seconds) as connection:
        connection.send(raw)
        return connection.answer(raw.split(b" ", 1)[0].decode("latin-1"))


def answered(port: int, raw: bytes, way: str = "first", *, source: str = "127.0.0.1") -> Answer:
    """Like `ask`, where an answer must come."""
    answer = ask(port, raw, way, source=source)
    assert answer is not None, f"no answer to {raw[:200]!r} ({way})"
    return answer
