"""Many client connections driven by one thread: the attacker's side of a flood.

Cost: one epoll per crowd; a step over idle connections costs nothing per connection.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

KEPT_BYTES = 65536


@dataclass(slots=True)
class Member:
    """One connection of a crowd; `received` is the end of what came."""

    socket: socket.socket
    received: bytes = b""
    open: bool = True


class Crowd:
    """`count` connections that each sent the same request (or `request(i)`). `reading=False` leaves every byte in the
    kernel.
    """

    def __init__(
        self,
        port: int,
        count: int,
        request: bytes | Callable[[int], bytes] = b"",
        *,
        reading: bool = True,
        receive_buffer_bytes: int = 0,
    ) -> None:
        self.events = (select.EPOLLIN if reading else 0) | select.EPOLLRDHUP
        self.poll = select.epoll()
        self.by_descriptor: dict[int, Member] = {}
        self.members = [self._join(port, receive_buffer_bytes) for _ in range(count)]
        for number, member in enumerate(self.members):
            with contextlib.suppress(OSError):
                member.socket.send(request(number) if callable(request) else request)

    def _join(self, port: int, receive_buffer_bytes: int) -> Member:
        connection = socket.socket()
        if receive_buffer_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", port))
        connection.setblocking(False)
        member = Member(connection)
        self.by_descriptor[connection.fileno()] = member
        self.poll.register(connection.fileno(), self.events)
        return member

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def open(self) -> list[Member]:
        """Those the server has not hung up on, as far as was read."""
        return [member for member in self.members if member.open]

    def step(self, seconds: float = 0.0) -> None:
        """Read what has come and notice who was hung up on."""
        for descriptor, event in self.poll.poll(seconds):
            member = self.by_descriptor[descriptor]
            if event & select.EPOLLIN:
                self._read(member)
            elif event & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
                self._drop(member)

    def _read(self, member: Member) -> None:
        try:
            got = member.socket.recv(KEPT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        if got:
            member.received = (member.received + got)[-KEPT_BYTES:]
        else:
            self._drop(member)

    def _drop(self, member: Member) -> None:
        del self.by_descriptor[member.socket.fileno()]
        self.poll.unregister(member.socket.fileno())
        member.socket.close()
        member.open = False

    def send_each(self, data: bytes) -> None:
        """Send to everyone who is still there; full buffers are skipped, hang-ups noticed in the next step."""
        for member in self.open:
            with contextlib.suppress(OSError):
                member.socket.send(data)

    def half_close(self) -> None:
        """Say goodbye in the direction to the server only."""
        for member in self.open:
            with contextlib.suppress(OSError):
                member.socket.shutdown(socket.SHUT_WR)

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> float:
        """Step until the condition holds; the seconds that took."""
        begin = time.monotonic()
        while not condition():
            spent = time.monotonic() - begin
            assert spent < seconds, f"{what}: not within {seconds} s; {len(self.open)} of {len(self.members)} are open"
            self.step(0.02)
        return time.monotonic() - begin

    def wait_closed(self, seconds: float, *, trickle: bytes = b"", every: float = 0.25) -> float:
        """Until the server has hung up on all, sending `trickle` to each from time to time; the seconds that took."""
        begin = next_send = time.monotonic()
        while self.open:
            now = time.monotonic()
            assert now - begin < seconds, (
                f"{len(self.open)} of {len(self.members)} connections are open after {seconds} s"
            )
            if trickle and now >= next_send:
                next_send = now + every
                self.send_each(trickle)
            self.step(0.02)
        return time.monotonic() - begin

    def close(self, *, reset: bool = False) -> None:
        """Hang up on the server, with RST if `reset`."""
        for member in self.open:
            if reset:
                member.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._drop(member)
        self.poll.close()
