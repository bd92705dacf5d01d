"""A command as its own process, with standard output and error in files or on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

from tests.harness.process import ROOT, wait_until


class Program:
    """`ringcast ARGUMENTS` running in `folder`. On a `terminal` both outputs go to one pseudo-terminal."""

    def __init__(self, folder: Path, *arguments: str, terminal: bool = False, **variables: str) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("RINGCAST_")}
        env |= {"PYTHONPATH": str(ROOT), "COLUMNS": "120"} | variables
        command = [sys.executable, "-m", "server", *arguments]
        self._master, slave = pty.openpty() if terminal else (-1, -1)
        self._folder = folder
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdin=subprocess.PIPE,
                stdout=slave if terminal else out,
                stderr=slave if terminal else err,
            )
        if terminal:
            os.close(slave)
            os.set_blocking(self._master, False)
        self._screen = b""

    @property
    def out(self) -> str:
        return (self._folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self._folder / "err").read_text()

    @property
    def screen(self) -> str:
        """All that was written to the terminal so far."""
        # EIO is how a terminal says that its other end is closed.
        with contextlib.suppress(BlockingIOError, OSError):
            while piece := os.read(self._master, 65536):
                self._screen += piece
        return self._screen.decode()

    def write(self, text: str) -> None:
        """Send a text to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def wait(self, seconds: float = 40) -> int:
        """The exit code, once it has ended by itself."""
        wait_until(lambda: (self._master == -1 or self.screen is not None) and self.process.poll() is not None, seconds)
        return self.process.wait()

    def interrupt(self) -> int:
        """SIGINT, as Ctrl-C sends it, and the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def close(self) -> None:
        """End it if it still runs, and print what it said: pytest shows that if the test failed."""
        print(self.process.args, self.out, self.err, self.screen, sep="\n")
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        if self._master != -1:
            os.close(self._master)
