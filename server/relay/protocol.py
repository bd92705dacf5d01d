"""The relay protocol: where a channel's log lives and how nodes share it.

Owns the interface that `memory:`, `sqlite:` and later Redis implement; the hub knows nothing else of a relay. A relay
must never know of readers.

What every relay guarantees:
- `append` is atomic (all events of a call or none), idempotent under a key, and returns once the events are in the log.
What that survives is the relay's own and documented (`durability`).
- Positions strictly increase within a channel's epoch and are times in microseconds. Nothing is delivered at or below a
position that `mark` gave out before.
- Entries reach `deliver` exactly once, in order, on the event loop, before `append` returns to the publisher on the
same node.
- `read` returns entries in order from the retained log; `floor` is the position below or at which events may have been
dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from server.event import Event
from server.shards import ALL, Shards


class Entry(NamedTuple):
    """An event in a log: its position, its id on the wire, the event, its frame (encoded once) and the time of the
    append in seconds."""

    position: int
    id: str
    event: Event
    frame: bytes
    time: float


class Key(NamedTuple):
    """An idempotency key. `scope` separates publishers; `digest` tells the same request from another under the same
    key."""

    scope: str
    key: str
    digest: bytes


class Appended(NamedTuple):
    """The ids of a publish, in order. `replayed` is true if the key had been seen and nothing was appended."""

    ids: tuple[str, ...]
    replayed: bool


@dataclass(frozen=True, slots=True)
class Retention:
    """Bounds of a channel's log; 0 means no bound."""

    events: int
    bytes: int
    seconds: float


@dataclass(slots=True)
class LogState:
    """A channel's log as the relay opened it. `recent` are its newest entries, oldest first, at most what was asked
    for. `shards`: how many it is split into; if more than one, none is followed yet and nothing is recent. `missing`:
    of a hole that concerns only some shards, these."""

    epoch: str
    floor: int
    recent: list[Entry]
    shards: int = 1
    missing: Shards = ALL


class Stretch(list[Entry]):
    """Entries of a log, in order: up to the position `upto` they are all that there is after where it began."""

    __slots__ = ("upto",)

    def __init__(self, entries: Iterable[Entry], upto: int) -> None:
        super().__init__(entries)
        self.upto = upto


class Followed(NamedTuple):
    """A shard that is followed from now on: all that is in it after `since` is in `recent` (oldest first) or will be
    delivered."""

    shard: int
    since: int
    recent: Sequence[Entry]


class RelayUnavailable(Exception):
    """The log did not take the events: they were not published. `reason` is safe to show to a publisher."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RelayUncertain(RelayUnavailable):
    """The log's answer did not come: the events may have been published. The same idempotency key settles it."""


class KeyConflict(Exception):
    """The idempotency key was used with another request."""


Deliver = Callable[[str, Sequence[Entry]], None]
# A channel's log is not what it was: channel, reason, position and state. What is after the newest entry delivered so
# far and up to the position may be missing. Reasons: "epoch" (another log: the position is a moment), "history"
# (entries were dropped before this node read them), "damaged" (an entry that cannot be read). For the last two the
# position may be that of a private event, and only some shards may be concerned (`missing`): nothing is missing of the
# others.
Turned = Callable[[str, str, int, LogState], None]


class Board(Protocol):
    """What nodes tell each other beside events. Everything may raise RelayUnavailable."""

    on_notice: Callable[[bytes], None]

    async def post(self, text: str) -> None:
        """Put up a notice: `on_notice` gets it on every node, this one included, also on those that start later."""

    async def register(self, node: str, facts: str, seconds: float) -> None:
        """Say that a node is there, for so long."""

    async def leave(self, node: str) -> None:
        """Say that a node is gone."""

    async def nodes(self) -> list[bytes]:
        """The facts of every node that is there."""


class Splitter(Protocol):
    """For logs that are split into shards: what nobody on this node reads need not come here."""

    async def follow(
        self, channel: str, shards: Sequence[int], recent: int, recent_bytes: int = 0
    ) -> Sequence[Followed]:
        """Deliver entries of these shards from now on. `recent`: how many of the newest to give for each, of about
        `recent_bytes` at the most (0: no bound). Raises RelayUnavailable."""

    def unfollow(self, channel: str, shards: Sequence[int]) -> None:
        """Deliver no entries that are in these shards only."""


class Relay(Protocol):
    """See the module's head for what each implementation guarantees. Shards that are named mean these, `ALL` the whole
    log; a relay that does not split logs ignores them."""

    durability: str
    shared: bool  # True if other nodes append to the logs, and may be ahead

    @property
    def board(self) -> Board | None:
        """What nodes tell each other beside events; None where there are no others."""

    @property
    def splitter(self) -> Splitter | None:
        """None where no log is split."""

    async def start(self, deliver: Deliver, turned: Turned) -> None:
        """Open the store. `turned` is called for logs that others share. Raises RelayUnavailable with a reason an
        operator understands."""

    async def open(self, channel: str, retention: Retention, recent: int, recent_bytes: int = 0) -> LogState:
        """Open or create a channel's log. `recent`: how many of its newest entries to give, of about `recent_bytes` at
        the most (0: no bound)."""

    async def append(self, channel: str, events: Sequence[Event], key: Key | None) -> Appended:
        """Append all events or none. Raises RelayUnavailable, KeyConflict."""

    async def read(self, channel: str, after: int, limit: int, shards: Shards = ALL) -> Stretch:
        """Entries after the position `after`, in order: at most `limit`, perhaps fewer, none only at the head.

        `floor` may have risen meanwhile: compare it with `after` once the entries are there.
        """

    async def find(self, channel: str, event_id: str) -> Sequence[Entry]:
        """Retained entries with the publisher's own id `event_id`, oldest first, at most 100."""

    async def reach(self, channel: str, epoch: str, position: int) -> None:
        """Return once all that is in the log up to a cursor has been delivered here, or no log knows such a cursor.
        Raises RelayUnavailable."""

    def mark(self, channel: str) -> int:
        """The present as a cursor: a position below every entry that is delivered later. It tells nothing of private
        events, and is at or above every public entry delivered so far."""

    def floor(self, channel: str, shards: Shards = ALL) -> int:
        """The position up to which entries of any of these may have been dropped: who is behind it has missed some."""

    def lowest_floor(self, channel: str, shards: Shards = ALL) -> int:
        """The position up to which entries of all of these have been dropped: behind it there is nothing."""

    def state(self) -> dict[str, object]:
        """Facts for /ready and /stats; `ok` is False if appends can't work."""

    async def close(self) -> None:
        """Finish appends in flight, then close the store."""
