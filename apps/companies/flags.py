"""Flags: whether a company's events are streamed, as the database says, in the memory of every node.

Owns what is known of the flags, and the end of a company's streams when it is switched off. A change through the API is
told of on the channel and is seen at once, by the node that made it before it says so; one that is made in the database
by other means, or whose event got lost, after `LOOK_SECONDS`. An event says no more than "look": who may publish to the
channel can't switch anybody on or off. Must never know who is asking.

Invariants: while the database is away, what was known last counts. Nobody is ended by a switch that was put back: until
the streams that were told to end are gone, new ones are asked to come back in a moment.
Cost: a set look-up per stream; one small query every `LOOK_SECONDS`, of the companies that differ from the default.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from apps.companies.model import FLAG, topic_of
from apps.companies.store import CompanyStore
from bridges.database import DatabaseUnavailable
from server.channel import Channel
from server.finishing import LATE_SECONDS, WATCH_SECONDS, Finisher
from server.hub import Hub
from server.logs import get_logger
from server.relay.protocol import Entry

LOOK_SECONDS = 5.0
SPARE_SECONDS = 1.0  # the finisher looks at every tick, not at every moment

log = get_logger("companies")


class Flags:
    """`default` is for companies that have no flag, and for whoever asks of none. `state` is "ok" or what is wrong."""

    def __init__(self, store: CompanyStore, hub: Hub, finisher: Finisher, channel: str, *, default: bool) -> None:
        self._store = store
        self._hub = hub
        self._finisher = finisher
        self._channel = channel
        self.default = default
        self._different: set[str] = set()
        self._ended: dict[str, float] = {}
        self._news = asyncio.Event()
        self._looking = asyncio.Lock()
        self.state = "ok"
        hub.listen(channel, self._delivered)

    @property
    def channel(self) -> Channel:
        return self._hub.channels[self._channel]

    def allow(self, company: str) -> bool:
        """True if a company's events are streamed."""
        return (company in self._different) != self.default

    def settled(self, company: str) -> bool:
        """False as long as a new stream could be taken for one of those that were told to end."""
        ended = self._ended.get(company)
        if ended is None:
            return True
        passed = time.monotonic() - ended
        left = any(feed.members for feed in self.channel.index.of_topic(topic_of(company)))
        if passed < LATE_SECONDS + SPARE_SECONDS or (left and passed < WATCH_SECONDS + SPARE_SECONDS):
            return False
        del self._ended[company]
        return True

    async def load(self) -> None:
        """Know what the database says. Raises DatabaseUnavailable."""
        self._different = await self._store.with_flag(not self.default)

    async def look(self) -> None:
        """See what has changed in the database. Raises DatabaseUnavailable."""
        async with self._looking:  # a look that began earlier would put back what it saw
            before = self._different
            await self.load()
            for company in before ^ self._different:
                if not self.allow(company):
                    self._end(company)

    def _end(self, company: str) -> None:
        now = time.monotonic()
        self._ended = {one: since for one, since in self._ended.items() if now - since < WATCH_SECONDS + SPARE_SECONDS}
        self._ended[company] = now
        self._finisher.finish(self.channel, topic_of(company), now)
        log.info("streaming_switched_off", company=company)

    async def run(self) -> None:
        """Look when there is news, and now and then, for ever."""
        while True:
            self._news.clear()
            try:
                await self.look()
                self.state = "ok"
            except DatabaseUnavailable as error:
                self.state = error.reason
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                pass

    def _delivered(self, entries: Sequence[Entry]) -> None:
        if any(entry.event.type == FLAG for entry in entries):
            self._news.set()
