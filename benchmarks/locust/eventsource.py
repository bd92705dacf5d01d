"""An EventSource client for load tests: parsing, reconnecting, resuming, as the HTML standard has it.

Owns one socket at a time. Knows nothing of Locust, and nothing of gevent either: it blocks on its socket, and a program
that is monkey-patched by gevent runs thousands of them side by side, one greenlet each. What happens is told to a
`Listener`.

Rules kept: only 200 with `text/event-stream` opens a stream, any other answer ends it for good; the end of the stream
or a network error leads to a new connection after `retry:` milliseconds with `Last-Event-ID`; an id counts only once
its block is complete.

Cost: some 10 µs an event.
"""

from __future__ import annotations

import codecs
import contextlib
import re
import socket
import ssl
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

LINE_END = re.compile(r"\r\n|\n|\r")
DEFAULT_RETRY_SECONDS = 3.0
RECEIVE_BYTES = 65536


@dataclass(slots=True)
class Message:
    """A dispatched event."""

    type: str
    data: str


class Listener(Protocol):
    """What a stream tells about itself. Called in the stream's own thread or greenlet; times are from time.time()."""

    def message(self, message: Message, received: float) -> None:
        """An event came; `received` is when its last byte did."""

    def ended(self, error: Exception | None) -> None:
        """An open stream ended, or one could not be opened and will be tried again."""

    def refused(self, status: int) -> None:
        """The server gave an answer that ends an EventSource for good."""


class Parser:
    """The event stream format. `last_event_id` and `retry_seconds` outlive a connection, the rest is dropped by
    `restart`.
    """

    def __init__(self) -> None:
        self.last_event_id = ""
        self.retry_seconds = DEFAULT_RETRY_SECONDS
        self.restart()

    def restart(self) -> None:
        """Forget an incomplete block: a new connection begins."""
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._after_cr = False
        self._id = self.last_event_id
        self._clear()

    def _clear(self) -> None:
        self._type = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that these bytes complete."""
        text = self._decoder.decode(data)
        if not text:
            return
        if self._after_cr and text[0] == "\n":
            text = text[1:]
        text = self._rest + text
        self._after_cr = text.endswith("\r")
        *lines, self._rest = LINE_END.split(text)
        for line in lines:
            if line:
                self._field(line)
            elif (message := self._dispatch()) is not None:
                yield message

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_seconds = int(value) / 1000

    def _dispatch(self) -> Message | None:
        self.last_event_id = self._id
        message = Message(self._type or "message", "\n".join(self._data)) if self._data else None
        self._clear()
        return message


class Refused(Exception):
    """An answer that is no event stream."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class EventSource:
    """One client. `run` returns after `close`, or when the server refuses it for good."""

    def __init__(
        self, url: str, listener: Listener, headers: Mapping[str, str], *, silence_seconds: float = 75
    ) -> None:
        """No byte for `silence_seconds` counts as a lost connection; it should be more than twice the server's
        heartbeat.
        """
        self.address = urllib.parse.urlsplit(url)
        self.listener = listener
        self.headers = dict(headers)
        self.silence_seconds = silence_seconds
        self.parser = Parser()
        self.socket: socket.socket | None = None
        self.closed = False

    def run(self) -> None:
        """Hold the stream open, again and again."""
        while not self.closed:
            error: Exception | None = None
            try:
                self._stream()
            except Refused as refusal:
                if not self.closed:
                    self.listener.refused(refusal.status)
                return
            except (OSError, ValueError) as trouble:
                error = trouble
            if self.closed:
                return
            self.listener.ended(error)
            time.sleep(self.parser.retry_seconds)

    def close(self) -> None:
        """Hang up; `run` returns soon after."""
        self.closed = True
        if self.socket is not None:
            with contextlib.suppress(OSError):  # the other side was quicker
                self.socket.shutdown(socket.SHUT_RDWR)

    def _stream(self) -> None:
        self.parser.restart()
        with self._connect() as self.socket:
            self.socket.sendall(self._request())
            for part in self._body(self.socket):
                received = time.time()
                for message in self.parser.feed(part):
                    self.listener.message(message, received)

    def _connect(self) -> socket.socket:
        host, secure = self.address.hostname or "", self.address.scheme == "https"
        connection = socket.create_connection(
            (host, self.address.port or (443 if secure else 80)), timeout=self.silence_seconds
        )
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return ssl.create_default_context().wrap_socket(connection, server_hostname=host) if secure else connection

    def _request(self) -> bytes:
        target = urllib.parse.urlunsplit(("", "", self.address.path or "/", self.address.query, ""))
        lines = {"Host": self.address.netloc, "Accept": "text/event-stream", "Cache-Control": "no-store"} | self.headers
        if self.parser.last_event_id:
            lines["Last-Event-ID"] = self.parser.last_event_id
        return (
            f"GET {target} HTTP/1.1\r\n" + "".join(f"{key}: {value}\r\n" for key, value in lines.items()) + "\r\n"
        ).encode()

    def _body(self, connection: socket.socket) -> Iterator[bytes]:
        """The parts of the body as they come. Raises Refused, OSError, and ValueError for broken framing."""
        received = b""
        while b"\r\n\r\n" not in received:
            part = connection.recv(RECEIVE_BYTES)
            if not part:
                raise ConnectionError("hung up before the answer")
            received += part
        head, rest = received.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").lower().split("\r\n")
        status = int(lines[0].split()[1])
        fields = {key: value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
        if status != 200 or fields.get("content-type", "").partition(";")[0].strip() != "text/event-stream":
            raise Refused(status)
        parts = self._parts(connection, rest)
        yield from unchunked(parts) if fields.get("transfer-encoding") == "chunked" else parts

    def _parts(self, connection: socket.socket, first: bytes) -> Iterator[bytes]:
        part = first or connection.recv(RECEIVE_BYTES)
        while part:
            yield part
            part = connection.recv(RECEIVE_BYTES)


def unchunked(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The data inside chunked framing, as early as it can be had. Raises ValueError if a size is no number."""
    buffer = b""
    for part in parts:
        buffer += part
        found: list[bytes] = []
        while (end := buffer.find(b"\r\n")) >= 0:
            size = int(buffer[:end].split(b";")[0], 16)
            if size == 0:
                yield b"".join(found)
                return
            if len(buffer) < end + 2 + size + 2:
                break
            found.append(buffer[end + 2 : end + 2 + size])
            buffer = buffer[end + 2 + size + 2 :]
        if found:
            yield b"".join(found)
