"""Selections: what a subscriber wants of one channel, and may read of it.

Owns the one function that decides whether an event goes to a subscriber: `Selection.wants`, for live delivery and for
replay alike. Must never know of tokens (only of the grants they led to) or of readers. Pure.

Invariants: equal selections are equal values, so that their readers share a feed. Routing never widens reading: a
private event needs a grant. Cost: a set look-up for exact topics; one match per template selector otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.event import Event
    from server.selectors import Selector


@dataclass(frozen=True, slots=True)
class Selection:
    """`topics` and `types`: None selects all. `grants`: which private events may be read; None means all, () none."""

    topics: frozenset[Selector] | None = None
    types: frozenset[str] | None = None
    grants: tuple[Selector, ...] | None = ()

    def wants(self, event: Event) -> bool:
        """True if the event is selected and may be read."""
        if self.types is not None and (event.type or "message") not in self.types:
            return False
        if self.topics is not None and not any(
            selector.matches(topic) for selector in self.topics for topic in event.topics
        ):
            return False
        return not event.private or self.may_read(event)

    def may_read(self, event: Event) -> bool:
        """True if the holder may read the event at all, selected or not."""
        if not event.private or self.grants is None:
            return True
        return any(grant.matches(topic) for grant in self.grants for topic in event.topics)
