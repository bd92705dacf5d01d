"""Finishing: streams of a topic of which nothing more will come.

Owns the topics that have come to their end, until the streams that select nothing else have ended too. Must never
know why it is the end. Who comes back later is refused with 204 by whoever knows that it is finished.

Invariant: a reader is ended once it has everything, and not before: one that reads slowly gets the last event first.
Cost: a look at the readers of a finished topic at each tick, until they are gone; nothing for others.
"""

from __future__ import annotations

from collections.abc import Callable

from server.channel import Channel
from server.endings import FINISHED, Ending
from server.reader import Reader

WATCH_SECONDS = 120.0  # whoever has not read the last event by then has been ended for that
LATE_SECONDS = 15.0  # whose admission was under way when the end came may still join for so long


class Finisher:
    """`close` ends a reader with a reason."""

    def __init__(self, close: Callable[[Reader, Ending], None]) -> None:
        self._close = close
        self._watched: dict[tuple[Channel, str], float] = {}

    def finish(self, channel: Channel, topic: str, now: float) -> None:
        """Nothing more will come with this topic. To be called when the last event has been delivered, with the time of
        the loop's clock."""
        self._watched[channel, topic] = now + WATCH_SECONDS

    def tick(self, now: float) -> None:
        """End the readers that have everything."""
        for (channel, topic), until in list(self._watched.items()):
            feeds = [
                feed
                for feed in channel.index.of_topic(topic)
                if feed.selection.topics is not None and len(feed.selection.topics) == 1
            ]
            for feed in feeds:
                if feed in channel.holes:  # its readers have still to be told, and would not come back for it
                    continue
                for reader in [reader for reader in feed.readers if reader.cursor == feed.ring.head]:
                    self._close(reader, FINISHED)
            late = now > until - WATCH_SECONDS + LATE_SECONDS
            if now > until or (late and not any(feed.members for feed in feeds)):
                del self._watched[channel, topic]
