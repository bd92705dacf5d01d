"""A channel's log as the threads of the relay share it.

Owns nothing but the fields, and says which thread may touch which. The loop owns `positions` and `newest`; the writer
owns the counts; anybody may raise `floor`, nobody lowers it.

The floor rises before the transaction that drops entries commits. So whoever read after that commit, and then asks for
the floor, sees it: a hole cannot stay unnoticed. Cost: one object per channel.
"""

from __future__ import annotations

from threading import Lock

from server.relay.positions import LeasedPositions
from server.relay.protocol import Retention


class StoredLog:
    """One channel's row, its counts and its positions."""

    __slots__ = (
        "_floor_lock", "bytes", "epoch", "events", "floor", "id", "keys_weight",
        "name", "newest", "oldest_us", "positions", "retention", "stale",
    )  # fmt: skip

    def __init__(self, number: int, name: str, epoch: str, positions: LeasedPositions, retention: Retention) -> None:
        self.id = number
        self.name = name
        self.epoch = epoch
        self.retention = retention
        self.positions = positions
        self.newest = 0
        self.floor = 0
        self._floor_lock = Lock()
        self.events = 0
        self.bytes = 0
        self.keys_weight = 0
        # The time of the oldest event; 0 if it is not known.
        self.oldest_us = 0
        # True after a transaction was rolled back: the counts must be read again.
        self.stale = True

    def raise_floor(self, position: int) -> None:
        """Entries up to `position` may be gone."""
        with self._floor_lock:
            self.floor = max(self.floor, position)

    def is_over(self, more_events: int = 0, more_bytes: int = 0) -> bool:
        """True if so much more would pass the bounds, by a margin: a large log is not trimmed in every append."""
        keep = self.retention
        return (
            0 < keep.events < self.events + more_events - keep.events // 64
            or 0 < keep.bytes < self.bytes + more_bytes - keep.bytes // 64
        )
