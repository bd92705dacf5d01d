"""A channel's log in Redis as this node knows it.

Owns what is known of the log between two answers of Redis: its shards, how far it was delivered, what the present is,
and who waits for the delivery of what it appended. Must never know of connections. Pure.

Invariants: up to `delivered` everything of the followed shards has been delivered. `mark` never passes an entry of a
followed shard that has not been, and nothing is appended later at or below it. It tells nothing of private events: it
is a moment that Redis has given out, or the position of a delivered public event. A log that is not split has one
shard, which is followed from the start.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from server.event import Event
from server.relay.protocol import Entry, Retention
from server.shards import ALL, Shards, shards_of


class Shard:
    """A stream of a log. `last` is the position of its newest entry, `floor` up to where entries were dropped, `missed`
    up to where that was told of, `events` and `bytes` what it holds, as Redis said last; `unread_since` when it was
    first seen that its newest entry was dropped and has not been read here (the loop's clock)."""

    __slots__ = (
        "bytes", "events", "facts", "floor", "followed", "last", "missed", "number", "stream", "unread_since",
    )  # fmt: skip

    def __init__(self, number: int, facts: str, stream: str, *, followed: bool) -> None:
        self.number = number
        self.facts = facts
        self.stream = stream
        self.followed = followed
        self.last = self.floor = self.missed = self.events = self.bytes = 0
        self.unread_since: float | None = None


class RedisLog:
    """See the module's head. `newest` is the position of the newest entry known to be in the log, `newest_shard` where
    it is, `awaited` that of the newest which this node follows, `given` the highest moment that Redis gave out.
    `tail_id` is the stream id behind which the tail goes on in a log that is not split. `unproven`: so many connections
    broke, and whether the log is still the same has not been looked at; `proof` is then the newest entry that this node
    knew of before, with its shard, which has to be found again. `refused`: why it cannot be used, "" if it can.
    """

    __slots__ = (
        "_present", "_public", "_standing", "_waiters", "awaited", "delivered", "epoch", "facts", "given", "keys",
        "name", "newest", "newest_shard", "own_ids", "proof", "refused", "retention", "shards", "split", "tail_id",
        "unproven",
    )  # fmt: skip

    def __init__(self, name: str, prefix: str, retention: Retention, shards: int = 1) -> None:
        # One hash tag for all keys of a channel: a script may touch only one slot of a cluster.
        tag = f"{{{prefix}:{name}}}"
        self.name = name
        self.facts = f"{tag}:facts"
        self.own_ids = f"{tag}:own"
        self.split = shards > 1
        if self.split:
            self.shards = [Shard(n, f"{tag}:facts:{n}", f"{tag}:events:{n}", followed=False) for n in range(shards)]
        else:
            self.shards = [Shard(0, self.facts, f"{tag}:events", followed=True)]
        self.keys = [self.facts, self.own_ids, *self.keys_of(self.shards)]
        self.retention = retention
        self.refused = ""
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.renew("", 0)

    @property
    def opening_keys(self) -> list[str]:
        """What the script that opens the log wants: `keys`, and where own ids were kept once."""
        return [*self.keys, f"{self.facts[:-6]}:ids"]

    @staticmethod
    def keys_of(shards: Iterable[Shard]) -> list[str]:
        """The keys of some shards, as scripts want them."""
        return [key for shard in shards for key in (shard.facts, shard.stream)]

    def chosen(self, shards: Shards) -> list[Shard]:
        """The shards with these numbers."""
        return [self.shards[number] for number in shards] if shards else self.shards

    @property
    def followed(self) -> list[Shard]:
        """Those that are followed."""
        return [shard for shard in self.shards if shard.followed]

    def shards_of(self, event: Event) -> Shards:
        """The shards that an event goes to."""
        return shards_of(event.topics, len(self.shards)) if self.split else (0,)

    def renew(self, epoch: str, high: int) -> None:
        """Begin anew at `high`: the log was opened, or is another than it was."""
        self.epoch = epoch
        self.delivered = self.given = high
        self.newest = self.newest_shard = self.awaited = 0
        self._standing = (0, 0)
        self.unproven = 0
        self.proof = (0, 0)
        self._present = self._public = high
        for shard in self.shards:
            shard.missed = 0
        self.tail_id = f"{high}-0".encode()
        self.release()

    def include(self, shards: Iterable[Shard]) -> None:
        """Follow these from the present on. To be called while nothing of the log is being read."""
        self.delivered = max(self.delivered, self.mark)
        for shard in shards:
            shard.followed = True
        self._stand(self._standing[0])

    def exclude(self, shards: Iterable[Shard]) -> None:
        """Follow these no more."""
        for shard in shards:
            shard.followed = False
        self.awaited = self.delivered

    def receipt_key(self, scope: str, key: str) -> str:
        """Where the receipt of an idempotency key is kept."""
        return f"{self.facts[:-6]}:receipt:{len(scope)}:{scope}:{key}"

    @property
    def mark(self) -> int:
        """See the module's head."""
        return max(self._present, self._public)

    def floor(self, shards: Shards = ALL) -> int:
        """The position up to which entries of any of these may have been dropped."""
        return max([shard.floor for shard in self.chosen(shards)])

    def lowest_floor(self, shards: Shards = ALL) -> int:
        """The position up to which entries of all of these have been dropped."""
        return min([shard.floor for shard in self.chosen(shards)])

    def appended(self, first: int, events: Sequence[Event]) -> None:
        """Redis has acknowledged these."""
        last = first + len(events) - 1
        if last > self.newest:
            self.newest, self.newest_shard = last, self.shards_of(events[-1])[0]
        while last >= first and not self._follows(events[last - first]):
            last -= 1
        if last >= first:
            self.awaited = max(self.awaited, last)

    def _follows(self, event: Event) -> bool:
        return not self.split or any(self.shards[number].followed for number in self.shards_of(event))

    def doubt(self) -> None:
        """A connection broke. What is appended before the look proves nothing: it is in whatever log is there now."""
        if not self.unproven:
            self.proof = (self.newest, self.newest_shard)
        self.unproven += 1

    def took(self, entries: Sequence[Entry]) -> None:
        """The tail has delivered these."""
        self.delivered = entries[-1].position
        if self.delivered > self.newest:
            self.newest, self.newest_shard = self.delivered, self.shards_of(entries[-1].event)[0]
        for entry in reversed(entries):
            if not entry.event.private:
                self._public = entry.position
                break
        self._move_on()
        while self._waiters and self._waiters[0][0] <= self.delivered:
            self._wake(self._waiters.popleft()[1])

    def stands(self, high: int) -> int:
        """Redis has said that each shard's newest entry up to `high` is its `last`, and that none will be added among
        them. The newest of those that are followed."""
        self.given = max(self.given, high)
        self._stand(high)
        return self._standing[1]

    def never_comes(self, shard: Shard) -> bool:
        """True if a followed shard's newest entry was dropped before it was read, and that has not been told of."""
        return shard.followed and shard.floor >= shard.last > max(self.delivered, shard.missed)

    def _stand(self, high: int) -> None:
        to_come = [shard.last for shard in self.followed if shard.last > shard.missed]
        self._standing = (high, max(to_come, default=0))
        self._move_on()

    def _move_on(self) -> None:
        high, last = self._standing
        if last <= self.delivered:
            self._present = max(self._present, high)

    def arrival(self, position: int) -> asyncio.Future[None] | None:
        """A future for the delivery of an entry; None if it has been."""
        if position <= self.delivered:
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((position, future))
        return future

    def release(self) -> None:
        """Nobody shall wait any longer: the tail is not there."""
        while self._waiters:
            self._wake(self._waiters.popleft()[1])

    @staticmethod
    def _wake(future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_result(None)
