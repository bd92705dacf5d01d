"""The index of feeds: which feeds an event goes to, found by its topics and type.

Owns the tables from topic, type and template prefix to feeds. Must never know of sockets. Pure. The index only proposes
candidates; `Selection.wants` has the last word, so that live delivery and replay can't differ.

Invariant: for every feed and event, `feed in match(event)` exactly if `feed.selection.wants(event)`. Cost: a look-up
per topic and per distinct length of a template prefix, then one `wants` per candidate. It grows with the matches, not
with the feeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.event import Event
    from server.feed import Feed

# Insertion-ordered sets: delivery order among feeds is the order of their creation, run after run.
Feeds = dict["Feed", None]


class FeedIndex:
    """Feeds by what they select."""

    __slots__ = ("_all", "_by_prefix", "_by_topic", "_by_type")

    def __init__(self) -> None:
        self._all: Feeds = {}
        self._by_type: dict[str, Feeds] = {}
        self._by_topic: dict[str, Feeds] = {}
        self._by_prefix: dict[int, dict[str, Feeds]] = {}

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

    def of_topic(self, topic: str) -> list[Feed]:
        """The feeds that select this very topic."""
        return list(self._by_topic.get(topic, ()))

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
        return [feed for feed in candidates if feed.selection.wants(event)]

    @staticmethod
    def _is_open(feed: Feed) -> bool:
        topics = feed.selection.topics
        return (topics is None or any(selector.any for selector in topics)) and feed.selection.types is None

    def _places(self, feed: Feed) -> Iterator[tuple[dict[str, Feeds], str]]:
        selection = feed.selection
        if self._is_open(feed):
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
