"""How busy a made-up facility is: believable numbers for the simulation. Pure.

Owns the course of a day. Must never know of clocks (it is told the time) or of the database.

Waits follow the time of day where the facility is (by its longitude), each facility with a level of its own; capacity
follows the wait, with some hysteresis, so that it does not flicker; care without an appointment opens and closes; now
and then a service is in trouble for a while.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from datetime import UTC, datetime
from math import exp
from random import Random

from apps.facilities.model import MAX_WAIT_MINUTES, Facility

USUAL_MINUTES = {"hospital": 55, "urgent_care": 35, "clinic": 28, "diagnostic_center": 22}
OPENS, CLOSES = 7.0, 21.0
MOST_STEP_MINUTES = 12.0
LEVELS = ("low", "medium", "high", "full")
# Shares of the usual wait at which capacity turns from one level to the next, and how far it has to pass them.
BORDERS = (0.45, 0.85, 1.3)
SPARE = 0.06
# From one state of health to another, with what chance at each look.
TURNS = {
    "operational": (("degraded", 0.006),),
    "degraded": (("operational", 0.2), ("down", 0.03)),
    "down": (("degraded", 0.25),),
}


def local_hour(moment: datetime, longitude: float) -> float:
    """The time of day by the sun."""
    utc = moment.astimezone(UTC)
    return (utc.hour + utc.minute / 60 + longitude / 15) % 24


def usual_wait(facility: Facility) -> float:
    """Minutes that one waits there at a common hour: its own, from its id."""
    own = zlib.crc32(facility.id.encode()) % 1000 / 1000
    return USUAL_MINUTES[facility.facility_type] * (0.6 + 0.8 * own)


def crowd(hour: float) -> float:
    """How many come at an hour of the day, as a share of the usual: a peak before noon, one after work."""
    return 0.25 + 0.9 * _bell(hour, 10.5, 2.2) + 0.75 * _bell(hour, 18.0, 1.9)


def _bell(hour: float, peak: float, width: float) -> float:
    off = (hour - peak + 12) % 24 - 12
    return exp(-((off / width) ** 2) / 2)


def next_state(facility: Facility, moment: datetime, chance: Random) -> Facility:
    """How it stands a while later."""
    hour = local_hour(moment, facility.longitude)
    usual = usual_wait(facility)
    target = usual * crowd(hour) * exp(chance.gauss(0, 0.25))
    step = max(-MOST_STEP_MINUTES, min(MOST_STEP_MINUTES, 0.4 * (target - facility.avg_wait_minutes)))
    wait = max(0, min(MAX_WAIT_MINUTES, round(facility.avg_wait_minutes + step)))
    return replace(
        facility,
        avg_wait_minutes=wait,
        capacity_status=capacity_at(facility.capacity_status, wait / usual),
        urgent_care_available=_urgent_care(facility, hour, chance),
        service_health=_health(facility.service_health, chance),
        simulated=True,
    )


def capacity_at(before: str, share: float) -> str:
    """How full a place is where one waits such a share of the usual."""
    level = LEVELS.index(before)
    while level < len(BORDERS) and share > BORDERS[level] + SPARE:
        level += 1
    while level > 0 and share < BORDERS[level - 1] - SPARE:
        level -= 1
    return LEVELS[level]


def _urgent_care(facility: Facility, hour: float, chance: Random) -> bool:
    """Hospitals always have it, diagnostic centres never; the others open and close, not all at the same minute."""
    if facility.facility_type in ("hospital", "diagnostic_center"):
        return facility.facility_type == "hospital"
    is_open = OPENS <= hour < CLOSES
    return is_open if chance.random() < 0.3 else facility.urgent_care_available


def _health(before: str, chance: Random) -> str:
    drawn = chance.random()
    for after, share in TURNS.get(before, ()):
        if drawn < share:
            return after
        drawn -= share
    return before
