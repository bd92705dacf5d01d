"""Checkpoints: when the write-ahead log is copied into the database.

Owns a thread, a connection and the decision. Must never know what was written.

A checkpoint syncs two files, which takes milliseconds on a real disk. SQLite's own way, inside the commit that meets
the limit, made every publish of that moment wait. A passive one on another connection runs beside the commits. It
cannot start the log over while commits keep coming; the writer does that (sqlite_wal). At least once a second while
there is something to copy: with synchronous NORMAL that is also what bounds how much a power cut takes.
Cost: two fsyncs per second and per 4 MiB, off the loop and off the writer.
"""

from __future__ import annotations

import asyncio
import sqlite3

from server.logs import get_logger
from server.relay.sqlite_file import LogFile, checkpoint
from server.relay.sqlite_wal import COMMIT_BYTES
from server.relay.worker import Worker, WorkerStopped

CHECKPOINT_BYTES = 4 << 20

logger = get_logger("relay")


class Checkpoints:
    """Told of every commit by `wrote` and of every second by `tick`."""

    def __init__(self, file: LogFile, loop: asyncio.AbstractEventLoop) -> None:
        self._file = file
        self._worker = Worker("ringcast-log-checkpoints", loop, self._died)
        self._connection: sqlite3.Connection | None = None
        self._running = False
        self._written = 0

    async def start(self) -> None:
        """Open the connection. Raises sqlite3.Error."""
        self._connection = await self._worker.run(self._file.connect)

    def wrote(self, size: int) -> None:
        """A commit of about so many bytes."""
        self._written += COMMIT_BYTES + 2 * size
        if self._written > CHECKPOINT_BYTES:
            self.tick()

    def tick(self) -> None:
        """Begin a checkpoint if there is something to copy and none is running."""
        if self._written and not self._running and self._connection is not None:
            self._running = True
            self._written = 0
            self._worker.submit(self._copy, self._ran)

    async def stop(self) -> None:
        if self._connection is not None:
            await self._worker.run_if_alive(self._connection.close)
        await self._worker.stop()

    def _copy(self) -> bool:
        assert self._connection is not None
        with self._file.copying:
            return checkpoint(self._connection, "PASSIVE")

    def _ran(self, outcome: bool | Exception) -> None:
        self._running = False
        if outcome is not True:  # A reader was in the way, or it failed: the next tick tries again.
            self._written = max(self._written, 1)
        if isinstance(outcome, Exception) and not isinstance(outcome, WorkerStopped):
            # The commits tell of a disk that fails.
            logger.debug("checkpoint_failed", error=str(outcome))

    def _died(self, fault: BaseException | None) -> None:
        logger.critical("log_thread_died", purpose="checkpoints", exc_info=fault)
