"""The database file: its lock, its schema, its connections.

Owns what is checked and set before the first row is read: that no other server has the file, that it is ours and of
this version, how it is synced, and whether the machine went down while it was open. Must never know of appends.

Why a lock file and not SQLite's exclusive mode: that shuts out the relay's own reading connection, and backups. Why not
the database file itself: closing any descriptor of it would release the locks that SQLite holds on it.
Sources: sqlite.org/wal.html, /pragma.html, /fileformat2.html; flock(2), fcntl_locking(2).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

from server.ids import new_epoch
from server.logs import get_logger
from server.relay.protocol import RelayUnavailable
from server.relay.sqlite_errors import refusal
from server.relay.sqlite_loss import boot_id, cause_of_loss, frames_found, frames_promised

SYNCHRONOUS = ("OFF", "NORMAL", "FULL")
APPLICATION_ID = 0x52494E47  # "RING"
SCHEMA_VERSION = 1
# How long a statement waits for another process (a backup, a shell) to let go of the file.
BUSY_SECONDS = 2.0
# The write-ahead log is cut back to this when it starts over.
WAL_KEPT_BYTES = 8 << 20

# Events in a rowid table with an index, and not WITHOUT ROWID, though that needs no index and frees whole pages when a
# channel is trimmed: SQLite wants four rows to fit in a page of such a table, and gives each one over 1,002 bytes a
# page of its own (4.7 KB in the file for 1 KB of data; here 1.4 KB, written twice as fast). The price is up to 13 %
# more file for the smallest events, up to 18 % of the rate of single ones, and more file where channels of long and
# short retention mix. Larger pages only move the bad size up. Integers stay below 2**53, so that JSON carries them
# (see sqlite_rows).
_SCHEMA = f"""
CREATE TABLE channels (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL, floor INTEGER NOT NULL,
    ceiling INTEGER NOT NULL, counted INTEGER NOT NULL, events INTEGER NOT NULL, bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE events (
    channel INTEGER NOT NULL, position INTEGER NOT NULL, time_us INTEGER NOT NULL, frame_bytes INTEGER NOT NULL,
    checksum INTEGER NOT NULL, private INTEGER NOT NULL, retry_ms INTEGER, id TEXT, type TEXT,
    topics TEXT NOT NULL, data TEXT NOT NULL,
    UNIQUE (channel, position)
) STRICT;
CREATE INDEX events_by_own_id ON events (channel, id, position) WHERE id IS NOT NULL;
CREATE TABLE keys (
    id INTEGER PRIMARY KEY, channel INTEGER NOT NULL, name BLOB NOT NULL, digest BLOB NOT NULL, first INTEGER NOT NULL,
    events INTEGER NOT NULL, own_ids TEXT NOT NULL, weight INTEGER NOT NULL, expires_us INTEGER NOT NULL,
    UNIQUE (channel, name)
) STRICT;
CREATE INDEX keys_by_channel ON keys (channel);
CREATE TABLE facts (name TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""

logger = get_logger("relay")


class LogFile:
    """One database file, held by this process from `create` to `release`. Not tied to a thread; its connections are."""

    def __init__(self, path: str, synchronous: str) -> None:
        if synchronous not in SYNCHRONOUS:
            raise ValueError(f"synchronous must be one of {', '.join(SYNCHRONOUS)}")
        self.path = os.path.realpath(path)
        self._synchronous = synchronous
        self._lock = -1
        # Held while a checkpoint runs: a second one at the same time fails at once.
        self.copying = Lock()

    def create(self) -> sqlite3.Connection:
        """Lock, check and if need be create the file; the writing connection. Raises RelayUnavailable."""
        try:
            self._take_lock()
            connection = self._create()
        except (sqlite3.Error, OSError, RelayUnavailable) as error:
            self.release()
            raise RelayUnavailable(f"{self.path}: {_reason(error, self.path)}") from error
        return connection

    def connect(self) -> sqlite3.Connection:
        """One more connection, for the thread that calls this."""
        # Transactions are begun and ended in so many words; the statement cache holds each size of the rows' INSERT.
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, cached_statements=64)
        # Rows come as text in one column (sqlite_rows). Bytes that are not UTF-8 are damage, and for the checksum to
        # find.
        connection.text_factory = lambda text: text.decode(errors="replace")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        # Freed pages are overwritten only where they are written anyway: zeroing them all doubles the writing of a full
        # log.
        connection.execute("PRAGMA secure_delete = FAST")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
        # Checkpoints have a thread of their own; here they would hold up the commit that meets the limit.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    def note_end(self, connection: sqlite3.Connection) -> None:
        """Write down that everything was closed in order."""
        with durably(connection, self._synchronous):
            connection.execute("REPLACE INTO facts VALUES ('open', 0)")

    def release(self) -> None:
        """Let another server have the file. The lock file stays: removing it would race with one that waits for it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_lock(self) -> None:
        self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RelayUnavailable("in use by another server") from error

    def _create(self) -> sqlite3.Connection:
        # For the owner alone: the log holds private events. SQLite gives its other files the same mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        promised = frames_promised(self.path)
        connection = self.connect()
        try:
            new = _is_new(connection)
            if new:
                # Before anything is written, for it is part of the file's layout: free pages can be given back.
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            # Not only for a new file: a copy made by VACUUM INTO has lost the mode.
            if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise RelayUnavailable("this file system does not allow a write-ahead log")
            if new:
                _create_schema(connection)
                _sync_folder(self.path)
            self._note_start(connection, promised)
        except BaseException:
            connection.close()
            raise
        return connection

    def _note_start(self, connection: sqlite3.Connection, promised: int) -> None:
        facts = dict(connection.execute("SELECT name, value FROM facts").fetchall())
        boot = boot_id()
        cause = cause_of_loss(facts, boot, promised, frames_found(connection))
        with durably(connection, self._synchronous):
            if cause is not None:
                # No old cursor can be trusted to be complete.
                logger.warning("events_may_be_lost", cause=cause, consequence="every channel begins a new epoch")
                for (channel,) in connection.execute("SELECT id FROM channels").fetchall():
                    connection.execute("UPDATE channels SET epoch = ? WHERE id = ?", (new_epoch(), channel))
            for name, value in (("open", 1), ("boot", boot), ("synchronous", self._synchronous)):
                connection.execute("REPLACE INTO facts VALUES (?, ?)", (name, value))


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All statements or none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        # A full disk may have rolled back already, and a COMMIT that fails leaves the transaction open.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def durably(connection: sqlite3.Connection, synchronous: str) -> Iterator[None]:
    """A transaction that is on the disk when it ends, whatever the setting; and with it all before it."""
    connection.execute("PRAGMA synchronous = FULL")
    try:
        with transaction(connection):
            yield
    finally:
        with suppress(sqlite3.Error):
            connection.execute(f"PRAGMA synchronous = {synchronous}")


def checkpoint(connection: sqlite3.Connection, mode: str) -> bool:
    """Copy the write-ahead log into the database; True if all is copied and nobody was in the way."""
    busy, frames, copied = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return not busy and frames == copied


def wait_for_others(connection: sqlite3.Connection, seconds: float) -> None:
    """How long a statement waits while another connection has what it needs."""
    connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")


def _is_new(connection: sqlite3.Connection) -> bool:
    """True for an empty file. Raises RelayUnavailable for another program's database, or another version's."""
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application == 0 and version == 0 and tables == 0:
        return True
    if application != APPLICATION_ID:
        raise RelayUnavailable("the database of another program")
    if version != SCHEMA_VERSION:
        raise RelayUnavailable(
            f"written by another version of Ringcast (its schema is {version}, this one's {SCHEMA_VERSION})"
        )
    return False


def _create_schema(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)


def _sync_folder(path: str) -> None:
    """Make the new file's name durable, not only its content."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _reason(error: Exception, path: str) -> str:
    if isinstance(error, OSError):
        return (error.strerror or "cannot be opened").lower()
    return refusal(error, path).reason
