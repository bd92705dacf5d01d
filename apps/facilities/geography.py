"""Distances, and the box around a region by which a database finds what may be in it. Pure.

Owns the box. Must never know of tables. Which place is in a region is said by `server.region.Region`, here as on the
streams, so that a search and a stream of the same region agree.

Invariant: every place of the region is in its box, over the date line and at the poles too.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import asin, cos, degrees, radians, sin, sqrt

from server.region import EARTH_RADIUS_KM, Location, Region

_MARGIN_DEGREES = 1e-5  # a metre: no rounding of trigonometry can lose a place at the rim


@dataclass(frozen=True, slots=True)
class Box:
    """From south to north, and one or two intervals of longitude from west to east."""

    south: float
    north: float
    longitudes: tuple[tuple[float, float], ...]


def distance_km(one: Location, other: Location) -> float:
    """Along the great circle."""
    phi, theta = radians(one[0]), radians(other[0])
    across = sin((radians(other[1]) - radians(one[1])) / 2)
    along = sin((theta - phi) / 2)
    return 2 * EARTH_RADIUS_KM * asin(min(1.0, sqrt(along * along + cos(phi) * cos(theta) * across * across)))


def box_of(region: Region) -> Box:
    """The box around a region."""
    reach = degrees(region.radius_km / EARTH_RADIUS_KM) + _MARGIN_DEGREES
    south, north = max(region.latitude - reach, -90.0), min(region.latitude + reach, 90.0)
    return Box(south, north, _longitudes(region, reach))


def _longitudes(region: Region, reach: float) -> tuple[tuple[float, float], ...]:
    if abs(region.latitude) + reach >= 90.0:  # a pole is in it, and with it every longitude
        return ((-180.0, 180.0),)
    # Where a meridian touches the circle; further than at any other latitude.
    aside = degrees(asin(min(1.0, sin(radians(reach)) / cos(radians(region.latitude))))) + _MARGIN_DEGREES
    west, east = region.longitude - aside, region.longitude + aside
    if west < -180.0:
        return ((west + 360.0, 180.0), (-180.0, east))
    if east > 180.0:
        return ((west, 180.0), (-180.0, east - 360.0))
    return ((west, east),)
