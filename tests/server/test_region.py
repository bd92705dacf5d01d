"""Regions: what is within a radius, and that the cells of a region hold all of it, wherever on the earth it lies."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from server.region import EARTH_RADIUS_KM, MAX_LEVEL, MAX_RADIUS_KM, Location, OutOfRange, Region, cell_of

# Where things go wrong: the poles and what is near them, the date line from both sides, the borders of cells.
LATITUDES = st.sampled_from([0.0, 45.0, 89.99999, 90.0, -89.9, -90.0]) | st.floats(-90, 90)
LONGITUDES = st.sampled_from([0.0, 90.0, 179.99999, 180.0, -179.9, -180.0]) | st.floats(-180, 180)
PLACES = st.tuples(LATITUDES, LONGITUDES)
RADII = (
    st.sampled_from([1e-300, 1e-3, 50.0, 10_007.543, 20_015.114, MAX_RADIUS_KM])
    | st.floats(0, MAX_RADIUS_KM, exclude_min=True)
    | st.floats(-6, 4.3).map(lambda power: 10.0**power)
)
REGIONS = st.builds(Region, LATITUDES, LONGITUDES, RADII)


def distance_km(one: Location, other: Location) -> float:
    """By vectors and not by the haversine."""
    (a, b, c), (x, y, z) = map(vector, (one, other))
    across = math.hypot(b * z - c * y, c * x - a * z, a * y - b * x)
    return EARTH_RADIUS_KM * math.atan2(across, a * x + b * y + c * z)


def vector(place: Location) -> tuple[float, float, float]:
    phi, turn = map(math.radians, place)
    return math.cos(phi) * math.cos(turn), math.cos(phi) * math.sin(turn), math.sin(phi)


def place_at(region: Region, bearing: float, distance: float) -> Location:
    """The place so many km from the centre."""
    phi, turn = math.radians(region.latitude), math.radians(region.longitude)
    centre = vector((region.latitude, region.longitude))
    north = -math.sin(phi) * math.cos(turn), -math.sin(phi) * math.sin(turn), math.cos(phi)
    east = -math.sin(turn), math.cos(turn), 0.0
    angle = distance / EARTH_RADIUS_KM
    x, y, z = (
        math.cos(angle) * here + math.sin(angle) * (math.cos(bearing) * ahead + math.sin(bearing) * aside)
        for here, ahead, aside in zip(centre, north, east, strict=True)
    )
    return math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))


def check(region: Region, place: Location) -> None:
    """`contains` is right, and a place that is contained is found by its cell."""
    away = distance_km((region.latitude, region.longitude), place)
    # Rounding: less than a millimetre, near the other end of the earth less than a metre.
    if abs(away - region.radius_km) > (1e-9 if region.radius_km < 10_000 else 1e-3):
        assert region.contains(place) == (away <= region.radius_km)
    if region.contains(place):
        assert cell_of(place, region.level) in region.cells


@given(REGIONS, PLACES)
def test_a_region_contains_what_is_within_its_radius_and_its_cells_hold_that(region: Region, place: Location) -> None:
    check(region, place)


@given(REGIONS, st.floats(-math.pi, math.pi), st.sampled_from([1.0]) | st.floats(0.9, 1.1))
def test_so_it_is_at_the_rim(region: Region, bearing: float, part: float) -> None:
    check(region, place_at(region, bearing, min(region.radius_km * part, math.pi * EARTH_RADIUS_KM)))


@given(REGIONS, st.floats(-math.pi, math.pi), st.floats(0, 1))
def test_so_it_is_inside(region: Region, bearing: float, part: float) -> None:
    check(region, place_at(region, bearing, region.radius_km * part))


@pytest.mark.parametrize("latitude", [0.0, 30.0, 59.9, 80.0, 85.0, 89.0, 89.5, 89.9, 89.99, 89.9999, 90.0])
@pytest.mark.parametrize("longitude", [0.0, 45.3, 179.9999, -180.0])
def test_so_it_is_all_round(latitude: float, longitude: float) -> None:
    """Where a circle is widest is not where chance looks first."""
    for radius in (0.01, 1.0, 11.0, 50.0, 111.0, 400.0, 1_112.0, 3_000.0, 9_000.0, 19_000.0):
        for region in (Region(latitude, longitude, radius), Region(-latitude, longitude, radius)):
            cells = set(region.cells)
            for bearing in range(0, 360, 3):
                for part in (0.3, 0.7, 0.999_999, 1.0):
                    place = place_at(region, math.radians(bearing), radius * part)
                    assert not region.contains(place) or cell_of(place, region.level) in cells
                    assert part == 1.0 or region.contains(place)


def test_no_rounding_parts_what_a_region_contains_from_its_cells() -> None:
    """Circles that just touch the border of a band."""
    chance = random.Random(3)
    for _ in range(2_000):
        height = 180 / 2 ** chance.randint(1, 6)
        border = -90 + height * chance.randint(1, int(180 / height) - 1), chance.uniform(-180, 180)
        centre = max(-90.0, border[0] - height * chance.uniform(0.5, 1)), border[1]
        radius = distance_km(border, centre) * (1 - 1e-14)
        while not Region(*centre, radius).contains(border):
            radius = math.nextafter(radius, math.inf)
        region = Region(*centre, radius)
        assert cell_of(border, region.level) in region.cells


@given(REGIONS)
def test_a_region_of_any_size_has_a_few_cells_each_once(region: Region) -> None:
    assert 1 <= len(region.cells) <= 20
    assert len(set(region.cells)) == len(region.cells)


@given(REGIONS, PLACES)
def test_what_is_far_away_is_in_none_of_a_regions_cells(region: Region, place: Location) -> None:
    """So that an event asks only those nearby. Below 20 metres cells become no smaller."""
    assume(distance_km((region.latitude, region.longitude), place) > 6 * max(region.radius_km, 0.02))
    assert cell_of(place, region.level) not in region.cells


@pytest.mark.parametrize(
    ("region", "place", "contained"),
    [
        (Region(0, 0, 10_007.6), (90, 123), True),  # a quarter of the way round
        (Region(0, 0, 10_007.5), (90, 123), False),
        (Region(0, 0, 10_007.6), (0, -90), True),
        (Region(0, 179.9, 25), (0, -179.9), True),  # 22 km over the date line
        (Region(0, -179.9, 25), (0, 179.9), True),
        (Region(0, 179.9, 20), (0, -179.9), False),
        (Region(10, 180, 0.001), (10, -180), True),
        (Region(89.9, 0, 25), (89.9, 180), True),  # 22 km over the pole
        (Region(-89.9, 20, 25), (-89.9, -160), True),
        (Region(89.9, 0, 20), (89.9, 180), False),
        (Region(90, 0, 0.001), (90, -77), True),
        (Region(89, 10, 112), (90, -100), True),
        (Region(0, 0, 15_000), (0, 134), True),  # more than half the earth
        (Region(0, 0, 15_000), (0, 136), False),
        (Region(60, 0, 15_000), (-74, 0), True),
        (Region(60, 0, 15_000), (-90, 0), False),
        (Region(45, 45, 20_015), (-45, -135), False),  # 115 metres short of everywhere
        (Region(45, 45, 20_015.2), (-45, -135), True),
        (Region(45, 45, MAX_RADIUS_KM), (-45, -135), True),
        (Region(6.5244, 3.3792, 25), (6.6018, 3.3515), True),  # Lagos, Ikeja
        (Region(6.5244, 3.3792, 25), (7.3775, 3.9470), False),  # Ibadan
    ],
)  # fmt: skip
def test_the_date_line_the_poles_and_the_far_side_are_no_borders(
    region: Region, place: Location, contained: bool
) -> None:
    assert region.contains(place) is contained
    check(region, place)


@pytest.mark.parametrize("level", range(MAX_LEVEL + 1))
def test_the_date_line_has_one_side_and_a_pole_one_longitude(level: int) -> None:
    for latitude in (-90.0, -33.3, 0.0, 12.5, 90.0):
        assert cell_of((latitude, 180.0), level) == cell_of((latitude, -180.0), level)
    for pole in (90.0, -90.0):
        assert len({cell_of((pole, float(longitude)), level) for longitude in range(-180, 181, 7)}) == 1
    assert (cell_of((90.0, 0.0), level) == cell_of((-90.0, 0.0), level)) is (level == 0)


def test_cells_of_a_level_are_told_apart() -> None:
    found = {cell_of((latitude, longitude), 20) for latitude in range(-90, 90) for longitude in range(-180, 180, 5)}
    assert len(found) == 1 + 179 * 72  # the south pole is one


@given(PLACES, RADII)
def test_equal_regions_are_equal_values(place: Location, radius: float) -> None:
    one, other = Region(*place, radius), Region(*place, radius)
    assert one == other
    assert hash(one) == hash(other)
    assert Region(1, 2, 3) not in {Region(1, 2, 4), Region(2, 2, 3), Region(1, 3, 3)}
    assert repr(Region(1, 2, 3)) == "Region(latitude=1, longitude=2, radius_km=3)"


@pytest.mark.parametrize(
    ("latitude", "longitude", "radius", "field"),
    [
        (90.1, 0, 1, "latitude"),
        (-91, 0, 1, "latitude"),
        (math.nan, 0, 1, "latitude"),
        (math.inf, 0, 1, "latitude"),
        (0, 180.1, 1, "longitude"),
        (0, -math.inf, 1, "longitude"),
        (0, math.nan, 1, "longitude"),
        (0, 0, 0, "radius_km"),
        (0, 0, -1, "radius_km"),
        (0, 0, 20_038.1, "radius_km"),
        (0, 0, math.nan, "radius_km"),
    ],
)
def test_what_is_no_place_or_no_radius_makes_no_region(
    latitude: float, longitude: float, radius: float, field: str
) -> None:
    with pytest.raises(OutOfRange, match="must be") as caught:
        Region(latitude, longitude, radius)
    assert caught.value.field == field
