"""A real Redis on a free port in a scratch folder, started and stopped by its process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

from tests.harness.process import free_port, wait_until


class RedisServer:
    """One `redis-server`. `options` are lines of its configuration; without any nothing is kept on disk."""

    def __init__(self, folder: Path, *, port: int | None = None, **options: str) -> None:
        self.port = port or free_port()
        self.folder = folder
        self.log_path = folder / f"redis-{self.port}.log"
        self.options = {"save": "", "appendonly": "no"} | options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        """Start and wait until it answers."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        for name, value in self.options.items():
            command += [f"--{name.replace('_', '-')}", value]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(lambda: self._answers(), 10, f"Redis on port {self.port}")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log_path.read_text()
        try:
            return self.command("PING") == b"+PONG"
        except OSError:
            return False

    def command(self, *words: str) -> bytes:
        """The first line of the answer to a command."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            parts = b"".join(b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()) for word in words)
            connection.sendall(b"*%d\r\n" % len(words) + parts)
            with connection.makefile("rb") as answer:
                return answer.readline().rstrip(b"\r\n")

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL and wait."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """End it if it runs, also if it stands still."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.kill()
