"""Ten thousand streams of facilities: how long a change takes to reach those who watch that facility (F11)."""

from __future__ import annotations

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome
from benchmarks.servers import Ringcast

NAME = "facility_streams"
TITLE = "Streams of facilities"
TARGET = "10,000 connections, publish to receipt ≤ 50 ms at p99"

FACILITIES = 10  # fac_100 to fac_109
METRICS = ("latency_p50_ms", "latency_p99_ms", "latency_max_ms", "memory_per_reader_kb", "cpu_percent")


def run(lab: Lab) -> Outcome:
    readers, seconds = lab.sized(10_000, 1_000), lab.sized(20, 3)
    outcome = Outcome(NAME, f"{readers:,} streams of {FACILITIES} facilities, 10 changes a second", TARGET)
    load = lab.load(
        f"{readers:,} streams of {FACILITIES} facilities",
        readers=readers,
        filters=readers,
        groups=FACILITIES,
        path="/api/stream/facilities/fac_10{g}",
        rate=10,
        count=10 * seconds,
        **Ringcast.ndjson
        | {
            "publish_path": "/channels/facilities/events",
            "prefix": '{"topic":"facilities/fac_10{g}","type":"wait_time_update","data":"',
        },
    )
    database = f"sqlite:{lab.folder}/facilities.db"
    for runs in lab.compare(("ringcast",), load, apps="facilities", simulate=False, database=database).values():
        outcome.add(runs, METRICS)
    outcome.check("p99", outcome.median("ringcast", "latency_p99_ms"), "ms", at_most=50)
    outcome.check("memory a connection", outcome.median("ringcast", "memory_per_reader_kb"), "KB", at_most=100)
    return outcome
