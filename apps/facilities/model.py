"""Facilities: what one is, what of it may be changed, and which events a change makes. Pure.

Owns the rules: what is valid, what of a facility is monitored, and the form of an event. Must never know of databases,
requests or who asks.

Invariant: one event for each kind of monitored field that really changed, none for what is as it was; each tells all
monitored fields that changed with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import ujson
from pydantic import Field, StrictBool, StringConstraints

from apps.facilities.words import words_of
from apps.moments import written_seconds
from handlers.endpoints import Body, Safe
from server.event import Event
from server.region import Location

Capacity = Literal["low", "medium", "high", "full"]
Health = Literal["operational", "degraded", "down"]
Kind = Literal["hospital", "clinic", "urgent_care", "diagnostic_center"]

# Monitored fields, and the type of the event that tells of a change.
MONITORED: Mapping[str, str] = {
    "capacity_status": "capacity_update",
    "avg_wait_minutes": "wait_time_update",
    "urgent_care_available": "urgent_care_update",
    "service_health": "service_health_update",
}
# Private, for the nodes themselves: something changed that is not monitored.
UNMONITORED = "facility_update"
MAX_WAIT_MINUTES = 1_440
MAX_PRICE = 1_000_000_000
ID = re.compile(r"[A-Za-z0-9_-]{1,16}", re.ASCII)


CatalogueId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,40}$")]
Line = Annotated[str, StringConstraints(min_length=1, max_length=200), Safe]
Wait = Annotated[int, Field(strict=True, ge=0, le=MAX_WAIT_MINUTES)]
Price = Annotated[int, Field(strict=True, ge=0, le=MAX_PRICE)]


def _forget_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _left(**about: Any) -> Any:
    """A field that may be left out, and then says nothing: it has no default that a description could show."""
    return Field(default=None, json_schema_extra=_forget_default, **about)


class FacilityChange(Body):
    """What is to be different. What is not there stays."""

    name: Line = _left()
    address: Line = _left()
    phone: Annotated[str, StringConstraints(max_length=40), Safe] = _left()
    capacity_status: Capacity = _left(description="How much of its capacity is taken.")
    avg_wait_minutes: Wait = _left()
    urgent_care_available: StrictBool = _left()
    service_health: Health = _left()
    insurance_providers: Annotated[list[CatalogueId], Field(max_length=100)] = _left()
    prices: Annotated[dict[CatalogueId, Price], Field(max_length=200)] = _left(
        description="By the ids of procedures, in the facility's currency; all of them."
    )

    def named(self) -> dict[str, Any]:
        """The fields that are there."""
        return {name: getattr(self, name) for name in self.model_fields_set}


@dataclass(frozen=True, slots=True)
class Facility:
    """A facility. `simulated`: how it stands is made up; somebody's own word about it ends that. `prices` are in
    `currency`, by procedure."""

    id: str
    name: str
    facility_type: str
    address: str
    city: str
    country: str
    phone: str
    latitude: float
    longitude: float
    capacity_status: str
    avg_wait_minutes: int
    urgent_care_available: bool
    service_health: str
    currency: str
    simulated: bool
    updated_at: str
    insurance_providers: Sequence[str] = ()
    prices: Mapping[str, int] = field(default_factory=dict)

    @property
    def location(self) -> Location:
        return self.latitude, self.longitude

    def summary(self) -> dict[str, Any]:
        """As it stands in a list."""
        return {
            "id": self.id,
            "name": self.name,
            "facility_type": self.facility_type,
            "address": self.address,
            "city": self.city,
            "country": self.country,
            "location": _place(self),
            "capacity_status": self.capacity_status,
            "avg_wait_minutes": self.avg_wait_minutes,
            "urgent_care_available": self.urgent_care_available,
            "service_health": self.service_health,
            "simulated": self.simulated,
            "updated_at": self.updated_at,
        }

    def facts(self) -> dict[str, Any]:
        """All of it."""
        return self.summary() | {
            "phone": self.phone,
            "currency": self.currency,
            "insurance_providers": list(self.insurance_providers),
            "prices": dict(self.prices),
        }


def topic_of(facility_id: str) -> str:
    """The topic of a facility's events."""
    return f"facilities/{facility_id}"


def tag_of(facility_id: str) -> str:
    """What kept answers with this facility in them carry."""
    return f"facility:{facility_id}"


def terms_of(facility: Facility) -> frozenset[str]:
    """What the search index has of a facility: words, and what else is asked for by name."""
    text = f"{facility.name} {facility.facility_type} {facility.city} {facility.address}"
    insured = {insurance_term(one) for one in facility.insurance_providers}
    return frozenset(words_of(text)) | insured | {procedure_term(one) for one in facility.prices}


def insurance_term(provider: str) -> str:
    """The term of those who take an insurance. No word has this form."""
    return f"insurance={provider}"


def procedure_term(procedure: str) -> str:
    """The term of those who offer a procedure."""
    return f"procedure={procedure}"


def events_of(before: Facility, after: Facility, moment: datetime, tokens: Sequence[str]) -> list[Event]:
    """The events of a change, in the order of MONITORED. `tokens` makes their ids differ: one for each kind."""
    changed = {name: getattr(after, name) for name in MONITORED if getattr(after, name) != getattr(before, name)}
    topics = (topic_of(after.id),)
    if not changed:
        return (
            []
            if before == after
            else [Event(topics, ujson.dumps({"facility_id": after.id}), UNMONITORED, private=True)]
        )
    return [
        Event(topics, _text(after, kind, changed, moment, token), kind, location=after.location)
        for (name, kind), token in zip(MONITORED.items(), tokens, strict=True)
        if name in changed
    ]


def _text(facility: Facility, kind: str, changed: Mapping[str, Any], moment: datetime, token: str) -> str:
    body: dict[str, Any] = {
        "id": f"{moment.astimezone(UTC):%Y%m%d%H%M%S}-{token}",
        "facility_id": facility.id,
        "event_type": kind,
        "timestamp": written_seconds(moment.timestamp()),
        "location": _place(facility),
        "changed_fields": changed,
    }
    if facility.simulated:
        body["simulated"] = True
    return ujson.dumps(body, ensure_ascii=False, escape_forward_slashes=False)


def _place(facility: Facility) -> dict[str, float]:
    return {"latitude": facility.latitude, "longitude": facility.longitude}
