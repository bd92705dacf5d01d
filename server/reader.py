"""Readers: one connection each, as small as it can be.

Owns nothing but the record. Invariants: `fd` is -1 once closed; `index` is the place in its feed's `readers`, or -1
while stalled or replaying. Cost: about 250 bytes with its table entries. Nothing here per event: no queue, no timer, no
task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.admission import Holder
    from server.endings import Ending
    from server.feed import Feed
    from server.replay import Replay


REPLAYING = -1


class Reader:
    """`cursor`: sequence number in the feed's ring, `REPLAYING` while it is still behind. `opened`, `deadline`: seconds
    of the loop's clock. `ending`: why it ends at the deadline. `planned`: it is on the list of a tick. `marks`: what
    its rights can be revoked by."""

    __slots__ = (
        "address",
        "cursor",
        "deadline",
        "ending",
        "fd",
        "feed",
        "index",
        "marks",
        "opened",
        "planned",
        "replay",
        "slot",
        "slot_index",
        "stall",
        "subject",
    )

    def __init__(self, fd: int, feed: Feed, address: Holder, subject: Holder | None) -> None:
        self.fd = fd
        self.feed = feed
        self.address = address
        self.subject = subject
        self.cursor = 0
        self.index = -1
        self.marks: tuple[str, ...] = ()
        self.opened = 0.0
        self.deadline = 0.0
        self.ending: Ending | None = None
        self.planned = False
        self.slot: list[Reader] | None = None
        self.slot_index = 0
        self.stall: Stall | None = None
        self.replay: Replay | None = None


class Stall:
    """A reader whose socket took no more: what is left of the write, since when, and the log position that the write
    ends at (0: unknown)."""

    __slots__ = ("position", "rest", "since")

    def __init__(self, rest: memoryview, since: float, position: int) -> None:
        self.rest = rest
        self.since = since
        self.position = position
