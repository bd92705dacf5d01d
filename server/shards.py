"""Shards: the parts that a large channel's log is split into, by topic, where nodes share it.

Owns which shard a topic is in, which shards a selection needs, and what a node keeps of them: from where on memory has
everything of a shard, and how many feeds need it. Must never know of relays or readers. Pure: time is passed in.

Invariants: a shard with feeds is never given up. Positions are the channel's, whatever the shard: one order, one
cursor. A channel that is not split has one shard, which is always there, and costs nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from zlib import crc32

from server.selection import Selection

Shards = tuple[int, ...]
ALL: Shards = ()
IDLE_SECONDS = 60.0  # a shard is followed so long after its last feed: its readers may only be reconnecting


def shards_of(topics: Iterable[str], count: int) -> Shards:
    """The shards that hold an event with these topics, or that these topics are read from. An event without topics is
    in the first: only who reads all of them wants it."""
    return tuple(sorted({crc32(topic.encode()) % count for topic in topics})) or (0,)


def shards_for(selection: Selection, count: int) -> Shards:
    """The shards that a selection needs. A template or `*` may match topics of any."""
    if count == 1 or selection.topics is None or not all(topic.exact for topic in selection.topics):
        return ALL
    shards = shards_of([topic.text for topic in selection.topics], count)
    return ALL if len(shards) == count else shards


class Following:
    """Which of a channel's `count` shards this node follows."""

    __slots__ = ("_feeds", "_idle_since", "_since", "count")

    def __init__(self, count: int) -> None:
        self.count = count
        self._since: dict[int, int] = {}
        self._feeds: dict[int, int] = {}
        self._idle_since: dict[int, float] = {}

    def _each(self, shards: Shards) -> Sequence[int]:
        return shards or range(self.count)

    def missing(self, shards: Shards) -> list[int]:
        """Those that have to be followed first."""
        return [] if self.count == 1 else [shard for shard in self._each(shards) if shard not in self._since]

    def began(self, shard: int, since: int, now: float) -> None:
        """The shard is followed: memory has what is after `since` of it."""
        self._since[shard] = since
        if not self._feeds.get(shard):
            self._idle_since[shard] = now

    def lost(self, shard: int, upto: int) -> None:
        """What was in the shard up to there can't be had any more."""
        if shard in self._since:
            self._since[shard] = max(self._since[shard], upto)

    def floor(self, shards: Shards) -> int:
        """The position behind which memory may lack something of these shards, as far as following goes."""
        return 0 if self.count == 1 else max(self._since[shard] for shard in self._each(shards))

    def enter(self, shards: Shards) -> None:
        """One feed more, or one who is about to have one."""
        if self.count > 1:
            for shard in self._each(shards):
                self._feeds[shard] = self._feeds.get(shard, 0) + 1
                self._idle_since.pop(shard, None)

    def depart(self, shards: Shards) -> None:
        """One less."""
        if self.count > 1:
            for shard in self._each(shards):
                self._feeds[shard] -= 1

    def give_up(self, now: float) -> list[int]:
        """Called now and then: shards that nobody has needed for long, and that are not followed from here on."""
        gone = []
        for shard in list(self._since):
            if not self._feeds.get(shard) and now - self._idle_since.setdefault(shard, now) > IDLE_SECONDS:
                del self._since[shard], self._idle_since[shard]
                gone.append(shard)
        return gone

    @property
    def followed(self) -> list[int]:
        """The shards that are followed."""
        return sorted(self._since) if self.count > 1 else [0]
