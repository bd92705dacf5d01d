"""The screen: events on standard output, and on a terminal a line of counts under them that is redrawn in place.

Owns both streams of the process. Whatever came over the network was made visible before it is written here. On a
terminal only the newest lines of each tenth of a second are shown: a terminal is slower than a stream, and waiting for
it would make this reader lag.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

from server.commands.meter import Meter

DRAW_SECONDS = 0.1
MAX_LINES_PER_DRAW = 40
CLEAR_LINE = "\r\x1b[K"


class Screen:
    """Used as `with Screen(meter) as screen`. Notes go to standard error, so that output holds events alone."""

    def __init__(self, meter: Meter, output: TextIO | None = None, errors: TextIO | None = None) -> None:
        self._meter = meter
        self._output = output or sys.stdout
        self._errors = errors or sys.stderr
        self._live = self._errors.isatty()
        self._shown = self._live and self._output.isatty()
        self._waiting: deque[str] = deque(maxlen=MAX_LINES_PER_DRAW)
        self._skipped = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._drawer = threading.Thread(target=self._draw_often, name="screen", daemon=True)

    def __enter__(self) -> Self:
        if self._live:
            self._drawer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        if self._live:
            self._drawer.join()
            self.draw()
            self._errors.write("\n")
            self._errors.flush()

    def lines(self, lines: Sequence[str]) -> None:
        """Show events. Off a terminal every line is written, whatever time that takes."""
        if not self._shown:
            self._output.write("".join(f"{line}\n" for line in lines))
            self._output.flush()
            return
        with self._lock:
            self._skipped += max(0, len(self._waiting) + len(lines) - MAX_LINES_PER_DRAW)
            self._waiting.extend(lines)

    def note(self, text: str) -> None:
        """Tell the person at the terminal, or the log, something about the stream."""
        with self._lock:
            self._flush_lines()
            self._errors.write(f"{CLEAR_LINE if self._live else ''}# {text}\n")
            self._errors.flush()

    def draw(self) -> None:
        """Write what waits, then the line of counts."""
        with self._lock:
            self._flush_lines()
            text = self._meter.line(time.monotonic())
            width = shutil.get_terminal_size().columns
            self._errors.write(f"{CLEAR_LINE}{text[: width - 1]}")
            self._errors.flush()

    def _flush_lines(self) -> None:
        if not self._waiting:
            return
        self._errors.write(CLEAR_LINE)
        if self._skipped:
            self._errors.write(f"# {self._skipped:,} more not shown\n")
        self._errors.flush()
        self._output.write("".join(f"{line}\n" for line in self._waiting))
        self._output.flush()
        self._waiting.clear()
        self._skipped = 0

    def _draw_often(self) -> None:
        while not self._closed.wait(DRAW_SECONDS):
            self.draw()
