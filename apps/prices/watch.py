"""The stream of prices: who is admitted, and to which items.

Owns the filter `items`, the limit of streams, and which items there are, as this node knows it. Must never know what
happens to a price, or who is asking. The stream begins with no prices: charts load those by REST, and it appends.

Invariants: an answer of 404 sends an EventSource away for good, so an item that is not known is looked for in the
database first; while prices come in for the first time, on this node or another, it is admitted. Streams that wait for
the relay count when they open, so that no crowd of them gets past the limit.
Cost: a set look-up for each item named; a look at the database every `LOOK_SECONDS`, and for items that are not known.
"""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

from pydantic import Field

from apps.prices.model import MAX_ITEM, PRICE_UPDATE, topic_of
from apps.prices.store import PriceStore
from bridges.database import DatabaseUnavailable
from handlers.answers import Refused, bad
from handlers.endpoints import Query, not_found
from handlers.streams import Admitted, StreamCall
from server.channel import Channel
from server.endings import TOO_MANY
from server.hub import Hub
from server.selection import Selection
from server.selectors import exact_selector

MAX_ITEMS = 100
LOOK_SECONDS = 30.0
FIRST_LOOK_SECONDS = 1.0
_TYPES = frozenset([PRICE_UPDATE])
_PATTERN = f"([0-9]{{1,9}}(,[0-9]{{1,9}}){{0,{MAX_ITEMS - 1}}})?"
_ITEMS = re.compile(_PATTERN)

Items = Annotated[str, Field(pattern=f"^{_PATTERN}$", description="Ids of items with commas between; none: all.")]


class StreamQuery(Query):
    """The stream's parameters, for the description of the API."""

    items: Items = ""


class Watch:
    """`most` streams on this node (0: no limit)."""

    def __init__(self, store: PriceStore, hub: Hub, channel: str, *, most: int) -> None:
        self._store = store
        self._hub = hub
        self._channel = channel
        self._most = most
        self.known: frozenset[int] = frozenset()
        self._settled = False
        self.refused = 0

    @property
    def channel(self) -> Channel:
        return self._hub.channels[self._channel]

    def admit(self, call: StreamCall) -> Admitted | None:
        """The stream of some items, or of all; None if the database has to be asked for them. Raises Refused."""
        wanted = items_of(call.parameters.get("items", ""))
        if self._settled and not wanted <= self.known:
            return None
        return self._admitted(wanted, call)

    async def admit_later(self, call: StreamCall) -> Admitted:
        """As `admit`, with a look at the database. Raises Refused."""
        wanted = items_of(call.parameters.get("items", ""))
        self.known |= await self._store.ids(wanted - self.known)
        unknown = wanted - self.known
        if unknown:
            raise not_found("items", f"there is no item {min(unknown)}")
        return self._admitted(wanted, call)

    def _admitted(self, wanted: frozenset[int], call: StreamCall) -> Admitted:
        self._check_room()
        topics = frozenset([exact_selector(topic_of(item_id)) for item_id in wanted]) or None
        return Admitted(Selection(topics, _TYPES, ()), call.principal, look_again=self._check_room)

    def _check_room(self) -> None:
        if self._most and self.channel.readers >= self._most:
            self.refused += 1
            raise Refused(TOO_MANY, reason=f"at most {self._most} streams of prices")

    async def start(self) -> None:
        """Find out which items there are. Raises DatabaseUnavailable."""
        self.known = await self._store.ids()
        self._settled = bool(self.known)

    async def run(self) -> None:
        """Look again and again: another node may have found new ones."""
        while True:
            await asyncio.sleep(LOOK_SECONDS if self._settled else FIRST_LOOK_SECONDS)
            try:
                before, self.known = self.known, await self._store.ids()
                self._settled = bool(before) and self.known == before
            except DatabaseUnavailable:
                pass  # then those count that were known


def items_of(text: str) -> frozenset[int]:
    """The items that are named; none for all. Raises Refused."""
    if not _ITEMS.fullmatch(text):
        raise bad(
            "items", f"must be at most {MAX_ITEMS} ids of items, numbers from 0 to {MAX_ITEM}, with commas between"
        )
    return frozenset([int(word) for word in text.split(",")]) if text else frozenset()
