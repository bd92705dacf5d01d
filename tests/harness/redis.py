"""A real Redis on a free port in a scratch folder, started and stopped by its process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

from tests.harness.process import free_port, wait_until


class RedisServer:
    """One `redis-server`. `options` are lines of its configuration; without any nothing is kept on disk. With
    `sentinel_of` it is a Sentinel that watches the master at that port under the name `watched`.
    """

    def __init__(
        self, folder: Path, *, port: int | None = None, sentinel_of: int | None = None, **options: str
    ) -> None:
        self.port = port or free_port()
        self.folder = folder / f"redis-{self.port}"
        self.folder.mkdir(exist_ok=True)
        self.sentinel_of = sentinel_of
        self.log_path = self.folder / "redis.log"
        # By itself it lets a replica wait five seconds for others that may come.
        self.options = {"save": "", "appendonly": "no", "repl_diskless_sync_delay": "0"} | options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        """Start and wait until it answers."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        if self.sentinel_of is not None:
            command = ["redis-server", str(self._sentinel_file()), "--sentinel"]
        else:
            for name, value in self.options.items():
                command += [f"--{name.replace('_', '-')}", value]
        with self.log_path.open("ab") as log:
            # Python ignores SIGXFSZ, and so does what it starts: at a limit on the size of its files a write fails.
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, restore_signals=False
            )
        wait_until(lambda: self._answers(), 10, f"Redis on port {self.port}")
        return self

    def _sentinel_file(self) -> Path:
        """A Sentinel writes into its configuration, so it needs a file."""
        path = self.folder / "sentinel.conf"
        path.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor watched 127.0.0.1 {self.sentinel_of} 1\n"
            "sentinel down-after-milliseconds watched 1000\nsentinel failover-timeout watched 5000\n"
        )
        return path

    def facts(self, *words: str) -> dict[str, str]:
        """What a command like INFO says, by name."""
        lines = self._ask(*words).decode().split("\r\n")
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log_path.read_text()
        try:
            return self.command("PING") == b"+PONG"
        except OSError:
            return False

    def command(self, *words: str) -> bytes:
        """The first line of the answer to a command."""
        return self._ask(*words).split(b"\r\n")[0]

    def _ask(self, *words: str) -> bytes:
        """The answer to a command; of one that is not of one line, the first part."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            parts = b"".join(b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()) for word in words)
            connection.sendall(b"*%d\r\n" % len(words) + parts)
            with connection.makefile("rb") as answer:
                first = answer.readline()
                return answer.read(int(first[1:])) if first.startswith(b"$") and first != b"$-1\r\n" else first

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
