"""Five thousand readers with five thousand different regions: what an event costs by where it happens.

Group g lies around the point (latitude g, longitude 0.5), where its events happen; each of its readers has a centre of
its own at that latitude, within 56 km of the point, and a radius of 60 km. The next group is 111 km away. The measure
is the same number of readers, groups and matches with topics in place of regions.
"""

from __future__ import annotations

from collections.abc import Callable

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
    ways = {
        "topics": ("?topic=items/{f}&topic=groups/{g}", '{"topic":"groups/{g}","data":"', '"}'),
        "regions": (
            "?lat={g}&lon=0.{f}5&radius=60",
            '{"topic":"t","location":{"latitude":{g},"longitude":0.5},"data":"',
            '"}',
        ),
    }
    for label, way in ways.items():
        for runs in lab.compare(("ringcast",), _readers(lab, label, readers, *way)).values():
            outcome.add(runs, METRICS, label=label)
    outcome.check(
        "CPU per event, regions against topics",
        ratio(outcome.median("regions", "cpu_us_per_event"), outcome.median("topics", "cpu_us_per_event")),
        "×",
        at_most=1.5,
    )
    return outcome


def _readers(lab: Lab, label: str, readers: int, query: str, prefix: str, suffix: str) -> Callable[[Server], Run]:
    seconds = lab.sized(10, 2)
    return lab.load(
        f"{readers:,} readers by {label}",
        readers=readers,
        filters=readers,
        groups=GROUPS,
        path=f"/channels/main/events{query}",
        rate=1_000,
        count=1_000 * seconds,
        publishers=4,
        batch=10,
        **Ringcast.ndjson | {"prefix": prefix, "suffix": suffix},
    )
