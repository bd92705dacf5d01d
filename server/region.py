"""Regions: circles on the earth that a subscriber may select by, and the cells by which their readers are found.

Owns the distance between two places and the grid. Must never know of events or selections. Pure.

The earth is a sphere of the mean radius, which is at most 0.6 % off. The grid has levels: at level n there are 2**n
bands of equal height from pole to pole, each cut into columns that are no narrower than the band is high; so a band at
a pole is one cell. A region stands at the level whose bands are as high as its radius or up to twice that: it is
covered by 20 cells at most, mostly by six or fewer, wherever it lies; half the earth and more is one cell.

Invariant: the cell of every place that a region contains is among its cells. They are of a circle that is a metre
wider, so that no rounding of trigonometry can part the two. Longitude 180 is -180, and the columns go round.
Cost: 0.5 microseconds for `contains` and for `cell_of`; about 10 for `cells`, which are made anew each time.
Sources: R. W. Sinnott, "Virtues of the Haversine", Sky and Telescope 68 (1984); IUGG mean radius.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import asin, cos, degrees, floor, log2, pi, radians, sin

EARTH_RADIUS_KM = 6371.0088
# Half the equator, rounded up: what a client may take for everywhere, though the sphere's half is a little less.
MAX_RADIUS_KM = 20038.0
# Cells of 19 metres: below that, a level more would be a look-up more for everybody.
MAX_LEVEL = 20
_MARGIN_DEGREES = 1e-5
_COLUMN_BITS = MAX_LEVEL + 2

Location = tuple[float, float]


class OutOfRange(ValueError):
    """A number that makes no place, or no radius. `field` says which it is, `reason` is fit for the client."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def check_location(location: Location) -> None:
    """Raise OutOfRange unless this is a latitude and a longitude in degrees."""
    latitude, longitude = location
    # Said so that what is no number (NaN) is out of range too.
    if not -90.0 <= latitude <= 90.0:
        raise OutOfRange("latitude", "must be from -90 to 90")
    if not -180.0 <= longitude <= 180.0:
        raise OutOfRange("longitude", "must be from -180 to 180")


@dataclass(frozen=True, slots=True)
class Region:
    """All places at most `radius_km` from a centre given in degrees. Equal regions are equal values.

    Raises OutOfRange.
    """

    latitude: float
    longitude: float
    radius_km: float
    level: int = field(init=False, compare=False, repr=False)
    _phi: float = field(init=False, compare=False, repr=False)
    _lambda: float = field(init=False, compare=False, repr=False)
    _cosine: float = field(init=False, compare=False, repr=False)
    _most: float = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_location((self.latitude, self.longitude))
        if not 0.0 < self.radius_km <= MAX_RADIUS_KM:
            raise OutOfRange("radius_km", f"must be more than 0 and at most {MAX_RADIUS_KM:g}")
        phi, angle = radians(self.latitude), self.radius_km / EARTH_RADIUS_KM
        derived = {
            "level": _level_of(degrees(angle)),
            "_phi": phi,
            "_lambda": radians(self.longitude),
            "_cosine": cos(phi),
            # The haversine of the radius, which grows with it: no root or arc is needed to compare. Of more than half
            # the way round it would fall again, and everything is nearer.
            "_most": sin(angle / 2) ** 2 if angle < pi else 2.0,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def contains(self, location: Location) -> bool:
        """True if the place is at most `radius_km` away along the great circle."""
        phi = radians(location[0])
        across = sin((radians(location[1]) - self._lambda) * 0.5)
        along = sin((phi - self._phi) * 0.5)
        return along * along + self._cosine * cos(phi) * across * across <= self._most

    @property
    def cells(self) -> list[int]:
        """The cells at `level` that cover the region, each once."""
        return [
            band << _COLUMN_BITS | column
            for band, columns in self._bands()
            for column in self._columns(columns)
        ]  # fmt: skip

    @property
    def _reach(self) -> float:
        """How far the region goes north and south of its centre, in degrees, and a margin."""
        return degrees(self.radius_km / EARTH_RADIUS_KM) + _MARGIN_DEGREES

    def _bands(self) -> Iterator[tuple[int, int]]:
        """The bands that the region touches, and how many columns each has."""
        south, north = self.latitude - self._reach, self.latitude + self._reach
        for band in range(_band_of(max(south, -90.0), self.level), _band_of(min(north, 90.0), self.level) + 1):
            yield band, _columns_of(band, self.level)

    def _columns(self, columns: int) -> Iterator[int]:
        """The columns of a band, of so many, that the region may touch."""
        reach = self._reach
        if abs(self.latitude) + reach >= 90.0:  # a pole is in it, and with it every longitude
            yield from range(columns)
            return
        # Where a meridian touches the circle; further than at any other latitude.
        aside = degrees(asin(min(1.0, sin(radians(reach)) / self._cosine))) + _MARGIN_DEGREES
        west = floor((self.longitude - aside + 180.0) / 360.0 * columns)
        east = floor((self.longitude + aside + 180.0) / 360.0 * columns)
        for column in range(west, min(east, west + columns - 1) + 1):
            yield column % columns


def cell_of(location: Location, level: int) -> int:
    """The cell at a level that a place is in."""
    band = _band_of(location[0], level)
    columns = _columns_of(band, level)
    return band << _COLUMN_BITS | int((location[1] + 180.0) / 360.0 * columns) % columns


def _level_of(reach: float) -> int:
    """The finest level whose bands are at least `reach` degrees high."""
    finest = 180.0 / (1 << MAX_LEVEL)
    return MAX_LEVEL if reach <= finest else max(0, int(log2(180.0 / reach)))


def _band_of(latitude: float, level: int) -> int:
    bands = 1 << level
    return min(int((latitude + 90.0) / 180.0 * bands), bands - 1)


def _columns_of(band: int, level: int) -> int:
    """As many columns as are no narrower than the band is high, measured at its edge towards the pole."""
    bands = 1 << level
    edge = max(abs(2 * band - bands), abs(2 * band + 2 - bands)) / bands * (pi / 2)  # latitude, in radians
    return max(1, int(2 * bands * cos(edge)))
