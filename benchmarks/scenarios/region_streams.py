"""Five thousand readers with five thousand different regions: what an event costs by where it happens.

Group g lies around the point (latitude g, longitude 0.5), where its events happen; each of its readers has a centre of
its own at that latitude, within 56 km of the point, and a radius of 60 km. The next group is 111 km away. They read a
channel with their region, and the region streams of the application `facilities`. The measure is the same number of
readers, groups and matches with topics in place of regions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome, ratio
from benchmarks.servers import Ringcast, Server
from benchmarks.storm import Run

NAME = "region_streams"
TITLE = "Region streams at 1,000 events/s"
TARGET = "a region costs little more than a topic"

GROUPS = 80  # degrees of latitude from the equator on
METRICS = ("cpu_us_per_event", "cpu_us_per_delivery", "latency_p99_ms", "cpu_percent")


def run(lab: Lab) -> Outcome:
    readers = lab.sized(5_000, 800)
    outcome = Outcome(NAME, f"{readers:,} different regions of 60 km at 1,000 events/s", TARGET)
    region = "lat={g}&lon=0.{f}5&radius=60"
    located = '"location":{"latitude":{g},"longitude":0.5},"data":"'
    database = f"sqlite:{lab.folder}/regions.db"
    facilities: dict[str, Any] = {"apps": "facilities", "simulate": False, "database": database}
    ways: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
        "topics": (
            {},
            {
                "path": "/channels/main/events?topic=items/{f}&topic=groups/{g}",
                "prefix": '{"topic":"groups/{g}","data":"',
            },
        ),
        "regions": (
            {},
            {"path": f"/channels/main/events?{region}", "prefix": f'{{"topic":"t",{located}'},
        ),
        "regions of facilities": (
            facilities,
            {
                "path": f"/api/stream/facilities/region?{region}",
                "publish_path": "/channels/facilities/events",
                "prefix": f'{{"topic":"facilities/fac_100","type":"wait_time_update",{located}',
            },
        ),
    }
    for label, (settings, way) in ways.items():
        for runs in lab.compare(("ringcast",), _readers(lab, label, readers, way), **settings).values():
            outcome.add(runs, METRICS, label=label)
    for label in ("regions", "regions of facilities"):
        outcome.check(
            f"CPU per event, {label} against topics",
            ratio(outcome.median(label, "cpu_us_per_event"), outcome.median("topics", "cpu_us_per_event")),
            "×",
            at_most=1.5,
        )
    return outcome


def _readers(lab: Lab, label: str, readers: int, way: dict[str, str]) -> Callable[[Server], Run]:
    seconds = lab.sized(10, 2)
    return lab.load(
        f"{readers:,} readers by {label}",
        readers=readers,
        filters=readers,
        groups=GROUPS,
        rate=1_000,
        count=1_000 * seconds,
        publishers=4,
        batch=10,
        **Ringcast.ndjson | way,
    )
