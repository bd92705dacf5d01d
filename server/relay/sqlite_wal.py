"""How large the write-ahead log may become, and when the writer empties it itself.

Owns the two sizes and the look at the file. Must never know what was written. For the writer's thread, between its
transactions.

A checkpoint beside the commits (sqlite_checkpoints) copies the log but cannot start it over while they keep coming, and
never makes the file smaller once they end. So above `WAL_MOST_BYTES` the writer empties it before its next transaction,
and at rest above `WAL_REST_BYTES`. A log that somebody reads for long cannot be emptied: then it is left to grow by as
much again before the writer waits for it once more, so that a backup does not slow every publish.
Cost: a look at the file's size per `_LOOK_BYTES` written, for it gives up Python's lock. Emptying copies what the last
checkpoint has left, and syncs twice.
"""

from __future__ import annotations

import os
import sqlite3

from server.logs import get_logger
from server.relay.sqlite_file import BUSY_SECONDS, LogFile, checkpoint, wait_for_others

WAL_MOST_BYTES = 32 << 20
WAL_REST_BYTES = 4 << 20
# A commit writes some whole pages, whatever its size.
COMMIT_BYTES = 8 << 10
# How long a transaction waits for a replay that reads the log to end; a slice of one takes some 20 ms.
_READ_SECONDS = 0.25
_LOOK_BYTES = 1 << 20

logger = get_logger("relay")


class WriteAheadLog:
    """Told of every commit by `wrote`; `bound` comes before a transaction, `tend` after each step of tidying."""

    def __init__(self, file: LogFile, connection: sqlite3.Connection) -> None:
        self._file = file
        self._connection = connection
        self._path = f"{file.path}-wal"
        self._most = WAL_MOST_BYTES
        self._unseen = 0

    def wrote(self, size: int) -> None:
        """A commit of events of so many bytes."""
        self._unseen += COMMIT_BYTES + size

    def bound(self) -> None:
        """Empty the log if it has grown too far. Never raises: what was committed is safe where it is."""
        if self._unseen < _LOOK_BYTES:
            return
        self._unseen = 0
        size = self._size()
        if size > self._most:
            emptied = self._empty(BUSY_SECONDS, _READ_SECONDS)
            self._most = WAL_MOST_BYTES if emptied else size + WAL_MOST_BYTES

    def tend(self, at_rest: bool) -> None:
        """Empty the log, without waiting for anybody, if it is larger than it need be. Never raises."""
        if self._size() > (WAL_REST_BYTES if at_rest else WAL_MOST_BYTES) and self._empty(0, 0):
            self._most = WAL_MOST_BYTES

    def _empty(self, copy_seconds: float, read_seconds: float) -> bool:
        """Copy it all and cut the file to nothing; False if a running checkpoint or a reader is in the way."""
        # SQLite itself does not wait for a checkpoint that runs on another connection.
        if not self._file.copying.acquire(timeout=copy_seconds):
            return False
        try:
            wait_for_others(self._connection, read_seconds)
            return checkpoint(self._connection, "TRUNCATE")
        except sqlite3.Error as error:
            # The commits tell of a disk that fails.
            logger.debug("checkpoint_failed", error=str(error))
            return False
        finally:
            wait_for_others(self._connection, BUSY_SECONDS)
            self._file.copying.release()

    def _size(self) -> int:
        try:
            return os.stat(self._path).st_size
        except OSError:
            return 0
