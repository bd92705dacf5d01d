"""Rings: the frames that a feed's readers have still to get, shared by all of them.

Owns the sequence of frames between the slowest reader and the head, and the joining of a span of them into one write. A
reader is a cursor into it: an absolute sequence number. Must never know who reads. Pure: no sockets, no clock.

Invariants: `base` <= every live reader's cursor <= `head`; sequence numbers never come back.
Cost: an append is three list appends; a span is one join, which the broadcaster makes once for all readers at a cursor.
Frames are references to the channel's own bytes.
"""

from __future__ import annotations

from bisect import bisect_right


class Ring:
    """Frames by sequence number, from `base` (oldest held) to `head` (one past the newest)."""

    __slots__ = ("_before", "_ends", "_frames", "_positions", "base", "head")

    def __init__(self) -> None:
        self.base = 0
        self.head = 0
        self._before = 0  # position of the newest frame that was trimmed
        self._frames: list[bytes] = []
        self._positions: list[int] = []
        self._ends: list[int] = []  # running totals of bytes, from an arbitrary start

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def size(self) -> int:
        """Bytes of all frames held."""
        return self.bytes_from(self.base)

    def bytes_from(self, cursor: int) -> int:
        """Bytes of the frames from `cursor` to the head."""
        if cursor >= self.head:
            return 0
        index = cursor - self.base
        return self._ends[-1] - self._ends[index] + len(self._frames[index])

    def append(self, frame: bytes, position: int) -> None:
        """Add the newest frame. `position` is the event's place in the channel's log."""
        self._frames.append(frame)
        self._positions.append(position)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(frame))
        self.head += 1

    def position(self, sequence: int) -> int:
        """The log position of a frame that is still held."""
        return self._positions[sequence - self.base]

    def before(self, cursor: int) -> int:
        """The log position of the newest frame before `cursor` that the ring knows of (0: none yet)."""
        return self._positions[cursor - 1 - self.base] if cursor > self.base else self._before

    def span(self, cursor: int, max_bytes: int) -> tuple[bytes, int]:
        """The joined frames from `cursor` on, at most `max_bytes` unless the first alone is larger, and the cursor
        after them."""
        first = cursor - self.base
        assert first >= 0, "a reader's frames were trimmed"
        if self.head - cursor == 1:
            return self._frames[first], self.head
        limit = self._ends[first] - len(self._frames[first]) + max_bytes
        stop = max(bisect_right(self._ends, limit, first), first + 1)
        return b"".join(self._frames[first:stop]), self.base + stop

    def trim(self, to: int) -> None:
        """Forget frames before sequence number `to`."""
        count = to - self.base
        if count <= 0:
            return
        self._before = self.before(min(to, self.head))
        if to >= self.head:
            self._frames.clear()
            self._positions.clear()
            self._ends.clear()
        else:
            del self._frames[:count], self._positions[:count], self._ends[:count]
        self.base = min(to, self.head)

    def within(self, max_events: int, max_bytes: int) -> int:
        """The oldest cursor that is at most `max_events` frames and `max_bytes` bytes behind the head."""
        oldest = max(self.base, self.head - max_events)
        if self.bytes_from(oldest) <= max_bytes:
            return oldest
        return self.base + bisect_right(self._ends, self._ends[-1] - max_bytes - 1, oldest - self.base) + 1
