"""The two streams: one facility, and a region.

Owns who is admitted (everybody) and to what, and which facilities there are: their ids are kept in memory, so that a
stream opens without the database. Must never know how events come about.

Cost: an id in memory per facility; a look at the ids every `LOOK_SECONDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache

from apps.facilities.model import MONITORED, topic_of
from apps.facilities.questions import Around
from apps.facilities.store import FacilityStore
from bridges.database import DatabaseUnavailable
from handlers.answers import bad
from handlers.endpoints import not_found
from handlers.fields import parse_region
from handlers.streams import Admitted, StreamCall, StreamRoute
from server.selection import Selection
from server.selectors import exact_selector

ROOT = "/api/stream/facilities"
LOOK_SECONDS = 30.0
_MEANING = "JSON with id, facility_id, event_type, timestamp, location and changed_fields"
EVENTS = dict.fromkeys(MONITORED.values(), _MEANING) | {"heartbeat": "the stream is alive"}


class Watch:
    """See the module's head. `channel` is where events come from."""

    def __init__(self, store: FacilityStore, channel: str) -> None:
        self._store = store
        self._channel = channel
        self._known: frozenset[str] = frozenset()

    def streams(self) -> Sequence[StreamRoute]:
        """See the module's head."""
        return [
            StreamRoute(f"{ROOT}/{{id}}", self._channel, self._one, "One facility.", events=EVENTS),
            StreamRoute(f"{ROOT}/region", self._channel, self._region, "All in a region.", Around, EVENTS),
        ]

    async def look(self) -> None:
        """See which facilities there are. Raises DatabaseUnavailable."""
        self._known = await self._store.ids()

    async def look_again(self) -> None:
        """See which have come since, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except DatabaseUnavailable:
                pass  # then those that were there are

    def _one(self, call: StreamCall) -> Admitted:
        facility_id = call.arguments["id"]
        if facility_id not in self._known:
            raise not_found("id", "there is no such facility")
        return Admitted(_selection(facility_id), call.principal)

    def _region(self, call: StreamCall) -> Admitted:
        region = parse_region(call.parameters)
        if region is None:
            raise bad("lat", "is needed for a region")
        return Admitted(Selection(region=region), call.principal)


@lru_cache(10_000)
def _selection(facility_id: str) -> Selection:
    return Selection(frozenset([exact_selector(topic_of(facility_id))]))
