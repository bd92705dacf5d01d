"""Feeds: the readers of one channel that share a selection and an encoding, with one ring of frames.

Owns membership and the state of the sweep over it. Must never know of sockets. Pure.

The sweep goes round `readers` in a circle from `at`; `left` is how many visits remain until every reader has been seen
since the last event. `lap_head` is the lowest cursor that any of them may have at the end of the lap: the head when the
lap began, or less for a reader that got only a part, came back, or was moved behind the sweep. Up to there the ring
forgets. `behind` is the same for the lap before: nobody in `readers` is further back.
Invariants: `readers` are those that can be written to
now, with `reader.index` their place; stalled and replaying readers are members but not in it. Cost: membership changes
are O(1) (the last reader takes the place of the one that leaves).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.ring import Ring
from server.shards import shards_for

if TYPE_CHECKING:
    from server.channel import Channel
    from server.frames import Encoding
    from server.reader import Reader
    from server.selection import Selection


class Feed:
    """See the module's head."""

    __slots__ = (
        "at",
        "behind",
        "channel",
        "dirty",
        "encoding",
        "lap_head",
        "last_event",
        "left",
        "members",
        "readers",
        "ring",
        "selection",
        "shards",
        "since",
        "stalled",
    )

    def __init__(self, channel: Channel, selection: Selection, encoding: Encoding) -> None:
        self.channel = channel
        self.selection = selection
        self.shards = shards_for(selection, channel.following.count)
        self.encoding = encoding
        self.ring = Ring()
        self.readers: list[Reader] = []
        self.members = 0
        self.stalled = 0
        self.at = 0
        self.left = 0
        self.lap_head = 0
        self.behind = 0
        self.dirty = False
        self.since = 0.0  # when the sweep under way began, for the latency metric
        self.last_event = 0.0

    @property
    def floor(self) -> int:
        """The position behind which memory may lack events that this feed's readers select."""
        return max(self.channel.log.floor, self.channel.following.floor(self.shards))

    def publish(self, frame: bytes, position: int) -> None:
        """Add a frame for every reader."""
        self.ring.append(frame, position)
        self.left = len(self.readers)

    def join(self, reader: Reader) -> None:
        """Put a member among those that can be written to."""
        reader.index = len(self.readers)
        self.readers.append(reader)
        if reader.cursor == self.ring.head:
            self.left += self.left > 0
        else:
            self.left = len(self.readers)
            self.lap_head = min(self.lap_head, reader.cursor)  # the end of this lap must not trim what it needs
            self.behind = min(self.behind, reader.cursor)

    def leave(self, reader: Reader) -> None:
        """Take a reader out of those that can be written to (it stays a member)."""
        last = self.readers.pop()
        if last is not reader:
            self.readers[reader.index] = last
            last.index = reader.index
            if last.cursor != self.ring.head:  # it may now be behind the sweep
                self.left = len(self.readers)
                self.lap_head = min(self.lap_head, last.cursor)
        reader.index = -1

    def end_lap(self, lag_events: int, lag_bytes: int) -> None:
        """Called when the sweep comes round: forget frames that nobody needs."""
        self.at = 0
        keep_from = self.lap_head
        if self.stalled:
            keep_from = min(keep_from, self.ring.within(lag_events, lag_bytes))
        self.ring.trim(keep_from)
        self.behind = self.lap_head
        self.lap_head = self.ring.head

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the reader which waits longest for its turn has still to get; stalled readers don't count."""
        return self.ring.bytes_from(max(self.behind, self.ring.base))

    def finish(self, lag_events: int, lag_bytes: int) -> None:
        """Called when every reader in `readers` is at the head: only stalled readers may still need frames."""
        self.left = 0
        head = self.ring.head
        self.ring.trim(min(head, self.ring.within(lag_events, lag_bytes)) if self.stalled else head)
        self.lap_head = self.behind = head
