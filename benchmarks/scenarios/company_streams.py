"""Twenty companies with a hundred streams each at a thousand events a second (C7)."""

from __future__ import annotations

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome
from benchmarks.servers import Ringcast

NAME = "company_streams"
TITLE = "Streams of companies"
TARGET = "1,000 events/s over 20 companies with 100 connections each, ≤ 500 ms at p95"

COMPANIES = 20
METRICS = ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "latency_max_ms", "cpu_percent")


def run(lab: Lab) -> Outcome:
    readers, seconds = COMPANIES * lab.sized(100, 20), lab.sized(20, 3)
    outcome = Outcome(NAME, f"{COMPANIES} companies with {readers // COMPANIES} streams each, 1,000 events/s", TARGET)
    load = lab.load(
        f"{readers:,} streams of {COMPANIES} companies",
        readers=readers,
        filters=readers,
        groups=COMPANIES,
        path="/stream/updates?companyId=company-{g}",
        rate=1_000,
        count=1_000 * seconds,
        publishers=4,
        **Ringcast.ndjson
        | {
            "publish_path": "/channels/companies/events",
            "prefix": '{"topic":"companies/company-{g}","private":true,"type":"metric_updated","data":"',
        },
    )
    database = f"sqlite:{lab.folder}/companies.db"
    for runs in lab.compare(("ringcast",), load, apps="companies", simulate=False, database=database).values():
        outcome.add(runs, METRICS)
    outcome.check("p99, which is more than p95", outcome.median("ringcast", "latency_p99_ms"), "ms", at_most=500)
    opened = sum(run["opened"] for run in outcome.runs) / max(1, sum(run["readers"] for run in outcome.runs))
    outcome.check("of the streams opened", opened, "", at_least=0.95)
    return outcome
