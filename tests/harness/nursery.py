"""Servers that begin with their modules loaded: a process that has imported them forks one for each `begin`.

Most of what a short-lived server costs is its imports, and a run of the tests starts a thousand. Owns the process that
waits with everything imported, the way of a child to its folder, environment, limit of files and log, and what tests
use of a `subprocess.Popen`. Must know no settings. Invariants: a child is a process of its own that does what `python
-m server WORDS` does, from its first line on; it is a child of the process that asked for it, which sees its end; with
that process the nursery ends, and whoever began something ends it. What an interpreter or the loader reads when it
begins (LD_PRELOAD), a network or mounts of one's own and a filter of system calls a fork can't give: `suits` says so,
and then a process is started in the ordinary way.
Cost: a process of some 80 MB for each that asks; 10 ms for each child.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
APPLICATIONS = ("facilities", "prices", "monitors", "jobs", "companies")
IMPORTED = (
    *("server.serving", "apps.running", "bridges.running", "redis.asyncio", "aiosqlite", "asyncpg"),
    *(f"apps.{name}.application" for name in APPLICATIONS),
    *("apps.jobs.command", "apps.monitors.command"),
)
PR_SET_CHILD_SUBREAPER = 36
THREAD = Path("/proc/thread-self")
LOADED_BY = ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHASHSEED")


class Forked:
    """A process that a nursery has begun: what tests use of `subprocess.Popen`."""

    def __init__(self, pid: int, args: Sequence[str]) -> None:
        self.pid, self.args = pid, args
        self.returncode: int | None = None
        self._turn = threading.Lock()

    def poll(self) -> int | None:
        with self._turn:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        handle = os.pidfd_open(self.pid) if self.poll() is None else -1
        ended = select.poll()  # which takes a descriptor of any number, where a test holds thousands
        if handle >= 0:
            ended.register(handle, select.POLLIN)
        try:
            while self.poll() is None:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
                ended.poll(None if left is None else left * 1e3)
        finally:
            if handle >= 0:
                os.close(handle)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def confines() -> tuple[str, ...]:
    """What a process that this thread starts can't get out of: its network, its mounts, and the system calls that are
    filtered."""
    lines = (THREAD / "status").read_text().splitlines()
    filters = [line for line in lines if line.startswith(("NoNewPrivs", "Seccomp"))]
    return os.readlink(THREAD / "ns" / "net"), os.readlink(THREAD / "ns" / "mnt"), *filters


class Nursery:
    """See the module's head. For the threads of one process."""

    def __init__(self) -> None:
        self._confines = confines()
        # Its children's children become ours when their parent ends.
        assert ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
        self._turn = threading.Lock()
        self._line, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tests.harness.nursery", str(theirs.fileno())]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with theirs:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        self._read = self._line.makefile("r")
        atexit.register(self._end)

    def _end(self) -> None:
        self._read.close()
        self._line.close()
        self.process.wait(10)

    def suits(self, environment: Mapping[str, str]) -> bool:
        """True if a fork is as good as a process that is started with this environment by this thread."""
        own = os.environ | {"PYTHONPATH": str(ROOT)}
        alike = all(environment.get(name) == own.get(name) for name in LOADED_BY) and "LD_PRELOAD" not in environment
        return alike and confines() == self._confines

    def begin(self, words: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> Forked:
        """`python -m server WORDS` in this folder, with what it prints behind what is in the log."""
        log.touch()  # who looks into it need not wait for the child
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = {"words": words, "folder": str(folder), "log": str(log), "limit": limit, "env": dict(environment)}
        with self._turn:
            self._line.sendall(json.dumps(wanted).encode() + b"\n")
            pid = int(self._read.readline())
        return Forked(pid, ["python", "-m", "server", *words])


def wishes(line: int) -> Iterator[dict[str, Any]]:
    """What is wished for on this descriptor, until its other end is closed."""
    unread = b""
    while got := os.read(line, 65_536):
        unread += got
        *lines, unread = unread.split(b"\n")
        yield from map(json.loads, lines)


def fork_for(line: int) -> dict[str, Any]:
    """Fork for each wish. Returns in each child with what it is to become, and never in the nursery itself."""
    for wish in wishes(line):
        gone, told = os.pipe()
        between = os.fork()
        if not between:
            pid = os.fork()
            if not pid:
                for descriptor in (line, gone, told):
                    os.close(descriptor)
                return wish
            os.write(told, b"%d\n" % pid)
            os._exit(0)  # from now on the child is another's
        os.waitpid(between, 0)
        os.write(line, os.read(gone, 64))
        os.close(gone)
        os.close(told)
    os._exit(0)


def become(wish: dict[str, Any]) -> None:
    """Take folder, environment, limit and log of a wish."""
    os.chdir(wish["folder"])
    os.environ.clear()
    os.environ.update(wish["env"])
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(wish["limit"]))
    log = os.open(wish["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for output in (1, 2):
        os.dup2(log, output)
    os.close(log)
    sys.argv = ["server", *wish["words"]]


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    become(fork_for(int(sys.argv[1])))
    runpy.run_module("server", run_name="__main__", alter_sys=True)
