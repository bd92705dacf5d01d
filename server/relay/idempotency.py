"""Idempotency keys: what a repeated publish is answered with.

Owns the receipt of a publish (enough to tell its ids again) and the bounded map from key to receipt of a log in memory.
Pure: the caller brings the time. Must never know of HTTP.

Invariants: a receipt is of constant size unless the publisher brought ids of its own; the map is bounded by weight, the
oldest leave first. A publish of 10,000 events under a key must not hold 10,000 strings for the key's lifetime: the
positions of one publish are consecutive, so two numbers do.
Cost: one tuple per key; nothing for a publish without one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from server.ids import format_id
from server.relay.protocol import Entry, Key, KeyConflict

# A key weighs 1, and 1 more for each so many characters of the publisher's own ids.
OWN_IDS_UNIT = 256


class Receipt(NamedTuple):
    """A publish: its first position, its number of events, and the publisher's own ids by lines ("" for none)."""

    first: int
    events: int
    own_ids: str

    @property
    def weight(self) -> int:
        return 1 + len(self.own_ids) // OWN_IDS_UNIT

    def ids(self, epoch: str) -> tuple[str, ...]:
        """The ids on the wire, in order."""
        positions = range(self.first, self.first + self.events)
        if not self.own_ids:
            return tuple(format_id(epoch, position) for position in positions)
        own = self.own_ids.split("\n")
        return tuple(mine or format_id(epoch, position) for mine, position in zip(own, positions, strict=True))


def receipt_of(entries: Sequence[Entry]) -> Receipt:
    """The receipt of one publish; its entries have consecutive positions."""
    brought = any(entry.event.id is not None for entry in entries)
    own_ids = "\n".join(entry.event.id or "" for entry in entries) if brought else ""
    return Receipt(entries[0].position, len(entries), own_ids)


class Receipts:
    """The receipts of one channel, oldest first. `seconds` is how long a key counts, `max_weight` bounds them all."""

    __slots__ = ("_kept", "_max_weight", "_seconds", "_weight")

    def __init__(self, seconds: float, max_weight: int) -> None:
        self._seconds = seconds
        self._max_weight = max_weight
        self._weight = 0
        self._kept: OrderedDict[tuple[str, str], tuple[bytes, float, Receipt]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: Key, now: float) -> Receipt | None:
        """The receipt of the publish that used this key, or None. Raises KeyConflict if that was another request."""
        kept = self._kept.get((key.scope, key.key))
        if kept is None or kept[1] <= now:
            return None
        if kept[0] != key.digest:
            raise KeyConflict
        return kept[2]

    def put(self, key: Key, receipt: Receipt, now: float) -> None:
        """Remember a publish, and forget what is over age or over the bound."""
        name = (key.scope, key.key)
        stale = self._kept.pop(name, None)
        if stale is not None:
            self._weight -= stale[2].weight
        self._kept[name] = (key.digest, now + self._seconds, receipt)
        self._weight += receipt.weight
        self.trim(now)

    def trim(self, now: float) -> None:
        """Forget from the oldest on, as long as it is over age or the bound is passed."""
        while self._kept:
            _, expires, receipt = next(iter(self._kept.values()))
            if expires > now and self._weight <= self._max_weight:
                return
            self._kept.popitem(last=False)
            self._weight -= receipt.weight
