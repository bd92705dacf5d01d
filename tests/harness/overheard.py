"""What is said to a Redis, listened to from beside."""

from __future__ import annotations

import socket
import threading
from types import TracebackType

from tests.harness.redis import RedisServer


class Overheard:
    """The commands that Redis gets, as it tells them by MONITOR; counts those that say `words`."""

    def __init__(self, redis: RedisServer, *words: str) -> None:
        self.words = [f'"{word}"'.encode() for word in words]
        self.count = 0
        self.connection = socket.create_connection(("127.0.0.1", redis.port), timeout=10)
        self.thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Overheard:
        self.connection.sendall(b"MONITOR\r\n")
        assert self.connection.recv(100).startswith(b"+OK")
        self.connection.settimeout(None)
        self.thread.start()
        return self

    def _listen(self) -> None:
        with self.connection.makefile("rb") as lines:
            for line in lines:
                self.count += all(word in line.lower() for word in self.words)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.thread.join(10)
        self.connection.close()
