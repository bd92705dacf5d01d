"""What the endpoints of `facilities` may be asked: their parameters, and their ranges.

Owns the parameters. Must never know who answers.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from apps.facilities.model import MAX_WAIT_MINUTES, Capacity, CatalogueId, Kind, insurance_term, procedure_term
from apps.facilities.store import Wanted
from apps.facilities.words import words_of
from handlers.answers import bad
from handlers.endpoints import Page, Query
from handlers.fields import DEFAULT_RADIUS_KM
from server.region import MAX_RADIUS_KM, Region

Latitude = Annotated[float, Field(ge=-90, le=90)]
Longitude = Annotated[float, Field(ge=-180, le=180)]
Radius = Annotated[float, Field(gt=0, le=MAX_RADIUS_KM, description="In kilometres.")]
Text = Annotated[str, StringConstraints(max_length=100)]
Short = Annotated[int, Field(ge=1, le=50)]


class Around(Query):
    """A region."""

    lat: Latitude
    lon: Longitude
    radius: Radius = DEFAULT_RADIUS_KM


class Search(Page):
    """Which facilities. Without a place they are all over the world, by name."""

    lat: Latitude | None = None
    lon: Longitude | None = None
    radius: Radius = DEFAULT_RADIUS_KM
    q: Text = Field("", description="Words that begin so, in the name, the kind, the city or the address.")
    facility_type: Kind | None = None
    capacity_status: Capacity | None = None
    urgent_care: bool | None = None
    max_wait: Annotated[int, Field(ge=0, le=MAX_WAIT_MINUTES)] | None = None
    insurance: CatalogueId | None = None
    procedure: CatalogueId | None = Field(None, description="Those who offer it; each with its `price`.")

    def region(self) -> Region | None:
        """Where. Raises Refused if that is half a place."""
        if self.lat is None and self.lon is None:
            return None
        if self.lat is None or self.lon is None:
            raise bad("lat" if self.lat is None else "lon", "is needed for a region")
        return Region(self.lat, self.lon, self.radius)

    def wanted(self) -> Wanted:
        """The search. Raises Refused."""
        exact = [insurance_term(self.insurance)] if self.insurance else []
        exact += [procedure_term(self.procedure)] if self.procedure else []
        fields = {
            "facility_type": self.facility_type,
            "capacity_status": self.capacity_status,
            "urgent_care_available": self.urgent_care,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        return Wanted(self.region(), words_of(self.q), exact, given, self.max_wait)


class Suggest(Query):
    """What somebody has typed so far."""

    q: Annotated[Text, StringConstraints(min_length=1)]
    limit: Short = 10


class Geocode(Query):
    """The name of a place, or how it begins."""

    q: Annotated[Text, StringConstraints(min_length=2)]
    limit: Short = 10
