"""Thousands of readers in one thread: they come, are scattered, and all come back in one moment with their cursors.

`Herd` is the readers. `python -m tests.faults.herd PATH COUNT` is a herd in a process of its own, so that it takes no
time from those who measure: it reads a command a line from standard input and answers each with a line of JSON.
`HerdProcess` is that process as tests see it.

They ask in HTTP/1.0, whose streams have no chunk framing, and what comes is kept as it is: it is looked into when a
cursor is needed, and at the end.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from tests.harness.process import ROOT
from tests.harness.stream import request_bytes

SPARE_FILES = 200
RECEIVE_BYTES = 262_144
AGAIN_SECONDS = 0.05
RESET = struct.pack("ii", 1, 0)
HEAD = b"HTTP/1.1 200 "
ENDS = b"\r\n\r\n"
CURSOR = re.compile(rb"^id: (\S+)$", re.MULTILINE)
EVENT = re.compile(rb"^id: (\S+)\ndata: (\d+)\n\n", re.MULTILINE)
Address = tuple[str, int]


class Reader:
    """One of the herd. `streams` is what came, by connection."""

    __slots__ = ("address", "asked", "back", "path", "socket", "streams")

    def __init__(self, path: str) -> None:
        self.path = path
        self.address: Address = ("", 0)
        self.socket: socket.socket | None = None
        self.asked = self.back = False
        self.streams: list[bytearray] = []

    def cursor(self) -> str | None:
        """The last id that stands in a whole block."""
        for stream in reversed(self.streams):
            found = CURSOR.findall(stream, 0, stream.rfind(b"\n\n") + 1)
            if found:
                return str(found[-1].decode())
        return None

    def events(self) -> list[tuple[str, int]]:
        """Id and number of each event, in order."""
        return [(wire_id.decode(), int(data)) for stream in self.streams for wire_id, data in EVENT.findall(stream)]


class Herd:
    """`count` readers of a path. One that is not welcome comes again soon; `tries` counts, `unwelcome` says why."""

    def __init__(self, path: str, count: int, **headers: str) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < count + SPARE_FILES:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.headers = headers
        self.readers = [Reader(path) for _ in range(count)]
        self.poll = select.epoll()
        self.by_descriptor: dict[int, Reader] = {}
        self.staying_away = False
        self.again: deque[tuple[float, Reader]] = deque()
        self.tries = self.back = 0
        self.unwelcome: Counter[str] = Counter()

    def __enter__(self) -> Herd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.scatter()
        self.poll.close()

    def come(self, addresses: Sequence[Address]) -> None:
        """All connect, each to the next of the addresses; who has a cursor brings it. Nobody may be there still."""
        self.staying_away = False
        self.again.clear()
        for number, reader in enumerate(self.readers):
            reader.address = addresses[number % len(addresses)]
            self._come(reader)

    def _come(self, reader: Reader) -> None:
        self.tries += 1
        reader.asked = reader.back = False
        reader.socket = connection = socket.socket()
        connection.setblocking(False)
        if connection.connect_ex(reader.address) not in (0, errno.EINPROGRESS):
            self._gone(reader, "not let in")
            return
        self.by_descriptor[connection.fileno()] = reader
        self.poll.register(connection.fileno(), select.EPOLLOUT)
        self._go_on(reader)  # it may be through already, and who waits at the door without a word may be sent away

    def scatter(self) -> None:
        """Hang up on everybody with RST, and stay away."""
        self.staying_away = True
        for reader in self.readers:
            if reader.socket is not None:
                reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                self._gone(reader)

    def step(self, seconds: float = 0.02) -> None:
        """Send and read what can be, for so long at the most until there is something."""
        while self.again and not self.staying_away and self.again[0][0] <= time.monotonic():
            self._come(self.again.popleft()[1])
        for descriptor, _ in self.poll.poll(seconds):
            reader = self.by_descriptor.get(descriptor)
            if reader is not None:
                self._go_on(reader)

    def _go_on(self, reader: Reader) -> None:
        try:
            (self._read if reader.asked else self._ask)(reader)
        except BlockingIOError:
            return
        except OSError as error:
            self._gone(reader, os.strerror(error.errno or 0))

    def _ask(self, reader: Reader) -> None:
        assert reader.socket is not None
        more = {"Last_Event_ID": cursor} if (cursor := reader.cursor()) else {}
        reader.socket.send(request_bytes(reader.path, version="1.0", Host="localhost", **more, **self.headers))
        reader.asked = True
        reader.streams.append(bytearray())
        self.poll.modify(reader.socket.fileno(), select.EPOLLIN)

    def _read(self, reader: Reader) -> None:
        assert reader.socket is not None
        got = reader.socket.recv(RECEIVE_BYTES)
        stream = reader.streams[-1]
        stream += got
        if not reader.back and b"\nevent: hello\n" in stream:
            assert stream.startswith((HEAD, b"HTTP/1.0 200 ")), stream
            reader.back = True
            self.back += 1
        if not got:
            self._gone(reader, bytes(stream.split(b"\r\n")[0]).decode() if not reader.back else "the stream ended")

    def _gone(self, reader: Reader, why: str | None = None) -> None:
        assert reader.socket is not None
        descriptor = reader.socket.fileno()
        if self.by_descriptor.pop(descriptor, None) is not None:
            self.poll.unregister(descriptor)
        reader.socket.close()
        reader.socket = None
        self.back -= reader.back
        reader.back = False
        if why is not None:
            self.unwelcome[why] += 1
        self.again.append((time.monotonic() + AGAIN_SECONDS, reader))

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> float:
        """Step until the condition holds; the seconds that took."""
        begin = time.monotonic()
        while not condition():
            spent = time.monotonic() - begin
            assert spent < seconds, f"{what}: not within {seconds} s; {self.back} are back; {dict(self.unwelcome)}"
            self.step()
        return time.monotonic() - begin

    def arrived(self, count: int | None = None) -> Callable[[], bool]:
        """Whether so many, or all, have been greeted and are there."""
        goal = len(self.readers) if count is None else count
        return lambda: self.back >= goal


class Commands:
    """What standard input asks of a herd."""

    def __init__(self, herd: Herd) -> None:
        self.herd = herd

    def come(self, *ports: str) -> dict[str, Any]:
        """Answers when all are there."""
        herd = self.herd
        herd.tries, herd.unwelcome = 0, Counter()
        began = time.monotonic()
        herd.come([("127.0.0.1", int(port)) for port in ports])
        herd.wait(herd.arrived(len(herd.readers) * 99 // 100), 60, "99 % are there")
        most = time.monotonic() - began
        herd.wait(herd.arrived(), 60, "all are there")
        return {
            "seconds_99": most,
            "seconds_all": time.monotonic() - began,
            "tries": herd.tries,
            "unwelcome": herd.unwelcome,
        }

    def scatter(self) -> dict[str, Any]:
        self.herd.scatter()
        return {}

    def wait(self, number: str) -> dict[str, Any]:
        """Answers when each has the event of that number."""
        event = b"\ndata: %b\n\n" % number.encode()
        waiting = set(self.herd.readers)

        def all_have_it() -> bool:
            waiting.difference_update([one for one in waiting if one.streams[-1].find(event) >= 0])
            return not waiting

        self.herd.wait(all_have_it, 60, f"event {number} at each")
        return {}

    def tell(self) -> dict[str, Any]:
        """What they saw, each order once, and how many gaps were declared."""
        orders = {tuple(reader.events()) for reader in self.herd.readers}
        gaps = sum(stream.count(b"\nevent: gap\n") for reader in self.herd.readers for stream in reader.streams)
        return {"orders": [list(order) for order in orders], "gaps": gaps}

    def serve(self) -> None:
        """Obey, until standard input ends; between commands go on reading."""
        lines = select.poll()
        lines.register(sys.stdin, select.POLLIN | select.POLLHUP)
        while True:
            self.herd.step()
            if lines.poll(0):
                name, *values = sys.stdin.readline().split() or [""]
                if not name:
                    return
                print(json.dumps(getattr(self, name)(*values)), flush=True)


class HerdProcess:
    """A herd in a process of its own."""

    module = "tests.faults.herd"

    def __init__(self, path: str, count: int) -> None:
        command = [sys.executable, "-m", self.module, path, str(count)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> HerdProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired), contextlib.suppress(BrokenPipeError):
            self.process.communicate(timeout=10)
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def send(self, *command: object) -> None:
        """Ask for something; `answer` waits for it."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, command)) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the herd broke up"
        return dict(json.loads(line))

    def do(self, *command: object) -> dict[str, Any]:
        self.send(*command)
        return self.answer()


if __name__ == "__main__":
    with Herd(sys.argv[1], int(sys.argv[2])) as the_herd:
        Commands(the_herd).serve()
