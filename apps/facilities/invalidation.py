"""What happens to kept answers when a facility changes, or an administrator says so.

Owns the rule: a change drops the answers about that one facility; searches and suggestions live out their time, and
only an order ends them sooner. An order is an event of its own, private, so that every node hears of it. Where events
may never come, a change or an order may be among them: all of these answers go. Must never know how a facility changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ujson

from apps.facilities.model import tag_of
from handlers.cache_entry import Area, Drop
from handlers.response_cache import ResponseCache
from server.event import Event
from server.relay.protocol import Entry

ONE = "/api/facilities/{id}"
SEARCH = "/api/facilities/search"
SUGGEST = "/api/facilities/suggest"
ORDER_TOPIC = "cache"
ORDER = "cache_drop"
MISSED = "missed"
_FACILITIES = "facilities/"


def search_orders() -> list[Drop]:
    """All searches and suggestions."""
    return [Drop("route", route=SEARCH), Drop("route", route=SUGGEST)]


def region_orders(area: Area) -> list[Drop]:
    """Whatever is about a place in this area: the facilities in it, searches that reach into it, and what is asked of
    the whole world (searches without a place, suggestions)."""
    return [Drop("region", area=area)]


class Invalidation:
    """See the module's head. `node` is this node's name: what it has told others it has done itself."""

    def __init__(self, cache: ResponseCache, node: str) -> None:
        self._cache = cache
        self._node = node

    async def changed(self, facility_id: str) -> None:
        """A facility has changed, here: returns when nobody who asks from now on gets what was."""
        await self._cache.drop_tags([tag_of(facility_id)])

    async def order(self, orders: Sequence[Drop]) -> int:
        """Obey here; how many answers went."""
        return sum([await self._cache.drop(order) for order in orders])

    def order_event(self, orders: Sequence[Drop]) -> Event:
        """The event that tells the other nodes."""
        facts = {"node": self._node, "orders": [order.facts() for order in orders]}
        return Event((ORDER_TOPIC,), ujson.dumps(facts), ORDER, private=True)

    def delivered(self, entries: Sequence[Entry]) -> None:
        """What has come on the channel, on whichever node it happened."""
        tags = {
            tag_of(topic.removeprefix(_FACILITIES))
            for entry in entries
            for topic in entry.event.topics
            if topic.startswith(_FACILITIES)
        }
        if tags:
            self._cache.drop_now(tags)
        for entry in entries:
            if entry.event.type == ORDER and entry.event.private:
                self._obey(ujson.loads(entry.event.data))

    def missed(self) -> None:
        """Something may have changed, or been ordered, that nobody here will hear of."""
        for route in (ONE, SEARCH, SUGGEST):
            self._cache.begin_drop(Drop(MISSED, route=route))

    def _obey(self, facts: Mapping[str, Any]) -> None:
        if facts["node"] != self._node:
            for order in facts["orders"]:
                self._cache.begin_drop(Drop.of_facts(order))
