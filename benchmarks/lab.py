"""The bench on which scenarios stand: cores, repetitions, sizes, fresh servers, and the load generator beside them.

The server under measurement has one core, the load generator the other. Every repetition has fresh servers, and the
servers of a comparison take turns within each repetition, so that a slow minute of the machine strikes all of them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.servers import SERVERS, Server, StartError
from benchmarks.storm import Programs, Run, StormError, run_storm

T = TypeVar("T")
EVERYBODY = tuple(SERVERS)


def two_cores() -> tuple[int | None, int | None]:
    """One for the server, one for the load; None where pinning is not possible."""
    cores = sorted(os.sched_getaffinity(0))
    if shutil.which("taskset") is None or len(cores) < 2:
        return None, None
    return cores[0], cores[1]


@dataclass
class Lab:
    """What a scenario works with."""

    folder: Path
    programs: Programs
    quick: bool = False
    repetitions: int = 3
    wanted: Sequence[str] = EVERYBODY
    say: Callable[[str], None] = print
    cores: tuple[int | None, int | None] = field(default_factory=two_cores)
    trouble: list[tuple[str, str]] = field(default_factory=list)
    _started: set[str] = field(default_factory=set)
    _missing: set[str] = field(default_factory=set)
    _kept: dict[str, object] = field(default_factory=dict)

    def sized(self, full: T, quick: T) -> T:
        """The size of something in a whole benchmark, or in a quick one."""
        return quick if self.quick else full

    def once(self, name: str, work: Callable[[], T]) -> T:
        """The same runs can answer several questions; they are made once."""
        if name not in self._kept:
            self._kept[name] = work()
        return self._kept[name]  # type: ignore[return-value]

    @contextmanager
    def server(self, name: str, **settings: object) -> Iterator[Server]:
        """A fresh server, stopped at the end."""
        if name == "floor":
            settings["program"] = self.programs.floor
        with SERVERS[name](self.folder, self.cores[0], **settings) as server:  # type: ignore[arg-type]
            self._started.add(name)
            yield server

    def storm(self, server: Server, label: str, **options: object) -> Run:
        """One run of the load generator against `server`."""
        common = {"pids": ",".join(map(str, server.pids()))} | server.options()
        run = run_storm(self.programs.storm, self.cores[1], server.name, label, common | options)
        if not run["memory_before_kb"]:
            raise StormError(f"{label}: the process that should be measured was not there")
        lost = f" LOST {run.losses}" if run.losses else ""
        self.say(f"    {server.name:10} {label}: {run['delivered']:,.0f} delivered{lost}")
        return run

    def load(self, label: str, **options: object) -> Callable[[Server], Run]:
        """The same run for whichever server it is given: what `compare` wants."""
        return lambda server: self.storm(server, label, **options)

    def compare(
        self,
        names: Sequence[str],
        measure: Callable[[Server], Run],
        *,
        repetitions: int | None = None,
        **settings: object,
    ) -> dict[str, list[Run]]:
        """Each server's runs, by its name. A server that never could be started is not tried again."""
        runs: dict[str, list[Run]] = {name: [] for name in names if name in self.wanted}
        for _ in range(repetitions or self.repetitions):
            for name in runs:
                if name not in self._missing:
                    runs[name] += self._attempt(name, measure, settings)
        return {name: made for name, made in runs.items() if made}

    def _attempt(self, name: str, measure: Callable[[Server], Run], settings: dict[str, object]) -> list[Run]:
        try:
            with self.server(name, **settings) as server:
                return [measure(server)]
        except (StartError, StormError) as error:
            if name not in self._started:
                self._missing.add(name)
            self.trouble.append((name, str(error)))
            self.say(f"    {name}: {error}")
            return []
