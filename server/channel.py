"""Channels: a named, ordered log with its own policy, and the feeds of its readers on this node.

Owns the way of an event from the log to the feeds, and the decision where a resuming reader starts. Must never know of
sockets or of the relay. Pure.

Invariant: an entry is in the log and in every feed that wants it in one step, so a reader that joins after a look at
the log misses nothing and gets nothing twice. Who is live is told of a hole in the log before anything that comes
behind it, by positions that depend on nothing but what it may read (contract, Isolation): so the end of a hole is known
only with the first event that a feed gets behind it, or once the present has passed it.
Cost per event: one index look-up, one append per matching feed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from server.feed import Feed
from server.frames import Encoding, cursor_block, gap_frame
from server.ids import EARLIEST, format_id, parse_id
from server.index import FeedIndex
from server.log import Log
from server.relay.protocol import Entry, Followed, Retention
from server.selection import Selection
from server.shards import Following, Shards

MAX_SAME_ID = 100  # looked at for one that may be read, as relays do: a publisher may use one id for all its events
_RING = Retention(10_000, 64 << 20, 86_400.0)
_RETAIN = Retention(1_000_000, 1 << 30, 86_400.0)


@dataclass(frozen=True, slots=True)
class Policy:
    """A channel's knobs, in the units of the settings of the same names."""

    heartbeat_seconds: float = 30.0
    heartbeat_style: str = "cursor"
    max_age_seconds: float = 1800.0
    idle_seconds: float = 900.0
    lag_policy: str = "gap"
    lag_events: int = 1000
    lag_bytes: int = 1 << 20
    ring: Retention = _RING
    retain: Retention = _RETAIN
    anonymous: bool = False
    hello_event: str = "hello"
    unknown_cursor: str = "all"


class Floors(NamedTuple):
    """Of the shards that a selection needs: who is behind `missed` has missed something of one of them, and behind
    `begun` there is nothing in any. The same in a channel that is not split."""

    missed: int
    begun: int


class Start(NamedTuple):
    """Where a stream begins: everything after `position` (None: live from now). `gap` is the reason of a declared
    gap, which is up to `missed`; `found` if the cursor was. `last`: with that many selected entries up to `position`
    before it."""

    position: int | None
    gap: str | None = None
    found: bool = False
    last: int = 0
    missed: int = 0


class Hole(NamedTuple):
    """What the live readers of a feed have still to be told: what was up to `upto` may be missing. That is a place in
    the log, and may be of an event that they may not read; `present` is not before it, and may be named to anybody."""

    reason: str
    upto: int
    present: int


