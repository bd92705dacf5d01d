"""Presence: how many streams of each company there are, on this node and on all.

Owns the counting here, and what nodes tell each other through the database. Must never know who is asking.

Invariants: this node's own number is of now; another's is at most `SAY_SECONDS` old, and one that died counts for at
most `PRESENCE_SECONDS`.
Cost: a look at the feeds, of which there is one per company; a small transaction when something has changed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping

from apps.companies.model import company_of
from apps.companies.store import NodeStore
from bridges.database import DatabaseUnavailable
from server.hub import Hub

SAY_SECONDS = 1.0
RENEW_SECONDS = 5.0
PRESENCE_SECONDS = 15.0


class Presence:
    """`node` is this node's own name."""

    def __init__(self, store: NodeStore, hub: Hub, channel: str, node: str) -> None:
        self._store = store
        self._hub = hub
        self._channel = channel
        self._node = node

    def here(self) -> dict[str, int]:
        """Streams of this node, by company. Who selects a company's topic without being granted it counts for none."""
        found: Counter[str] = Counter()
        for feed in self._hub.channels[self._channel].feeds.values():
            for selector in feed.selection.topics or ():
                company = company_of(selector.text)
                if company is not None and feed.members and feed.selection.grants == (selector,):
                    found[company] += feed.members
        return dict(found)

    async def everywhere(self) -> Mapping[str, int]:
        """Streams of all nodes, by company. Raises DatabaseUnavailable."""
        found = Counter(self.here())
        for streams in await self._store.others(self._node):
            found.update(streams)
        return found

    async def run(self) -> None:
        """Tell the others, for ever."""
        said: dict[str, int] | None = None
        renewed = 0.0
        while True:
            streams, now = self.here(), time.monotonic()
            if streams != said or now - renewed > RENEW_SECONDS:
                try:
                    await self._store.say(self._node, streams, PRESENCE_SECONDS)
                    said, renewed = streams, now
                except DatabaseUnavailable:
                    pass  # /ready says so; then the others forget this node
            await asyncio.sleep(SAY_SECONDS)

    async def leave(self) -> None:
        """This node is going."""
        try:
            await self._store.leave(self._node)
        except DatabaseUnavailable:
            pass  # then it is forgotten after PRESENCE_SECONDS
