"""Where answers are kept: what every store does, and the store in this process.

Owns the bounds of the process store, its order of going (least recently used first), and the tables by which a drop
finds what it means. Must never know of endpoints or requests.

Invariants: nothing that was dropped is given out again; entries and bytes stay within their bounds, the tables counted.
Cost: a read, a write and an eviction take a few microseconds, whatever is there (and a fraction of one per tag); a drop
by tags grows with what it drops alone. Other drops look at all entries of a route, or at all, a slice at a time.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from sys import intern
from typing import NamedTuple, Protocol

from handlers.cache_entry import Drop, Kept

SLICE_ENTRIES = 100
# An answer larger than this part of the store is not kept: it would push out too many others.
LARGEST_SHARE = 8


class StoreAway(Exception):
    """The store does not answer, or not in time."""


class Claim(NamedTuple):
    """The right to compute an answer. `began` is when, by the store's clock in microseconds; `token` shows whose a lock
    is ("": there is none)."""

    began: int = 0
    token: str = ""


class Size(NamedTuple):
    """What a store holds of a route."""

    entries: int
    bytes: int


class Store(Protocol):
    """Keeps answers. Everything that waits does so for a bounded time, and raises StoreAway after it."""

    async def read(self, key: str) -> Kept | None:
        """The answer, if there is one that is not over."""

    async def claim(self, key: str, *, fresh: bool) -> Kept | Claim:
        """Before computing: an answer that another node has made meanwhile (not if it has to be `fresh`), or the right
        to make one."""

    async def release(self, key: str, claim: Claim) -> None:
        """No answer will be written."""

    async def write(self, kept: Kept, claim: Claim) -> bool:
        """Keep an answer; False if it can't be kept, or was dropped while it was made."""

    def drop_now(self, drop: Drop) -> Mapping[str, int] | None:
        """As `drop`, if that is done in no time; None if it takes waiting."""

    async def drop(self, drop: Drop) -> Mapping[str, int]:
        """Drop what is meant, or write down that it is stale; how many went of each route."""

    def sizes(self) -> Mapping[str, Size]:
        """What is held, by route."""

    def state(self) -> str:
        """ "ok", or what is wrong."""

    async def stop(self) -> None:
        """Let go of connections."""


class ProcessStore:
    """Answers in this process, for it alone."""

    def __init__(self, max_bytes: int, max_entries: int, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._clock = clock
        self._entries: OrderedDict[str, Kept] = OrderedDict()
        self._by_tag: dict[str, set[Kept]] = {}
        self._by_route: dict[str, set[Kept]] = {}
        self._route_bytes: Counter[str] = Counter()
        self._bytes = 0

    async def read(self, key: str) -> Kept | None:
        """The answer, if there is one that is not over."""
        kept = self._entries.get(key)
        if kept is None:
            return None
        if self._over(kept):
            self._remove(kept)
            return None
        self._entries.move_to_end(key)
        return kept

    async def claim(self, key: str, *, fresh: bool) -> Kept | Claim:  # noqa: ARG002 (every store has it)
        """The right to compute: nobody else has this store."""
        return Claim()

    async def release(self, key: str, claim: Claim) -> None:
        """Nothing to give back."""

    async def write(self, kept: Kept, claim: Claim) -> bool:  # noqa: ARG002 (every store has it)
        """Keep an answer in place of what is there."""
        before = self._entries.get(kept.key)
        if before is not None:
            self._remove(before)
        if kept.cost * LARGEST_SHARE > self._max_bytes:
            return False
        kept.tags = tuple(map(intern, kept.tags))  # the same few in many answers
        self._add(kept)
        self._evict()
        return True

    def _over(self, kept: Kept) -> bool:
        return self._clock() - kept.made >= kept.kept_seconds

    def _add(self, kept: Kept) -> None:
        self._entries[kept.key] = kept
        self._by_route.setdefault(kept.route, set()).add(kept)
        for tag in kept.tags:
            self._by_tag.setdefault(tag, set()).add(kept)
        self._count(kept, kept.cost)

    def _remove(self, kept: Kept) -> None:
        del self._entries[kept.key]
        of_route = self._by_route[kept.route]
        of_route.discard(kept)
        if not of_route:
            del self._by_route[kept.route]
        for tag in kept.tags:
            found = self._by_tag.get(tag)  # an answer may name a tag twice
            if found is not None:
                found.discard(kept)
                if not found:
                    del self._by_tag[tag]
        self._count(kept, -kept.cost)

    def _count(self, kept: Kept, cost: int) -> None:
        self._bytes += cost
        self._route_bytes[kept.route] += cost

    def _evict(self) -> None:
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            self._remove(next(iter(self._entries.values())))
        # What is over and not asked for any more comes to this end by itself: two go for each one that comes.
        for _ in range(2):
            oldest = next(iter(self._entries.values()), None)
            if oldest is None or not self._over(oldest):
                return
            self._remove(oldest)

    # --- drops

    def drop_now(self, drop: Drop) -> Mapping[str, int] | None:
        """Drop by tags; None for any other drop."""
        if drop.tags is None or drop.where is not None:
            return None
        return self._drop(drop, self._meant(drop))

    async def drop(self, drop: Drop) -> Mapping[str, int]:
        """Drop what is meant, a slice at a time: the loop has others to serve."""
        meant, dropped = self._meant(drop), Counter[str]()
        for start in range(0, len(meant), SLICE_ENTRIES):
            dropped += self._drop(drop, meant[start : start + SLICE_ENTRIES])
            if start + SLICE_ENTRIES < len(meant):
                await asyncio.sleep(0)
        return dropped

    def _meant(self, drop: Drop) -> list[Kept]:
        """All that may be meant; exactly what is meant, if tags or a route alone say it."""
        if drop.tags is not None:
            return list(set().union(*(self._by_tag.get(tag, ()) for tag in drop.tags)))
        return list(self._entries.values() if drop.route is None else self._by_route.get(drop.route, ()))

    def _drop(self, drop: Drop, some: Iterable[Kept]) -> Counter[str]:
        dropped = Counter[str]()
        for kept in some:
            if self._entries.get(kept.key) is not kept or not (drop.simple or drop.meets(kept)):
                continue
            if kept.drop_on_change or not drop.change:
                self._remove(kept)
                dropped[kept.route] += 1
            elif kept.changed is None:
                kept.changed = self._clock()
        return dropped

    def sizes(self) -> Mapping[str, Size]:
        """What is held, by route; among it may be what is over and was not asked for since."""
        return {route: Size(len(found), self._route_bytes[route]) for route, found in self._by_route.items()}

    def state(self) -> str:
        """Always "ok"."""
        return "ok"

    async def stop(self) -> None:
        """Nothing to let go of."""
