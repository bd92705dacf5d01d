"""Facilities over HTTP: search, one of them, suggestions, the catalogue, places by name, and changes.

Owns the endpoints, who may use them (operators change; everybody reads, or where the channel is not for everybody,
those whose token grants it), and how long answers are kept. Must never know how a facility is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from apps.facilities.catalogue import Rows
from apps.facilities.invalidation import (
    ONE,
    SEARCH,
    SUGGEST,
    Invalidation,
    region_orders,
    search_orders,
)
from apps.facilities.model import ID, Facility, FacilityChange, tag_of
from apps.facilities.places import Places
from apps.facilities.questions import Around, Geocode, Search, Suggest
from apps.facilities.replies import Cities, Dropped, Procedures, Providers, Results, Suggestions, Whole
from apps.facilities.store import FacilityStore, Found
from handlers.answers import Refused
from handlers.cache_entry import Drop
from handlers.endpoints import Call, Check, Endpoint, Page, Reply, invalid, not_found, operators
from server.region import MAX_RADIUS_KM

TAG = "facilities"
SEARCH_SECONDS = 300.0
ONE_SECONDS = 600.0
SUGGEST_SECONDS = 180.0
CATALOGUE_SECONDS = 1_800.0
GEOCODE_SECONDS = 3_600.0
# Where what is asked of no place lies: every region has a place in common with it.
WORLD = (0.0, 0.0, MAX_RADIUS_KM)


class FacilityHandlers:
    """The endpoints. `providers` and `procedures` are the catalogue. `access`: who may read."""

    def __init__(
        self,
        store: FacilityStore,
        invalidation: Invalidation,
        places: Places,
        providers: Rows,
        procedures: Rows,
        access: Check,
    ) -> None:
        self._store = store
        self._invalidation = invalidation
        self._places = places
        self._providers = providers
        self._procedures = procedures
        self._own: dict[str, Any] = {"tag": TAG, "access": access}
        self._ids = {
            "insurance_providers": {one["id"] for one in providers},
            "prices": {one["id"] for one in procedures},
        }
        self.events: Counter[str] = Counter()

    def endpoints(self) -> Sequence[Endpoint]:
        """See the module's head."""
        return [
            Endpoint(
                "GET", SEARCH, self._search, "Facilities, the nearest first.", Search, reply=Results,
                keep_seconds=SEARCH_SECONDS, shared=True, drop_on_change=False, **self._own,
            ),
            Endpoint(
                "GET", SUGGEST, self._suggest, "Facilities by the beginnings of words.", Suggest,
                reply=Suggestions, keep_seconds=SUGGEST_SECONDS, shared=True, drop_on_change=False, **self._own,
            ),
            Endpoint(
                "GET", ONE, self._get, "One facility.", reply=Whole,
                keep_seconds=ONE_SECONDS, shared=True, **self._own,
            ),
            Endpoint(
                "PATCH", ONE, self._change, "Change a facility.", body=FacilityChange, reply=Whole,
                access=operators, tag=TAG,
            ),
            *self._catalogue(),
            *self._orders(),
        ]  # fmt: skip

    def _catalogue(self) -> Sequence[Endpoint]:
        return [
            Endpoint(
                "GET", "/api/insurance-providers", self._list_providers, "Insurance providers.", Page, reply=Providers,
                keep_seconds=CATALOGUE_SECONDS, shared=True, **self._own,
            ),
            Endpoint(
                "GET", "/api/procedures", self._list_procedures, "Procedures.", Page, reply=Procedures,
                keep_seconds=CATALOGUE_SECONDS, shared=True, **self._own,
            ),
            Endpoint(
                "GET", "/api/geocode", self._geocode, "Places by name.", Geocode, reply=Cities,
                keep_seconds=GEOCODE_SECONDS, shared=True, **self._own,
            ),
        ]  # fmt: skip

    def _orders(self) -> Sequence[Endpoint]:
        return [
            Endpoint(
                "DELETE", "/api/cache/searches", self._drop_searches, "Drop all kept searches and suggestions.",
                reply=Dropped, access=operators, tag=TAG,
            ),
            Endpoint(
                "DELETE", "/api/cache/region", self._drop_region, "Drop kept answers about a region.", Around,
                reply=Dropped, access=operators, tag=TAG,
            ),
        ]  # fmt: skip

    async def _search(self, call: Call) -> Reply:
        query: Search = call.query
        total, found = await self._store.search(query.wanted(), query.limit, query.offset)
        facts = [_found(one, query.procedure) for one in found]
        place = query.region()
        return Reply(
            {"facilities": facts, "total": total, "limit": query.limit, "offset": query.offset},
            tags=[tag_of(one.facility.id) for one in found],
            area=WORLD if place is None else (place.latitude, place.longitude, place.radius_km),
        )

    async def _suggest(self, call: Call) -> Reply:
        found = await self._store.suggest(call.query.q, call.query.limit)
        names = ("id", "name", "facility_type", "city", "country")
        facts = [{name: getattr(one, name) for name in names} for one in found]
        return Reply({"suggestions": facts}, tags=[tag_of(one.id) for one in found], area=WORLD)

    async def _get(self, call: Call) -> Reply:
        facility_id = _id_of(call)
        facility = await self._store.get(facility_id)
        if facility is None:
            raise _unknown()
        return Reply(facility.facts(), tags=[tag_of(facility_id)], area=(*facility.location, 0.0))

    async def _change(self, call: Call) -> Reply:
        facility_id = _id_of(call)
        named = call.body.named()
        for field, known in self._ids.items():
            for one in named.get(field, ()):
                if one not in known:
                    raise invalid(field, f"there is no {one}")
        changed = await self._store.change(facility_id, lambda before: _changed(before, named))
        if changed is None:
            raise _unknown()
        self.events.update(changed.kinds)
        if changed.kinds:
            await self._invalidation.changed(facility_id)
        return Reply(changed.facility.facts())

    async def _list_providers(self, call: Call) -> Reply:
        return Reply(_page("insurance_providers", self._providers, call.query))

    async def _list_procedures(self, call: Call) -> Reply:
        return Reply(_page("procedures", self._procedures, call.query))

    async def _geocode(self, call: Call) -> Reply:
        return Reply({"places": [place.facts() for place in self._places.find(call.query.q, call.query.limit)]})

    async def _drop_searches(self, _: Call) -> Reply:
        return await self._ordered(search_orders())

    async def _drop_region(self, call: Call) -> Reply:
        query: Around = call.query
        return await self._ordered(region_orders((query.lat, query.lon, query.radius)))

    async def _ordered(self, orders: Sequence[Drop]) -> Reply:
        """Here at once, elsewhere when the event comes."""
        dropped = await self._invalidation.order(orders)
        await self._store.announce(self._invalidation.order_event(orders))
        return Reply({"dropped": dropped})


def _id_of(call: Call) -> str:
    """The id of the path. What can be none is asked of no database. Raises Refused."""
    facility_id = call.arguments["id"]
    if ID.fullmatch(facility_id) is None:
        raise _unknown()
    return facility_id


def _unknown() -> Refused:
    return not_found("id", "there is no such facility")


def _changed(before: Facility, named: dict[str, Any]) -> Facility:
    """What somebody says of a facility is not simulated, and from then on neither is what comes after."""
    if not named:
        return before
    if "insurance_providers" in named:
        named = named | {"insurance_providers": tuple(sorted(set(named["insurance_providers"])))}
    return replace(before, **named, simulated=False)


def _found(found: Found, procedure: str | None) -> dict[str, Any]:
    facts = found.facility.summary()
    if found.distance_km is not None:
        facts["distance_km"] = round(found.distance_km, 3)
    if procedure is not None:
        facts |= {"price": found.facility.prices.get(procedure), "currency": found.facility.currency}
    return facts


def _page(name: str, rows: Rows, page: Page) -> dict[str, Any]:
    part = rows[page.offset : page.offset + page.limit]
    return {name: part, "total": len(rows), "limit": page.limit, "offset": page.offset}
