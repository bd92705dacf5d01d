"""A worker of an application as a process: `ringcast job-worker`, `ringcast monitor-worker`. Knows no application."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from pathlib import Path
from typing import Self

from tests.harness.nursery import Forked
from tests.harness.process import ROOT, begun, wait_until


class WorkerProcess:
    """`ringcast COMMAND` in a folder, with these settings."""

    def __init__(self, command: str, folder: Path, **settings: object) -> None:
        self.command = command
        self.settings = settings
        self.folder = folder
        self.log_path = folder / f"{command}-{uuid.uuid4().hex[:6]}.log"
        self.process: subprocess.Popen[bytes] | Forked | None = None

    def start(self) -> Self:
        env = {key: value for key, value in os.environ.items() if not key.startswith("RINGCAST_")}
        env |= {f"RINGCAST_{key.upper()}": str(value) for key, value in self.settings.items()}
        env |= {"PYTHONPATH": str(ROOT)}
        self.process = begun([self.command], self.folder, env, self.log_path)
        return self

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_log(self, text: str, seconds: float = 20) -> None:
        """Wait until it has said something."""
        wait_until(lambda: text in self.log(), seconds, f"{text!r} in {self.log_path}: {self.log()}")

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM and wait; the exit code."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        return self.process.wait(20)

    def kill(self) -> None:
        """SIGKILL and wait, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
