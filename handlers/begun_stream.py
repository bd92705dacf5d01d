"""A Tornado stream whose first bytes have been read by the front door.

Owns those bytes until Tornado asks for them. `read_from_fd` is the hook that Tornado's IOStream gives its subclasses
for what is below the buffer.
"""

from __future__ import annotations

import socket
from typing import Any

from tornado.iostream import IOStream


class BegunStream(IOStream):
    """Gives `begun` before anything that the socket holds."""

    def __init__(self, sock: socket.socket, begun: bytes, **options: Any) -> None:
        self._begun = memoryview(begun)
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
