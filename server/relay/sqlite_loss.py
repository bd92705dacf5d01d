"""Whether a log has lost what it acknowledged, as far as that can be known when it is opened.

Owns the two signs: the machine went down while commits were not synced, and the write-ahead log holds less than its
shared index says it did. SQLite itself says nothing of either: it opens the log as it was a moment earlier. Then every
channel begins a new epoch, so that a client whose cursor lies in what is gone is told of a gap.

After `kill -9` the shared index is as the last commit left it, for it lives in the page cache; after a crash of the
machine it is of any age, and not looked at. Sources: sqlite.org/walformat.html, section 2 (the header of the index).
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Mapping

# Version, whether the rest is valid, and the number of frames; the header stands there twice.
_HEADER = struct.Struct("=I8xB3xI28x")
_VERSION = 3_007_000


def boot_id() -> str:
    """A name for this run of the machine; "" where there is none, and then its crashes go unnoticed."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as source:
            return source.read().strip()
    except OSError:
        return ""


def frames_promised(path: str) -> int:
    """How many frames the write-ahead log has, by its index; 0 if unknown. To be asked before it is opened."""
    try:
        with open(f"{path}-shm", "rb") as source:
            head = source.read(2 * _HEADER.size)
    except OSError:
        return 0
    if len(head) < 2 * _HEADER.size or head[: _HEADER.size] != head[_HEADER.size :]:
        return 0
    version, valid, frames = _HEADER.unpack_from(head)
    return frames if version == _VERSION and valid else 0


def frames_found(connection: sqlite3.Connection) -> int:
    """How many frames of the write-ahead log are whole."""
    return int(connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])


def cause_of_loss(facts: Mapping[str, object], boot: str, promised: int, found: int) -> str | None:
    """Why acknowledged events may be missing, or None. `facts` are those of the last start."""
    went_down = facts.get("boot", boot) != boot
    if went_down:
        return "the machine went down" if facts.get("open") and facts.get("synchronous") != "FULL" else None
    return "the write-ahead log was cut short" if found < promised else None
