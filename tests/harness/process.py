"""A real server process on a free port in a scratch folder, for black-box tests.

`Node` starts `python -m server serve` (mostly by a fork of a process that has its modules: nursery.py) with settings
from keywords (`heartbeat_seconds=1` becomes RINGCAST_HEARTBEAT_SECONDS), waits until `/health` answers, and ends the
process by its id. What the server prints goes to `log_path`.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.harness.nursery import Forked, Nursery

ROOT = Path(__file__).parents[2]
TOKEN_SECRET = "a secret of at least thirty-two bytes, for tests"


# Below the kernel's range for outgoing connections: none of those can take a port between its choice, or a server's
# death, and the next start. Runs side by side begin at different places.
_ports = itertools.cycle(range(20_000, 32_000))
for _ in range(os.getpid() * 5003 % 12_000):
    next(_ports)


# Says to runs beside this one that a port is chosen, until whoever chose it has had the time to listen on it.
_chosen: deque[socket.socket] = deque()
MAX_CHOSEN = 50
START_SECONDS = 40.0


def free_port() -> int:
    """A port nobody listens on now, nor is about to."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            _choose(port)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable: the cycle has no end")


def _choose(port: int) -> None:
    """Take the port's name on this machine, which ends with this process. Raises OSError if another run has it."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0ringcast-test-port-{port}")
    except OSError:
        name.close()
        raise
    _chosen.append(name)
    if len(_chosen) > MAX_CHOSEN:
        _chosen.popleft().close()


def wait_until(condition: Callable[[], object], seconds: float = 10.0, what: str = "the condition") -> None:
    """Poll until `condition()` is true; AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true within {seconds} s"
        time.sleep(0.01)


@functools.cache
def nursery() -> Nursery:
    """This process's own."""
    return Nursery()


def begun(
    words: Sequence[str], folder: Path, env: Mapping[str, str], log_path: Path
) -> subprocess.Popen[bytes] | Forked:
    """`python -m server WORDS` in a folder, with this environment; what it prints goes behind what is in the log."""
    if nursery().suits(env):
        return nursery().begin(words, folder, env, log_path)
    command = [sys.executable, "-m", "server", *words]
    with log_path.open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


class Node:
    """One server process. Keywords are settings; the built-in `host` source is off unless asked for."""

    def __init__(self, folder: Path, *, port: int | None = None, **settings: object) -> None:
        self.port = port or free_port()
        self.folder = folder
        self.log_path = folder / f"server-{self.port}.log"
        self.settings = {"host_source": False, "apps": "none"} | settings
        self.process: subprocess.Popen[bytes] | Forked | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Node:
        """Start and wait until it serves."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("RINGCAST_")}
        env |= {f"RINGCAST_{key.upper()}": str(value) for key, value in self.settings.items()}
        env |= {"RINGCAST_PORT": str(self.port), "PYTHONPATH": str(ROOT)}
        self.process = begun(["serve"], self.folder, env, self.log_path)
        try:
            wait_until(self._answers, START_SECONDS, f"the server on port {self.port} (see {self.log_path})")
        except AssertionError:
            self.kill()  # who failed to start it has nothing to end
            raise
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the server ended: {self.log()}"
        try:
            return self.get("/health")[0] == 200
        except OSError:
            return False

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower case) and body of a GET. Underscores in header names become hyphens."""
        return self.request("GET", path, **headers)

    def request(
        self, method: str, path: str, body: bytes | str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM and wait; the exit code."""
        return self._end(signal.SIGTERM, seconds)

    def kill(self) -> int:
        """SIGKILL and wait."""
        return self._end(signal.SIGKILL, 10)

    def _end(self, number: int, seconds: float) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise
