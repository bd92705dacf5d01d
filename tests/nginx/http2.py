"""A stream over HTTP/2, by curl: what it prints is read as it comes."""

from __future__ import annotations

import os
import subprocess
import time
from types import TracebackType
from typing import Self

from tests.nginx.proxy import Nginx
from tests.wire.parser import Dispatched, StrictParser


class Http2Stream:
    """`curl --http2 -N`. `head` is the answer's, `events` what has come so far. Use as a context manager."""

    def __init__(self, nginx: Nginx, path: str, **headers: str) -> None:
        lines = {"Accept": "text/event-stream"} | {name.replace("_", "-"): value for name, value in headers.items()}
        command = ["curl", "-s", "-i", "-N", "--http2", "--cacert", str(nginx.certificate.chain)]
        command += [word for name, value in lines.items() for word in ("-H", f"{name}: {value}")]
        self._process = subprocess.Popen([*command, nginx.url + path], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._descriptor = self._process.stdout.fileno()
        os.set_blocking(self._descriptor, False)
        self._parser = StrictParser()
        self.events: list[Dispatched] = []
        self.ended = False
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._more(time.monotonic() + 10)
            assert not self.ended, f"curl ended: {head!r}"
        self.head, _, body = head.partition(b"\r\n\r\n")
        self.events += self._parser.feed(body)

    def _more(self, end: float) -> bytes:
        while True:
            assert time.monotonic() < end, f"nothing more came; so far {self.events}"
            try:
                piece = os.read(self._descriptor, 65536)
            except BlockingIOError:
                time.sleep(0.002)
                continue
            self.ended = not piece
            return piece

    def wait_event(self, data: str, seconds: float = 10) -> Dispatched:
        """The first event with this data."""
        end = time.monotonic() + seconds
        while not (found := [event for event in self.events if event.data == data]):
            self.events += self._parser.feed(self._more(end))
            assert not self.ended, f"the stream ended: {self.events}"
        return found[0]

    def wait_end(self, seconds: float = 10) -> list[Dispatched]:
        """Everything, once curl has ended by itself."""
        end = time.monotonic() + seconds
        while not self.ended:
            self.events += self._parser.feed(self._more(end))
        return self.events

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait(10)
