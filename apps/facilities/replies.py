"""What the endpoints of `facilities` answer, as the API's description shows it.

Owns the form of answers, and nothing that makes them: a test holds the two together.
"""

from __future__ import annotations

from pydantic import Field

from apps.facilities.model import Capacity, Health, Kind
from handlers.endpoints import Answer


class Location(Answer):
    """A place, in degrees."""

    latitude: float
    longitude: float


class Summary(Answer):
    """A facility in a list."""

    id: str
    name: str
    facility_type: Kind
    address: str
    city: str
    country: str
    location: Location
    capacity_status: Capacity
    avg_wait_minutes: int
    urgent_care_available: bool
    service_health: Health
    simulated: bool
    updated_at: str


class Result(Summary):
    """A facility that was found."""

    distance_km: float = Field(0.0, description="If a place was asked for.")
    price: int | None = Field(None, description="If a procedure was asked for, in `currency`.")
    currency: str = ""


class Whole(Summary):
    """All that is known of a facility."""

    phone: str
    currency: str
    insurance_providers: list[str]
    prices: dict[str, int]


class Paged(Answer):
    """A part of `total`."""

    total: int
    limit: int
    offset: int


class Results(Paged):
    """What a search finds."""

    facilities: list[Result]


class Suggestion(Answer):
    """A facility that may be meant."""

    id: str
    name: str
    facility_type: Kind
    city: str
    country: str


class Suggestions(Answer):
    """The best ones first."""

    suggestions: list[Suggestion]


class Provider(Answer):
    """An insurance provider. No countries: everywhere."""

    id: str
    name: str
    countries: list[str]


class Providers(Paged):
    """The catalogue of insurance providers."""

    insurance_providers: list[Provider]


class Procedure(Answer):
    """Something that is done, and has a price."""

    id: str
    name: str
    category: str


class Procedures(Paged):
    """The catalogue of procedures."""

    procedures: list[Procedure]


class City(Answer):
    """A place with a name."""

    name: str
    country: str
    location: Location
    population: int


class Cities(Answer):
    """What a name may mean."""

    places: list[City]


class Dropped(Answer):
    """How many kept answers went, on the node that was asked."""

    dropped: int
