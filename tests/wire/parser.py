"""An event-stream parser written from the standard, to judge what the server sends.

`Parser` reads any stream as a browser does (HTML Living Standard 9.2.6), from pieces of any size. `StrictParser` reads
the same and also raises `WireError` on everything that a browser forgives and this server must never send. Neither
imports anything of the server: a fault shared by both sides would not be seen.

Bytes are split into lines before they are decoded. That is the same as decoding first: CR and LF are never part of a
longer UTF-8 sequence, and a malformed one ends before them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Dispatched:
    """What a listener gets."""

    type: str
    data: str
    last_event_id: str


class Parser:
    """One connection's reading. `last_event_id` and `retry_ms` outlive the connection: hand them to the next Parser."""

    def __init__(self, last_event_id: str = "", retry_ms: int | None = None) -> None:
        self.last_event_id = last_event_id
        self.retry_ms = retry_ms
        self.events: list[Dispatched] = []
        self._id = last_event_id
        self._type = ""
        self._data: list[str] = []
        self._line = bytearray()
        self._start: bytearray | None = bytearray()
        self._after_cr = False

    def feed(self, piece: bytes) -> list[Dispatched]:
        """Read a piece; the events that it completed."""
        before = len(self.events)
        self._lines(self._without_mark(piece))
        return self.events[before:]

    def _without_mark(self, piece: bytes) -> bytes:
        """Drop one byte-order mark from the start of the stream, even if it comes in pieces."""
        if self._start is None:
            return piece
        self._start += piece
        if len(self._start) < 3 and BYTE_ORDER_MARK.startswith(self._start):
            return b""
        head, self._start = bytes(self._start), None
        return head.removeprefix(BYTE_ORDER_MARK)

    def _lines(self, piece: bytes) -> None:
        """Complete the lines that end in this piece, keep what is left. An LF that follows a CR belongs to it."""
        if not piece:
            return
        rest = piece.removeprefix(b"\n") if self._after_cr else piece
        self._after_cr = rest.endswith(b"\r")
        first, *others = re.split(rb"\r\n|\r|\n", rest)
        self._line += first
        for start in others:
            line, self._line = bytes(self._line), bytearray(start)
            self._whole_line(line)

    def _whole_line(self, line: bytes) -> None:
        if not line:
            self._dispatch()
        elif not line.startswith(b":"):
            name, _, value = line.decode("utf-8", "replace").partition(":")
            self._field(name, value.removeprefix(" "))

    def _field(self, name: str, value: str) -> None:
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            self.retry_ms = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data:
            self.events.append(Dispatched(self._type or "message", "\n".join(self._data), self._id))
        self._type = ""
        self._data = []

    @property
    def pending(self) -> bool:
        """True if the stream stands inside a block, which an end of the connection would discard."""
        return bool(self._line or self._data or self._type or self._id != self.last_event_id)


class WireError(AssertionError):
    """The server sent what it must never send."""


# Events that only the server sends. They carry no id: a client's cursor moves by what it was given, not by such news.
CONTROL = frozenset({
    "gap", "heartbeat", "overloaded", "too_many", "rate_limited", "draining", "unavailable", "max_age", "idle", "slow",
    "auth_expired", "finished", "unauthorized", "forbidden", "not_found", "bad_request",
})  # fmt: skip


class StrictParser(Parser):
    """A Parser that accepts only what this server may send."""

    def __init__(self, last_event_id: str = "", retry_ms: int | None = None) -> None:
        super().__init__(last_event_id, retry_ms)
        self.comments = 0
        self.cursor_blocks = 0
        self._names: list[str] = []

    def feed(self, piece: bytes) -> list[Dispatched]:
        if b"\r" in piece:
            raise WireError(f"a carriage return: {piece!r}")
        return super().feed(piece)

    def _without_mark(self, piece: bytes) -> bytes:
        if self._start is not None and piece:
            if piece[0] not in b":ierd":
                raise WireError(f"a stream that begins with {piece[:1]!r}")
            self._start = None
        return piece

    def _whole_line(self, line: bytes) -> None:
        if line.startswith(b":"):
            self._comment(line)
        elif line:
            self._check_line(line)
        super()._whole_line(line)

    def _comment(self, line: bytes) -> None:
        if line != b":":
            raise WireError(f"a comment with a text: {line!r}")
        if self._names:
            raise WireError("a comment inside a block")
        self.comments += 1

    def _check_line(self, line: bytes) -> None:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise WireError(f"not UTF-8: {line!r}") from error
        found = re.match(r"(id|event|retry|data): ", text)
        if not found:
            raise WireError(f"not a field of ours: {line!r}")
        name, value = found[1], text[found.end() :]
        if name != "data" and name in self._names:
            raise WireError(f"{name} twice in one block")
        if name != "data" and "data" in self._names:
            raise WireError(f"{name} after data")
        self._check_value(name, value)
        self._names.append(name)

    def _check_value(self, name: str, value: str) -> None:
        if name == "retry" and not re.fullmatch("[0-9]{1,7}", value):
            raise WireError(f"retry {value!r}")
        if name in ("id", "event") and (not value or re.search(r"[\x00-\x1f\x7f-\x9f]", value)):
            raise WireError(f"{name} {value!r}")
        if name == "event" and value in ("open", "error"):
            raise WireError(f"an event named {value!r}")

    def _dispatch(self) -> None:
        names = self._names
        self._names = []
        if not names:
            raise WireError("an empty block")
        if "event" in names and "data" not in names:
            raise WireError("an event without data is never dispatched")
        if self._type in CONTROL and "id" in names:
            raise WireError(f"the control event {self._type!r} has an id")
        self.cursor_blocks += names == ["id"]
        super()._dispatch()

    @property
    def pending(self) -> bool:
        return bool(self._names) or super().pending

    def end(self) -> None:
        """To be called where the server ended the stream of its own accord."""
        if self.pending:
            raise WireError("the stream ended inside a block")


def parse(stream: bytes, *, step: int | None = None, last_event_id: str = "") -> Parser:
    """Everything in `stream`, fed whole or in pieces of `step` bytes."""
    return _fed(Parser(last_event_id), stream, step)


def parse_strictly(stream: bytes, *, step: int | None = None, last_event_id: str = "") -> StrictParser:
    """The same with a StrictParser."""
    parser = StrictParser(last_event_id)
    _fed(parser, stream, step)
    return parser


def _fed(parser: Parser, stream: bytes, step: int | None) -> Parser:
    size = step or len(stream) or 1
    for start in range(0, len(stream), size):
        parser.feed(stream[start : start + size])
    return parser
