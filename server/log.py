"""Logs: a channel's newest entries in memory, for replay.

Owns the bounded history by position and by publishers' own ids. Must never know of readers or of where else the log is
kept. Pure: time is passed in.

Invariants: positions strictly increase; `floor` is the position of the newest entry dropped, so a cursor at or above it
has missed nothing that is gone. Cost: an append is amortised O(1); a look-up by position is a binary search; an entry
is one pointer beside its frame.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter

from server.relay.protocol import Entry, Retention


class Log:
    """Entries after `floor` up to `head`."""

    __slots__ = ("_entries", "_ids", "_positions", "_start", "bound", "bytes", "floor")

    def __init__(self, bound: Retention, floor: int) -> None:
        self.bound = bound
        self.floor = floor
        self.bytes = 0
        self._entries: list[Entry | None] = []
        self._positions: list[int] = []
        self._start = 0  # entries before it are dropped; the lists are compacted when they are half empty
        self._ids: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self._entries) - self._start

    @property
    def head(self) -> int:
        """The position of the newest entry, or the floor if there is none."""
        return self._positions[-1] if len(self) else self.floor

    def append(self, entry: Entry) -> None:
        """Add the newest entry and drop what is over the bounds of count and bytes."""
        self._entries.append(entry)
        self._positions.append(entry.position)
        self.bytes += len(entry.frame)
        if entry.event.id is not None:
            self._ids.setdefault(entry.event.id, []).append(entry.position)
        bound = self.bound
        while (bound.events and len(self) > bound.events) or (
            bound.bytes and self.bytes > bound.bytes and len(self) > 1
        ):
            self._drop()

    def insert(self, entries: Sequence[Entry]) -> None:
        """Add entries among those that are there, in order, but for what they already are or the floor has passed."""
        known = set(self._positions[self._start :])
        older = {
            entry.position: entry for entry in entries if entry.position > self.floor and entry.position not in known
        }
        if not older:
            return
        whole = sorted([*self.after(self.floor, len(self)), *older.values()], key=attrgetter("position"))
        self.bytes = self._start = 0
        self._entries, self._positions, self._ids = [], [], {}
        for entry in whole:
            self.append(entry)

    def expire(self, now: float) -> None:
        """Drop what is older than the bound of age. `now` is in seconds since 1970."""
        if not self.bound.seconds:
            return
        oldest = now - self.bound.seconds
        while len(self) and self._at(self._start).time < oldest:
            self._drop()

    def after(self, position: int, limit: int) -> list[Entry]:
        """At most `limit` entries after `position`, oldest first. The caller has compared `position` with `floor`."""
        first = bisect_right(self._positions, position, self._start)
        return self._entries[first : first + limit]  # type: ignore[return-value]

    def before(self, position: int, limit: int) -> list[Entry]:
        """At most `limit` entries up to `position`, newest first."""
        stop = bisect_right(self._positions, position, self._start)
        return self._entries[max(self._start, stop - limit) : stop][::-1]  # type: ignore[return-value]

    def with_id(self, event_id: str) -> Iterator[Entry]:
        """The entries that carry this publisher's id, oldest first."""
        return (self.after(position - 1, 1)[0] for position in self._ids.get(event_id, ()))

    def _at(self, index: int) -> Entry:
        entry = self._entries[index]
        assert entry is not None
        return entry

    def _drop(self) -> None:
        entry = self._at(self._start)
        self._entries[self._start] = None
        self._start += 1
        self.floor = entry.position
        self.bytes -= len(entry.frame)
        if entry.event.id is not None:
            places = self._ids[entry.event.id]
            del places[0]
            if not places:
                del self._ids[entry.event.id]
        if self._start > 512 and self._start * 2 > len(self._entries):
            del self._entries[: self._start], self._positions[: self._start]
            self._start = 0
