"""Selections: what a subscriber wants of one channel, and may read of it.

Owns the one function that decides whether an event goes to a subscriber: `Selection.wants`, for live delivery and for
replay alike. Must never know of tokens (only of the grants they led to) or of readers. Pure.

Invariants: equal selections are equal values, so that their readers share a feed. Routing never widens reading: a
private event needs a grant. Cost: a set look-up per topic of the event, then one match per topic and template; for a
private event one match per topic and grant; with a region half a microsecond more, last of all. A selection is made
once per URL, or per connection whose token grants some topics only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.event import Event
    from server.region import Region
    from server.selectors import Selector


class Selection:
    """`topics` and `types`: None selects all. `grants`: which private events may be read; None means all, () none.
    `region`: None selects all events, a region those that have a location in it.

    A value: never changed after its creation. Its hash is made once, because it is looked up for every connection.
    """

    __slots__ = ("_exact", "_hash", "_templates", "grants", "region", "topics", "types")

    def __init__(
        self,
        topics: frozenset[Selector] | None = None,
        types: frozenset[str] | None = None,
        grants: tuple[Selector, ...] | None = (),
        region: Region | None = None,
    ) -> None:
        self.topics = topics
        self.types = types
        self.grants = grants
        self.region = region
        self._hash = hash((topics, types, grants, region))
        # A template also selects the topic that is its own text.
        self._exact = frozenset([selector.text for selector in topics or ()])
        self._templates = tuple([selector for selector in topics or () if not selector.exact])

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Selection)
            and self._hash == other._hash
            and (self.topics, self.types, self.grants, self.region)
            == (other.topics, other.types, other.grants, other.region)
        )

    def __repr__(self) -> str:
        return f"Selection({self.topics!r}, {self.types!r}, {self.grants!r}, {self.region!r})"

    @property
    def named(self) -> frozenset[str]:
        """What is selected or granted, word for word: a template stands here by its own text, and names no topic that
        it matches."""
        return self._exact.union([grant.text for grant in self.grants or ()])

    def with_grants(self, grants: tuple[Selector, ...]) -> Selection:
        """The same of what these allow to read."""
        return Selection(self.topics, self.types, grants, self.region)

    def wants(self, event: Event) -> bool:
        """True if the event is selected and may be read."""
        if self.types is not None and (event.type or "message") not in self.types:
            return False
        if (
            self.topics is not None
            and self._exact.isdisjoint(event.topics)
            and not (self._templates and _any_matches(self._templates, event.topics))
        ):
            return False
        if event.private and not self.may_read(event):
            return False
        return self.region is None or (event.location is not None and self.region.contains(event.location))

    def may_read(self, event: Event) -> bool:
        """True if the holder may read the event at all, selected or not."""
        if not event.private or self.grants is None:
            return True
        return _any_matches(self.grants, event.topics)


def _any_matches(selectors: Sequence[Selector], topics: Sequence[str]) -> bool:
    return any(selector.matches(topic) for topic in topics for selector in selectors)
