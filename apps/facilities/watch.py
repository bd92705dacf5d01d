"""The two streams: one facility, and a region.

Owns what a stream is of, and which facilities there are: their ids are kept in memory, so that a stream opens without
the database. Must never know how events come about, or who is asking.

Invariant: an answer of 404 sends an EventSource away for good, so an id that is not known is looked for in the database
first.
Cost: an id in memory per facility; a look at the ids every `LOOK_SECONDS`, and for one that is not known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from apps.facilities.model import ID, MONITORED, topic_of
from apps.facilities.questions import Around
from apps.facilities.store import FacilityStore
from bridges.database import DatabaseUnavailable
from handlers.answers import bad
from handlers.endpoints import Query, not_found
from handlers.fields import MAX_LAST, decoded, parse_last, parse_query, parse_region
from handlers.streams import Admitted, StreamCall, StreamRoute
from server.selection import Selection
from server.selectors import exact_selector

ROOT = "/api/stream/facilities"
LOOK_SECONDS = 30.0
MAX_TYPES = 100
_MEANING = "JSON with id, facility_id, event_type, timestamp, location and changed_fields"
EVENTS = dict.fromkeys(MONITORED.values(), _MEANING) | {"heartbeat": "the stream is alive"}


class Narrowed(Query):
    """Of a stream, what else there is to say."""

    type: str = Field("", description="Only events of this type; may be given more than once.")
    last: Annotated[int, Field(ge=1, le=MAX_LAST)] | None = Field(
        None, description="So many events from before, for a client without a cursor."
    )


class NarrowedAround(Around, Narrowed):
    """The same for a region."""


class Watch:
    """See the module's head. `channel` is where events come from."""

    def __init__(self, store: FacilityStore, channel: str) -> None:
        self._store = store
        self._channel = channel
        self._known: frozenset[str] = frozenset()

    def streams(self) -> Sequence[StreamRoute]:
        """See the module's head."""
        return [
            StreamRoute(
                f"{ROOT}/{{id}}", self._channel, self._one, "One facility.", Narrowed, EVENTS,
                admit_later=self._one_later,
            ),
            StreamRoute(f"{ROOT}/region", self._channel, self._region, "All in a region.", NarrowedAround, EVENTS),
        ]  # fmt: skip

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

    def _one(self, call: StreamCall) -> Admitted | None:
        facility_id = call.arguments["id"]
        if facility_id not in self._known:
            return None
        types, last = _types(call), parse_last(call.parameters.get("last"))
        selection = _selection(facility_id) if types is None else _narrowed(facility_id, types)
        return Admitted(selection, call.principal, last)

    async def _one_later(self, call: StreamCall) -> Admitted:
        facility_id = call.arguments["id"]
        # What can be none is asked of no database.
        if ID.fullmatch(facility_id) is None or await self._store.get(facility_id) is None:
            raise not_found("id", "there is no such facility")
        self._known |= {facility_id}
        admitted = self._one(call)
        assert admitted is not None
        return admitted

    def _region(self, call: StreamCall) -> Admitted:
        region = parse_region(call.parameters)
        if region is None:
            raise bad("lat", "is needed for a region")
        return Admitted(
            Selection(types=_types(call), region=region), call.principal, parse_last(call.parameters.get("last"))
        )


@lru_cache(10_000)
def _selection(facility_id: str) -> Selection:
    return _narrowed(facility_id, None)


def _narrowed(facility_id: str, types: frozenset[str] | None) -> Selection:
    return Selection(frozenset([exact_selector(topic_of(facility_id))]), types)


def _types(call: StreamCall) -> frozenset[str] | None:
    """The types that are wanted, as on the general endpoint; None for all. Raises Refused."""
    types = [decoded(name, value) for name, value in parse_query(call.request.query) if name == "type"]
    if len(types) > MAX_TYPES:
        raise bad("type", f"at most {MAX_TYPES}")
    return frozenset(types) or None