class Channel:
    """See the module's head. `holes`: of feeds whose readers have still to be told of one."""

    __slots__ = (
        "epoch", "feeds", "following", "holes", "index", "log", "name", "policy", "published", "published_bytes",
        "readers",
    )  # fmt: skip

    def __init__(self, name: str, policy: Policy, epoch: str, log: Log, shards: int = 1) -> None:
        self.name = name
        self.policy = policy
        self.epoch = epoch
        self.log = log
        self.following = Following(shards)
        self.feeds: dict[tuple[Selection, Encoding], Feed] = {}
        self.holes: dict[Feed, Hole] = {}
        self.index = FeedIndex()
        self.readers = 0
        self.published = 0
        self.published_bytes = 0

    def accept(self, entries: Sequence[Entry], now: float) -> list[Feed]:
        """Take new entries of the log, in order; the feeds that got frames, each once. `now` is of the loop's clock."""
        if self.holes:
            self._tell_before(entries)
        touched: dict[Feed, None] = {}
        for entry in entries:
            self.log.append(entry)
            self.published += 1
            self.published_bytes += len(entry.frame)
            for feed in self.index.match(entry.event):
                feed.publish(entry.frame, entry.position)
                feed.last_event = now
                touched[feed] = None
        return list(touched)

    def enter(self, selection: Selection, encoding: Encoding) -> Feed:
        """The feed for a selection, with one member more."""
        key = (selection, encoding)
        feed = self.feeds.get(key)
        if feed is None:
            feed = self.feeds[key] = Feed(self, selection, encoding)
            self.index.add(feed)
            self.following.enter(feed.shards)
        feed.members += 1
        self.readers += 1
        return feed

    def depart(self, feed: Feed) -> None:
        """One member less; a feed without members is forgotten."""
        feed.members -= 1
        self.readers -= 1
        if not feed.members:
            del self.feeds[feed.selection, feed.encoding]
            self.index.remove(feed)
            self.following.depart(feed.shards)
            self.holes.pop(feed, None)

    def include(self, followed: Sequence[Followed], now: float) -> None:
        """Shards that are followed from now on, with what they held before."""
        self.log.insert([entry for _, _, recent in followed for entry in recent])
        for shard, since, _ in followed:
            self.following.began(shard, since, now)

    def lose(self, shards: Shards, reason: str, upto: int, present: int) -> None:
        """Of these shards nobody can read what was up to there (see `Hole`). The readers of feeds that need them are
        told before the next event that they get, or by `tell_all`."""
        for shard in shards:
            self.following.lost(shard, upto)
        for feed in self.feeds.values():
            if not shards or not feed.shards or not set(shards).isdisjoint(feed.shards):
                hole = self.holes.get(feed) or Hole(reason, upto, present)
                self.holes[feed] = Hole(hole.reason, max(hole.upto, upto), max(hole.present, present))

    def _tell_before(self, entries: Sequence[Entry]) -> None:
        """Tell those of holes who get one of these. What is named is the place before the first that they get: it
        depends on nothing else. Of several shards one may have a hole that ends further on: then it is the present."""
        for entry in entries:
            for feed in self.index.match(entry.event):
                hole = self.holes.pop(feed, None)
                if hole is not None:
                    before = entry.position - 1
                    self._publish_gap(feed, hole, before if before >= hole.upto else hole.present)
            if not self.holes:
                break

    def tell(self, feed: Feed) -> Feed:
        """Tell a feed's readers of their hole at once: another is about to join them who does not have it. The feed."""
        hole = self.holes.pop(feed)
        self._publish_gap(feed, hole, hole.present)
        return feed

    def tell_all(self, mark: int) -> list[Feed]:
        """Tell those of holes who got nothing since, and move their cursors on to the relay's `mark`; the feeds. Where
        it has not passed a hole, something may still come from before."""
        feeds = [feed for feed, hole in self.holes.items() if hole.upto <= mark]
        for feed in feeds:
            self._publish_gap(feed, self.holes.pop(feed), mark)
            feed.publish(cursor_block(format_id(self.epoch, mark)), mark)
        return feeds

    def _publish_gap(self, feed: Feed, hole: Hole, to: int) -> None:
        last = feed.ring.before(feed.ring.head)
        since = format_id(self.epoch, last) if last else None
        feed.publish(gap_frame(hole.reason, since, format_id(self.epoch, to)), last)

    def turn(self, epoch: str, log: Log, reason: str, position: int) -> list[Feed]:
        """Go on with another log: each feed's readers are told that nothing is as it was up to `position`, where it
        began. The feeds, all of them."""
        self.holes.clear()
        now = format_id(epoch, position)
        for feed in self.feeds.values():
            last = feed.ring.before(feed.ring.head)
            since = format_id(self.epoch, last) if last else None
            feed.publish(gap_frame(reason, since, now) + cursor_block(now), position)
        self.epoch = epoch
        self.log = log
        return list(self.feeds.values())

    def locate(self, cursor: str, selection: Selection, floors: Floors, mark: int) -> Start | None:
        """Where a stream with this cursor starts; None if only the relay can tell (a publisher's id that memory does
        not hold).

        `floors` and `mark` are the relay's: what is there, and the present.
        """
        if not cursor:
            return Start(None)
        if cursor == EARLIEST:
            return Start(floors.begun, missed=floors.missed)
        parsed = parse_id(cursor)
        if parsed is None or parsed[0] != self.epoch:
            return self._locate_foreign(cursor, selection, floors, parsed is not None)
        position = parsed[1]
        if position > max(mark, self.log.head):
            return Start(None, gap="future")
        if position < floors.missed:
            return Start(max(position, floors.begun), gap="history", missed=floors.missed)
        return Start(position, found=True)

    def _locate_foreign(self, cursor: str, selection: Selection, floors: Floors, own_form: bool) -> Start | None:
        """A cursor that is not of this epoch: a publisher's own id, one of another epoch, or anything."""
        if not own_form and (floors.missed < self.log.floor or self.following.count > 1):
            return None  # the relay may know an earlier one, or one in a shard that is not followed
        for entry in islice(self.log.with_id(cursor), MAX_SAME_ID):
            if selection.may_read(entry.event):
                return Start(entry.position, found=True)
        return Start(floors.begun, gap="epoch", missed=floors.missed) if own_form else self.lost(floors)

    def lost(self, floors: Floors) -> Start:
        """Where a stream with a cursor that nobody knows starts."""
        position = floors.begun if self.policy.unknown_cursor == "all" else None
        return Start(position, gap="unknown", missed=floors.missed)
