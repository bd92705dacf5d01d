"""A Tornado stream whose first bytes have been read by the front door.

Owns those bytes until Tornado asks for them. `read_from_fd` and `close_fd` are the hooks that Tornado's IOStream gives
its subclasses for what is below the buffer.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from tornado.iostream import IOStream


class BegunStream(IOStream):
    """Gives `begun` before anything that the socket holds, and tells `closed` when it has closed it."""

    def __init__(
        self, sock: socket.socket, begun: bytes, closed: Callable[[BegunStream], None] = lambda _: None, **options: Any
    ) -> None:
        self._begun = memoryview(begun)
        self._tell_closed = closed
        super().__init__(sock, **options)

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        """At most len(buf) bytes, from the door's first."""
        begun = self._begun
        if not begun:
            return super().read_from_fd(buf)
        size = min(len(begun), len(buf))
        buf[:size] = begun[:size]
        self._begun = begun[size:]
        return size

    def close_fd(self) -> None:
        """Close the socket."""
        super().close_fd()
        self._tell_closed(self)
