"""Checkpoints: when the write-ahead log is copied into the database.

Owns a thread, a connection and the decision. Must never know what was written.

A checkpoint syncs two files, which takes milliseconds on a real disk. SQLite's own way, inside the commit that meets
the limit, made every publish of that moment wait. A passive one on another connection runs beside the commits. It
cannot start the log over while commits keep coming, so above `WAL_MOST_BYTES` the writer does it between two
transactions. At least once a second while there is something to copy: with synchronous NORMAL that is also what bounds
how much a power cut takes.
Cost: two fsyncs per second and per 4 MiB, off the loop and off the writer.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial

from server.logs import get_logger
from server.relay.sqlite_file import LogFile, checkpoint
from server.relay.worker import Worker, WorkerStopped

CHECKPOINT_BYTES = 4 << 20
WAL_MOST_BYTES = 32 << 20
# A commit writes some whole pages, whatever its size.
_COMMIT_BYTES = 8 << 10

logger = get_logger("relay")


class Checkpoints:
    """Told of every commit by `wrote` and of every second by `tick`; calls `empty` when the log has grown too far."""

    def __init__(self, file: LogFile, loop: asyncio.AbstractEventLoop, empty: Callable[[], None]) -> None:
        self._file = file
        self._empty = empty
        self._worker = Worker("ringcast-log-checkpoints", loop, self._died)
        self._connection: sqlite3.Connection | None = None
        self._running = False
        self._written = 0

    async def start(self) -> None:
        """Open the connection. Raises sqlite3.Error."""
        self._connection = await self._worker.run(self._file.connect)

    def wrote(self, size: int) -> None:
        """A commit of about so many bytes."""
        self._written += _COMMIT_BYTES + 2 * size
        if self._written > CHECKPOINT_BYTES:
            self.tick()

    def tick(self) -> None:
        """Begin a checkpoint if there is something to copy and none is running."""
        if self._written and not self._running and self._connection is not None:
            self._running = True
            self._written = 0
            self._worker.submit(partial(checkpoint, self._connection, "PASSIVE"), self._ran)

    async def stop(self) -> None:
        if self._connection is not None:
            await self._worker.run_if_alive(self._connection.close)
        await self._worker.stop()

    def _ran(self, outcome: int | Exception) -> None:
        self._running = False
        if isinstance(outcome, int):
            if outcome > WAL_MOST_BYTES:
                self._empty()
        elif not isinstance(outcome, WorkerStopped):
            # The commits tell of a disk that fails; a checkpoint is tried again.
            logger.debug("checkpoint_failed", error=str(outcome))

    def _died(self, fault: BaseException | None) -> None:
        logger.critical("log_thread_died", purpose="checkpoints", exc_info=fault)
