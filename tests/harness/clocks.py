"""Wall clocks that are wrong, and that can be set while a process runs."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).with_name("wall_clock.c")


class WallClock:
    """The wall clock of the processes that are started while it is `worn`: wrong by `seconds`."""

    def __init__(self, folder: Path, seconds: int = 0) -> None:
        self.library = folder / "wall_clock.so"
        if not self.library.exists():
            command = [os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-shared", "-fPIC"]
            subprocess.run([*command, "-o", str(self.library), str(SOURCE)], check=True)
        self.path = folder / f"wall-clock-{id(self)}"
        self.path.write_bytes(bytes(8))
        with self.path.open("r+b") as file:
            self._shift = mmap.mmap(file.fileno(), 8)
        self.set(seconds)

    def set(self, seconds: int) -> None:
        """From now on it is wrong by so much."""
        self._shift[:] = struct.pack("q", seconds)

    @contextlib.contextmanager
    def worn(self) -> Iterator[None]:
        """Processes that start meanwhile have this clock, until they end."""
        wanted = {"LD_PRELOAD": str(self.library), "WALL_CLOCK_FILE": str(self.path)}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
