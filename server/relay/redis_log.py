"""A channel's log in Redis as this node knows it.

Owns what is known of the log between two answers of Redis: how far it was delivered, what the present is, and who waits
for the delivery of what it appended. Must never know of connections. Pure.

Invariants: `mark` never passes an entry that has not been delivered, and nothing is appended later at or below it. It
tells nothing of private events: it is a moment that Redis has given out, or the position of a delivered public event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from server.relay.protocol import Entry, Retention


class RedisLog:
    """See the module's head. `tail_id` is the stream id of the last entry that the tail has read,
    `newest` the position of the newest entry known to be in the log, `given` the highest moment that Redis gave out.
    `unproven`: a connection broke, and whether the log is still the same has not been looked at.
    """

    __slots__ = (
        "_awaited", "_present", "_public", "_standing", "bytes", "delivered", "epoch", "events", "facts", "floor",
        "given", "keys", "name", "newest", "retention", "stream", "tail_id", "unproven",
    )  # fmt: skip

    def __init__(self, name: str, prefix: str, retention: Retention) -> None:
        # One hash tag for all keys of a channel: a script may touch only one slot of a cluster.
        tag = f"{{{prefix}:{name}}}"
        self.name = name
        self.facts = f"{tag}:facts"
        self.stream = f"{tag}:events"
        self.keys = (self.facts, self.stream, f"{tag}:ids")
        self.retention = retention
        self.events = self.bytes = 0
        self._awaited: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.renew("", 0, 0)

    def renew(self, epoch: str, high: int, floor: int) -> None:
        """Begin anew at `high`: the log was opened, or is another than it was."""
        self.epoch = epoch
        self.floor = floor
        self.delivered = self.given = high
        self.newest = 0
        self._standing = (0, 0)
        self.unproven = False
        self.tail_id = f"{high}-0".encode()
        self._present = self._public = high
        self.release()

    def receipt_key(self, scope: str, key: str) -> str:
        """Where the receipt of an idempotency key is kept."""
        return f"{self.facts[:-6]}:receipt:{len(scope)}:{scope}:{key}"

    @property
    def mark(self) -> int:
        """See the module's head."""
        return max(self._present, self._public)

    def appended(self, last: int) -> None:
        """Redis has acknowledged entries up to `last`."""
        self.newest = max(self.newest, last)

    def took(self, entries: Sequence[Entry]) -> None:
        """The tail has delivered these."""
        self.delivered = entries[-1].position
        self.newest = max(self.newest, self.delivered)
        for entry in reversed(entries):
            if not entry.event.private:
                self._public = entry.position
                break
        self._move_on()
        while self._awaited and self._awaited[0][0] <= self.delivered:
            self._wake(self._awaited.popleft()[1])

    def stands(self, high: int, last: int, floor: int) -> None:
        """Redis has said that all entries up to `high` are up to `last`, and that none will be added among them."""
        self.floor = max(self.floor, floor)
        self.given = max(self.given, high)
        self._standing = (high, last)
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
        self._awaited.append((position, future))
        return future

    def release(self) -> None:
        """Nobody shall wait any longer: the tail is not there."""
        while self._awaited:
            self._wake(self._awaited.popleft()[1])

    @staticmethod
    def _wake(future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_result(None)
