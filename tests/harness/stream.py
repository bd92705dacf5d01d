"""A strict event-stream client on a raw socket: what it reads is what went over the wire.

`Stream` sends one GET, parses the head, undoes chunked framing, and hands out blocks. Reads have a deadline and fail
with AssertionError.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self


@dataclass(slots=True)
class Block:
    """One block of the stream: fields in order; comments have the name ""."""

    fields: list[tuple[str, str]] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        """The last value of a field, or None."""
        return next((value for key, value in reversed(self.fields) if key == name), None)

    @property
    def data(self) -> str | None:
        lines = [value for key, value in self.fields if key == "data"]
        return "\n".join(lines) if lines else None

    @property
    def type(self) -> str:
        return self.get("event") or "message"

    @property
    def id(self) -> str | None:
        return self.get("id")


def request_bytes(path: str, *, method: str = "GET", version: str = "1.1", **headers: str | None) -> bytes:
    """A request's head as an EventSource would send it.

    Underscores in header names become hyphens; a header that is None is left out.
    """
    lines: dict[str, str | None] = {"Accept": "text/event-stream"}
    lines.update((name.replace("_", "-"), value) for name, value in headers.items())
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"{method} {path} HTTP/{version}\r\n{head}\r\n".encode("latin-1")


class Stream:
    """One streaming GET. `status` and `headers` (lower case) are there from the start; `raw` collects the body."""

    def __init__(
        self,
        port: int,
        path: str,
        *,
        seconds: float = 10,
        version: str = "1.1",
        host: str = "127.0.0.1",
        connection: socket.socket | None = None,
        request: bytes | None = None,
        received: bytes = b"",
        **headers: str | None,
    ) -> None:
        """Open by `request` (b"" if it was sent already), else by one made of path and headers (see `request_bytes`).

        `connection` is used instead of a new one, with what was already `received` on it.
        """
        self.deadline_seconds = seconds
        self.socket = connection or socket.create_connection((host, port), timeout=seconds)
        self.socket.settimeout(seconds)
        if request is None:
            headers.setdefault("Host", f"{host}:{port}")
            fields: dict[str, Any] = headers
            request = request_bytes(path, version=version, **fields)
        self.socket.sendall(request)
        self.received = received
        self.raw = b""
        self.ended = False
        self.clean_end = False
        self._text = b""
        head_bytes = self._until(b"\r\n\r\n")
        first, *rest = head_bytes.decode("latin-1").split("\r\n")
        self.head = head_bytes
        self.status = int(first.split()[1])
        self.headers = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in rest if line}
        self.chunked = self.headers.get("transfer-encoding") == "chunked"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def _receive(self) -> bool:
        try:
            got = self.socket.recv(65536)
        except ConnectionResetError:
            got = b""
        self.received += got
        return bool(got)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self.received:
            assert self._receive(), f"the connection ended before {mark!r}: {self.received!r}"
        part, self.received = self.received.split(mark, 1)
        return part

    def _more(self) -> bool:
        """Read some body; False at the end of the stream."""
        if self.ended:
            return False
        if not self.chunked:
            if not self.received and not self._receive():
                self.ended = self.clean_end = True
                return False
            part, self.received = self.received, b""
        else:
            part = self._chunk()
        self.raw += part
        self._text += part
        return not self.ended

    def _chunk(self) -> bytes:
        while b"\r\n" not in self.received:
            if not self._receive():
                self.ended = True
                return b""
        size_text, rest = self.received.split(b"\r\n", 1)
        size = int(size_text, 16)
        while len(rest) < size + 2:
            if not self._receive():
                self.ended = True
                return b""
            rest = self.received.split(b"\r\n", 1)[1]
        assert rest[size : size + 2] == b"\r\n"
        self.received = rest[size + 2 :]
        if size == 0:
            self.ended = self.clean_end = True
        return rest[:size]

    def body(self) -> bytes:
        """The rest of an answer: as long as `Content-Length` says, else to its end."""
        length = self.headers.get("content-length")
        if length is not None:
            while len(self.received) < int(length):
                assert self._receive(), f"the connection ended inside the body: {self.received!r}"
            part, self.received = self.received[: int(length)], self.received[int(length) :]
            return part
        while self._more():
            pass
        return self.raw

    def next_piece(self) -> bytes:
        """What blocks have left over, else the next piece of the body as it came (one chunk); b"" at the end."""
        if not self._text:
            self._more()
        piece, self._text = self._text, b""
        return piece

    def next_block(self, seconds: float | None = None) -> Block | None:
        """The next block (ended by a blank line), with the comments before it; None at the end of the stream."""
        end = time.monotonic() + (seconds or self.deadline_seconds)
        while b"\n\n" not in self._text:
            remaining = end - time.monotonic()
            assert remaining > 0, f"no block in time; so far {self._text!r}"
            self.socket.settimeout(remaining)
            try:
                if not self._more():
                    return None
            except TimeoutError:
                raise AssertionError(f"no block in time; so far {self._text!r}") from None
        text, self._text = self._text.split(b"\n\n", 1)
        block = Block()
        for line in text.decode("utf-8").split("\n"):
            name, _, value = line.partition(":")
            block.fields.append((name, value.removeprefix(" ")))
        return block

    def next_event(self, seconds: float | None = None) -> Block:
        """The next block that a browser would dispatch; fails at the end of the stream."""
        while True:
            block = self.next_block(seconds)
            assert block is not None, "the stream ended"
            if block.data is not None:
                return block

    def events(self, count: int, seconds: float | None = None) -> list[Block]:
        """The next `count` events that are not `hello`."""
        found: list[Block] = []
        while len(found) < count:
            block = self.next_event(seconds)
            if block.type != "hello":
                found.append(block)
        return found

    def wait_end(self, seconds: float | None = None) -> list[Block]:
        """All blocks until the stream ends."""
        blocks = []
        while (block := self.next_block(seconds)) is not None:
            blocks.append(block)
        return blocks
