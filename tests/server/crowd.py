"""A crowd of readers before a broadcaster: they join, leave, read and are ended by chance, and what always holds is
checked at every step. What each of them received is compared with what was published.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from server.endings import DRAINING
from server.feed import Feed
from server.frames import COMMENT_HEARTBEAT, Encoding
from server.reader import Reader
from server.relay.protocol import Entry
from server.selection import Selection
from server.selectors import parse_selector
from tests.server.engine import SMALLEST_BUFFER, Peer, Stage, accounted, turns, unchunked

TOPICS = ("a", "b", "a/1")
SELECTIONS = (Selection(), *(Selection(frozenset([parse_selector(text)])) for text in ("b", "a/{id}")))
# How often readers join, somebody publishes, peers read, leave, are ended, get a heartbeat, and the loop turns.
MOODS = ((4, 14, 10, 1, 1, 2, 12), (10, 20, 15, 8, 4, 2, 20), (4, 20, 4, 2, 1, 1, 8))


@dataclass
class Member:
    """A reader in the crowd: from which published entry on it is to get what its feed selects."""

    reader: Reader
    peer: Peer
    feed: Feed
    since: int
    left: bool = False  # the peer closed its end


class Crowd(Stage):
    """Publishes, joins, leaves, reads and ends by chance."""

    def __init__(self, chance: random.Random, **options: Any) -> None:
        super().__init__(**options)
        self.chance = chance
        self.entries: list[Entry] = []
        self.members: list[Member] = []
        self.gaps = self.stalls = 0
        self.weights = chance.choice(MOODS)
        for _ in range(15):
            self.join()

    def join(self) -> None:
        encoding = self.chance.choice((Encoding.CHUNKED, Encoding.PLAIN))
        feed = self.channel.enter(self.chance.choice(SELECTIONS), encoding)
        buffer_bytes = self.chance.choice((SMALLEST_BUFFER, 10_000, 200_000))
        self.members.append(Member(*self.add(feed, buffer_bytes), feed, len(self.entries)))

    def publish_some(self) -> None:
        size = self.chance.choice((0, 50, 500, 4000))
        texts = [f"{number} " + "x" * size for number in range(self.chance.randint(1, 4))]
        self.entries += self.publish(*texts, topic=self.chance.choice(TOPICS))

    def read(self) -> None:
        here = [member for member in self.members if not member.left]
        for member in self.chance.sample(here, min(3, len(here))):
            member.peer.read(self.chance.choice((1, 700, 5000, 1 << 20)))

    def leave(self) -> None:
        here = [member for member in self.members if not member.left and member.reader.fd >= 0]
        if len(here) > 2:
            member = self.chance.choice(here)
            member.peer.read_all()
            member.peer.close()
            member.left = True

    def end(self) -> None:
        here = [member for member in self.members if member.reader.fd >= 0]
        if len(here) > 2:
            self.broadcaster.close(self.chance.choice(here).reader, DRAINING)

    def heartbeat(self) -> None:
        for member in self.members:
            reader = member.reader
            if reader.index >= 0 and reader.cursor == member.feed.ring.head:
                self.broadcaster.heartbeat([reader], member.feed.encoding.wrap(COMMENT_HEARTBEAT))

    async def turn(self) -> None:
        await turns(self.chance.randint(1, 4))

    async def step(self) -> None:
        doings = (self.join, self.publish_some, self.read, self.leave, self.end, self.heartbeat, self.turn)
        done = self.chance.choices(doings, self.weights)[0]()
        if done is not None:
            await done
        self.check_feeds()

    def check_feeds(self) -> None:
        """What always holds between two turns of the loop."""
        for feed in self.channel.feeds.values():
            assert [reader.index for reader in feed.readers] == list(range(len(feed.readers)))
            assert all(reader.fd >= 0 and reader.stall is None for reader in feed.readers)
            assert all(feed.ring.base <= reader.cursor <= feed.ring.head for reader in feed.readers)
            members = [member.reader for member in self.members if member.feed is feed and member.reader.fd >= 0]
            waiting = [reader for reader in members if reader.stall is not None]
            self.stalls += len(waiting)
            assert (feed.members, feed.stalled) == (len(members), len(waiting))
            assert len(feed.readers) + len(waiting) == len(members)
            if not feed.dirty:
                policy = self.channel.policy
                assert len(feed.ring) <= policy.lag_events
                assert feed.ring.size <= policy.lag_bytes

    def read_everything(self) -> int:
        return sum(member.peer.read() for member in self.members if not member.left)

    def settled(self) -> bool:
        """Reads all there is; True once there is no more to come."""
        got = self.read_everything()
        return not got and not self.broadcaster.stalled and not any(feed.dirty for feed in self.channel.feeds.values())

    def check_member(self, member: Member) -> None:
        text, ended = member.peer.received, False
        if member.feed.encoding is Encoding.CHUNKED:
            text, ended = unchunked(text)
        wants = member.feed.selection.wants
        expected = [entry for entry in self.entries[member.since :] if wants(entry.event)]
        here = member.reader.fd >= 0
        assert not (here and ended)
        self.gaps += len(accounted(expected, text, whole=here))
