"""Facilities without a server: what a change says, regions, words, places, the simulation, the generated data."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.facilities import generate
from apps.facilities.catalogue import read_facilities, read_procedures, read_providers, text_of
from apps.facilities.geography import box_of, distance_km
from apps.facilities.model import MONITORED, Facility, FacilityChange, events_of, terms_of
from apps.facilities.places import Places
from apps.facilities.rhythm import LEVELS, crowd, local_hour, next_state, usual_wait
from apps.facilities.words import folded
from server.region import Location, Region

NOON = datetime(2026, 2, 7, 12, 30, 45, tzinfo=UTC)
FIRST = read_facilities()[0]
CHANGES: dict[str, Any] = {
    "capacity_status": "full",
    "avg_wait_minutes": 90,
    "urgent_care_available": False,
    "service_health": "down",
}


def events(after: Facility) -> list[dict[str, object]]:
    made = events_of(FIRST, after, NOON, ["a1b2c3d4", "1", "2", "3"])
    assert all(event.location == (6.5244, 3.3792) and event.topics == ("facilities/fac_001",) for event in made)
    return [json.loads(event.data) for event in made]


def test_an_event_is_exactly_as_it_is_documented() -> None:
    """F3."""
    body, _ = events(replace(FIRST, capacity_status="high", avg_wait_minutes=15, simulated=False))
    assert body == {
        "id": "20260207123045-a1b2c3d4",
        "facility_id": "fac_001",
        "event_type": "capacity_update",
        "timestamp": "2026-02-07T12:30:45Z",
        "location": {"latitude": 6.5244, "longitude": 3.3792},
        "changed_fields": {"capacity_status": "high", "avg_wait_minutes": 15},
    }


@given(st.sets(st.sampled_from(sorted(CHANGES))))
def test_there_is_one_event_for_each_kind_of_field_that_changed(fields: set[str]) -> None:
    """F4: and each has an id of its own."""
    changed = {name: CHANGES[name] for name in fields}
    made = events(replace(FIRST, simulated=False, **changed)) if fields else []
    assert [body["event_type"] for body in made] == [kind for name, kind in MONITORED.items() if name in fields]
    assert all(body["changed_fields"] == changed and "simulated" not in body for body in made)
    assert len({str(body["id"]) for body in made}) == len(fields)


def test_what_is_not_monitored_is_told_to_the_nodes_alone() -> None:
    """F4, F7: their kept answers have to go; readers of the streams hear nothing."""
    assert events_of(FIRST, FIRST, NOON, ["a"] * 4) == []
    [event] = events_of(FIRST, replace(FIRST, name="Another"), NOON, ["a"] * 4)
    assert event.private
    assert event.type not in MONITORED.values()


def test_a_simulated_change_says_so() -> None:
    """F3."""
    [body] = events(replace(FIRST, avg_wait_minutes=1))
    assert body["simulated"] is True


def test_a_change_has_no_field_that_was_not_given() -> None:
    """F4."""
    assert FacilityChange.model_validate({"avg_wait_minutes": 0}).named() == {"avg_wait_minutes": 0}
    assert "default" not in json.dumps(FacilityChange.model_json_schema())


# --- regions

latitudes = st.floats(-90, 90)
longitudes = st.floats(-180, 180)


@given(latitudes, longitudes, st.floats(0.01, 20_038), latitudes, longitudes)
def test_a_box_has_all_that_its_region_has(
    latitude: float, longitude: float, radius: float, there: float, where: float
) -> None:
    """F2, F5: over the date line and at the poles too."""
    region, place = Region(latitude, longitude, radius), (there, where)
    assert not region.contains(place) or in_box(region, place)


@given(latitudes, longitudes, st.floats(0.01, 10_000), st.floats(0, 2 * math.pi), st.floats(0, 0.999999))
def test_a_box_has_what_is_just_inside_the_rim(
    latitude: float, longitude: float, radius: float, bearing: float, share: float
) -> None:
    """F2, F5."""
    region, place = Region(latitude, longitude, radius), at(latitude, longitude, bearing, radius * share)
    assert not region.contains(place) or in_box(region, place)


def at(latitude: float, longitude: float, bearing: float, far_km: float) -> Location:
    """The place so far away in a direction."""
    phi, angle = math.radians(latitude), far_km / 6371.0088
    sine = math.sin(phi) * math.cos(angle) + math.cos(phi) * math.sin(angle) * math.cos(bearing)
    there = math.asin(max(-1.0, min(1.0, sine)))
    across = math.atan2(
        math.sin(bearing) * math.sin(angle) * math.cos(phi), math.cos(angle) - math.sin(phi) * math.sin(there)
    )
    return math.degrees(there), (longitude + math.degrees(across) + 180) % 360 - 180


def in_box(region: Region, place: Location) -> bool:
    box = box_of(region)
    return box.south <= place[0] <= box.north and any(west <= place[1] <= east for west, east in box.longitudes)


def test_a_box_over_the_date_line_has_two_parts_and_one_at_a_pole_goes_round() -> None:
    """F2."""
    assert len(box_of(Region(-16.8, 179.9, 50)).longitudes) == 2
    assert len(box_of(Region(-16.8, -179.9, 50)).longitudes) == 2
    assert box_of(Region(89.9, 10, 50)).longitudes == ((-180.0, 180.0),)
    assert distance_km((-16.8, 179.99), (-16.8, -179.99)) == pytest.approx(2.13, abs=0.01)
    assert distance_km((89.9, 0), (89.9, 180)) == pytest.approx(22.24, abs=0.01)


# --- words and places


@pytest.mark.parametrize("text", ["São Paulo", "SAO-PAULO", " sa\u0303o  paulo. ", "são/paulo"])
def test_words_are_the_same_however_they_are_written(text: str) -> None:
    """F5."""
    assert folded(text) == "sao paulo"


@given(st.text(st.characters(max_codepoint=127)))
def test_plain_words_are_folded_as_those_with_accents_are(text: str) -> None:
    """F5: most names take a shorter way."""
    assert folded(text) == folded(f"{text} \u00e9").removesuffix("e").rstrip()


def test_the_search_index_has_words_insurance_and_procedures() -> None:
    """F5."""
    terms = terms_of(FIRST)
    assert {"yaba", "general", "hospital", "lagos", "insurance=nhia", "procedure=proc_mri_knee"} <= terms


def test_places_are_found_by_name_by_other_names_and_by_beginnings() -> None:
    """F5."""
    places = Places(text_of("places.tsv"))
    assert [place.name for place in places.find("Suva", 1)] == ["Suva"]
    assert places.find("bombay", 1)[0].name == "Mumbai"
    assert [place.country for place in places.find("lagos", 2)] == ["NG", "PT"]
    assert places.find("sao pau", 1)[0].name == "São Paulo"
    assert places.find("new york", 1)[0].country == "US"
    assert places.find("?!", 5) == []
    assert len(places.find("sa", 50)) == 50


# --- the simulation


def test_a_simulated_day_is_quiet_at_night_and_busy_before_noon() -> None:
    chance, facility = Random(1), FIRST
    waits: dict[int, list[int]] = {}
    for minute in range(0, 10 * 24 * 60, 10):
        moment = NOON + timedelta(minutes=minute)
        facility = next_state(facility, moment, chance)
        waits.setdefault(int(local_hour(moment, facility.longitude)), []).append(facility.avg_wait_minutes)
        assert facility.simulated
        assert facility.capacity_status in LEVELS
        assert facility.urgent_care_available
    mean = {hour: sum(found) / len(found) for hour, found in waits.items()}
    assert mean[3] < usual_wait(FIRST) * 0.5 < mean[11]
    assert crowd(10.5) > crowd(14) > crowd(3)


def test_the_hour_is_that_of_the_place() -> None:
    assert local_hour(NOON, 180) == pytest.approx(0.5)
    assert local_hour(NOON, -90) == pytest.approx(6.5)


# --- what is generated


def test_the_generated_facilities_are_as_the_script_makes_them() -> None:
    assert generate.written_facilities() == text_of("facilities.json")


def test_the_generated_facilities_make_sense() -> None:
    found = read_facilities()
    assert (found[0].id, found[0].location) == ("fac_001", (6.5244, 3.3792))
    assert len({one.id for one in found}) == len(found) > 300
    assert len({one.city for one in found}) > 10
    assert any(one.longitude > 179.9 for one in found)
    assert any(one.longitude < -179.8 for one in found)
    providers = {one["id"] for one in read_providers()}
    procedures = {one["id"] for one in read_procedures()}
    for one in found:
        Region(*one.location, 1.0)
        assert one.simulated
        assert providers >= set(one.insurance_providers) != set()
        assert procedures >= set(one.prices) != set()
        assert FacilityChange.model_validate({"name": one.name, "address": one.address, "phone": one.phone})
