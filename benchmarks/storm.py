"""The load generator as a Python call: builds benchmarks/load once for a run, starts it pinned to a core, reads its
report.

Owns: the command line of `storm` and the meaning of "lost". Knows nothing of servers or of targets.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

LOAD = Path(__file__).parent / "load"
# A run in which one of these is not zero proves nothing about speed.
LOSSES = ("refused", "ended", "refused_events", "unsent", "missed", "repeated", "disordered", "misrouted", "foreign")


@dataclass(frozen=True)
class Programs:
    """The compiled load generator and floor."""

    storm: Path
    floor: Path


class StormError(Exception):
    """The load generator gave no report."""


@dataclass(frozen=True)
class Run:
    """One run of the load generator against one server: its report, by the report's own names."""

    server: str
    label: str
    report: dict[str, float]

    def __getitem__(self, name: str) -> float:
        return self.report[name]

    @property
    def losses(self) -> dict[str, int]:
        """What was lost, by kind; empty for a clean run."""
        return {name: int(self.report[name]) for name in LOSSES if self.report[name]}


def build(folder: Path) -> Programs:
    """Compile both programs into `folder` with the system's C compiler."""
    compiler = os.environ.get("CC", "cc")
    sources = sorted(str(path) for path in LOAD.glob("*.c") if path.name != "floor.c")
    programs = Programs(folder / "storm", folder / "floor")
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(programs.storm), *sources, "-lpthread"], check=True)
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(programs.floor), str(LOAD / "floor.c")], check=True)
    return programs


def command_line(program: Path, options: dict[str, object]) -> list[str]:
    """`one_at_a_time=True` becomes `--one-at-a-time`; a list repeats its option; None and False leave it out."""
    words = [str(program)]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            for one in value if isinstance(value, list) else [value]:
                words += [flag, str(one)]
    return words


def run_storm(program: Path, core: int | None, server: str, label: str, options: dict[str, object]) -> Run:
    """Runs to the end, which the program's own bounds guarantee."""
    pin = [] if core is None else ["taskset", "-c", str(core)]
    done = subprocess.run(
        pin + command_line(program, options), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode or not done.stdout.startswith("{"):
        raise StormError(f"{server}, {label}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
    report = json.loads(done.stdout)
    if done.stderr.strip():
        report["complaints"] = done.stderr.strip()[-500:]
    return Run(server, label, report)


class GatedStorm:
    """A load generator that opens its connections and then waits for a word, so that several can begin together."""

    def __init__(self, program: Path, server: str, label: str, options: dict[str, object]) -> None:
        self.server, self.label = server, label
        self._process = subprocess.Popen(
            command_line(program, options | {"gate": True}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_open(self) -> None:
        """Return when all connections are open. Raises StormError."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line.strip() != "open":
            raise StormError(f"{self.server}, {self.label}: {line}{self._process.communicate()[1][-500:]}")

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def run(self) -> Run:
        """Its report, at the end. Raises StormError."""
        out, complaints = self._process.communicate()
        if self._process.returncode or not out.startswith("{"):
            raise StormError(f"{self.server}, {self.label}: {complaints.strip()[-500:]}")
        return Run(self.server, self.label, json.loads(out))

    def stop(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
