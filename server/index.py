"""The index of feeds: which feeds an event goes to, found by its topics, type and location.

Owns the tables from topic, type, template prefix and cell of the earth to feeds. Must never know of sockets. Pure. The
index only proposes candidates; `Selection.wants` has the last word, so that live delivery and replay can't differ.

Invariant: for every feed and event, `feed in match(event)` exactly if `feed.selection.wants(event)`. Cost: a look-up
per topic and per distinct length of a template prefix, for an event with a location one per level of cells in use (21
at most), then one `wants` per candidate. It grows with the matches, not with the feeds. A feed with a region is found
by its cells alone, whatever else it selects: of all that share a topic, an event then asks those nearby.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from server.region import Location, cell_of

if TYPE_CHECKING:
    from server.event import Event
    from server.feed import Feed

# Insertion-ordered sets: delivery order among feeds is the order of their creation, run after run.
Feeds = dict["Feed", None]
# By a topic, a type or a prefix, or by the number of a cell.
Table = dict[str | int, Feeds]


class FeedIndex:
    """Feeds by what they select."""

    __slots__ = ("_all", "_by_cell", "_by_prefix", "_by_topic", "_by_type", "_regional")

    def __init__(self) -> None:
        self._all: Feeds = {}
        self._by_type: Table = {}
        self._by_topic: Table = {}
        self._by_prefix: dict[int, Table] = {}
        self._by_cell: dict[int, Table] = {}
        self._regional: Table = {}  # by topic, those that are found by cell

    def add(self, feed: Feed) -> None:
        """Make the feed findable."""
        for table, key in self._places(feed):
            table.setdefault(key, {})[feed] = None
        if self._is_open(feed):
            self._all[feed] = None

    def remove(self, feed: Feed) -> None:
        """Forget the feed; empty tables go with it."""
        for table, key in self._places(feed):
            feeds = table.get(key)  # two selectors may share a place
            if feeds is not None:
                feeds.pop(feed, None)
                if not feeds:
                    del table[key]
        self._all.pop(feed, None)
        for length in {len(selector.prefix) for selector in feed.selection.topics or ()}:
            if not self._by_prefix.get(length, True):
                del self._by_prefix[length]
        region = feed.selection.region
        if region is not None and not self._by_cell.get(region.level, True):
            del self._by_cell[region.level]

    def of_topic(self, topic: str) -> list[Feed]:
        """The feeds that select this very topic."""
        return [*self._by_topic.get(topic, ()), *self._regional.get(topic, ())]

    def match(self, event: Event) -> list[Feed]:
        """The feeds whose selection wants the event, each once."""
        candidates = self._all
        if self._by_type or self._by_topic:  # by topic are those by prefix too
            candidates = self._all | self._by_type.get(event.type or "message", {})
            for topic in event.topics:
                candidates.update(self._by_topic.get(topic, {}))
                size = len(topic)
                for length, table in self._by_prefix.items():
                    if length <= size:
                        candidates.update(table.get(topic[:length], {}))
        if self._by_cell and event.location is not None:
            candidates = candidates | self._near(event.location)
        return [feed for feed in candidates if feed.selection.wants(event)]

    def _near(self, location: Location) -> Feeds:
        """The feeds whose region has the cell of the location."""
        near: Feeds = {}
        for level, table in self._by_cell.items():
            near.update(table.get(cell_of(location, level), {}))
        return near

    @staticmethod
    def _is_open(feed: Feed) -> bool:
        selection = feed.selection
        return (
            (selection.topics is None or any(selector.any for selector in selection.topics))
            and selection.types is None
            and selection.region is None
        )

    def _places(self, feed: Feed) -> Iterator[tuple[Table, str | int]]:
        selection = feed.selection
        if self._is_open(feed):
            return
        if selection.region is not None:
            cells = self._by_cell.setdefault(selection.region.level, {})
            for cell in selection.region.cells:
                yield cells, cell
            for selector in selection.topics or ():
                yield self._regional, selector.text
            return
        if selection.topics is None or any(selector.any for selector in selection.topics):
            for kind in selection.types or ():
                yield self._by_type, kind
            return
        for selector in selection.topics:
            # A template also matches the topic that is spelled like it.
            yield self._by_topic, selector.text
            if not selector.exact:
                prefix = selector.prefix
                yield self._by_prefix.setdefault(len(prefix), {}), prefix
