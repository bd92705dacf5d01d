"""What an error of SQLite means to a publisher and to an operator.

Owns the table from error codes to reasons. Reasons name no paths: publishers read them.
"""

from __future__ import annotations

import os
import sqlite3

from server.relay.protocol import RelayUnavailable

# Below this much free space an I/O error is taken for a full disk: SQLite reports some of them so (the shared index
# cannot grow, for one).
_FULL_BYTES = 1 << 20

_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_BUSY: "the log is locked by another process",
    sqlite3.SQLITE_LOCKED: "the log is locked by another process",
    sqlite3.SQLITE_READONLY: "the log cannot be written",
    sqlite3.SQLITE_CANTOPEN: "the log cannot be opened",
    sqlite3.SQLITE_PERM: "the log cannot be written",
    sqlite3.SQLITE_CORRUPT: "the log is damaged",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_PROTOCOL: "the log is locked by another process",
}


def is_about_the_file(error: BaseException) -> bool:
    """True if every append would fail the same way now; False if the fault is in what was to be written."""
    return isinstance(error, sqlite3.Error) and _code(error) in _REASONS


def refusal(error: BaseException, path: str) -> RelayUnavailable:
    """The error as publishers are told of it."""
    if isinstance(error, RelayUnavailable):
        return error
    code = _code(error)
    if code == sqlite3.SQLITE_IOERR and _disk_is_full(path):
        code = sqlite3.SQLITE_FULL
    return RelayUnavailable(_REASONS.get(code, "the log failed"))


def _code(error: BaseException) -> int:
    # The low byte is the primary code; the rest tells which system call it was.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _disk_is_full(path: str) -> bool:
    try:
        facts = os.statvfs(path)
    except OSError:
        return False
    return facts.f_bavail * facts.f_frsize < _FULL_BYTES
