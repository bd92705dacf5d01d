"""Twenty companies with a hundred streams each at a thousand events a second (C7): messages published to a NATS server,
the log in Redis.

Latency is from when a message was due at NATS until a stream has its event. Beside it the same events published by HTTP
with the log in memory, so that the difference is NATS, the bridge and Redis. These two run on the load's core.
"""

from __future__ import annotations

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome
from benchmarks.servers import NatsCore, RedisStore, Ringcast, StartError
from benchmarks.storm import Run

NAME = "company_streams"
TITLE = "Streams of companies"
TARGET = "1,000 events/s over 20 companies with 100 connections each, ≤ 500 ms at p95"

COMPANIES, RATE, SUBJECT = 20, 1_000, "metrics.calculated"
METRICS = ("latency_p50_ms", "latency_p90_ms", "latency_p95_ms", "latency_p99_ms", "latency_max_ms", "cpu_percent")
NATS, HTTP = "NATS, log in Redis", "HTTP, log in memory"


def run(lab: Lab) -> Outcome:
    streams, seconds = lab.sized(100, 20), lab.sized(20, 3)
    outcome = Outcome(NAME, f"{COMPANIES} companies with {streams} streams each, {RATE:,} events/s", TARGET)
    for _ in range(lab.repetitions):
        try:
            outcome.keep(by_nats(lab, streams, seconds))
        except StartError as error:
            lab.trouble.append(("ringcast", str(error)))
        outcome.keep(by_http(lab, streams, seconds))
    for label in (NATS, HTTP):
        runs = [run for run in outcome.runs if run.label == label]
        if runs:
            outcome.add_figures(label, runs, METRICS)
    outcome.check("from NATS to the stream, p95", outcome.median(NATS, "latency_p95_ms"), "ms", at_most=500)
    outcome.check("by HTTP, p99, which is more than p95", outcome.median(HTTP, "latency_p99_ms"), "ms", at_most=500)
    opened = sum(run["opened"] for run in outcome.runs) / max(1, sum(run["readers"] for run in outcome.runs))
    outcome.check("of the streams opened", opened, "", at_least=0.95)
    return outcome


def by_nats(lab: Lab, streams: int, seconds: int) -> list[Run]:
    """One run, with `streams` for each company. Raises StartError for NATS or Redis."""
    with NatsCore(lab.folder, lab.cores[1]) as nats, RedisStore(lab.folder, lab.cores[1]) as redis:
        way = {
            "publish_to": nats.address,
            "publish_subject": SUBJECT,
            "prefix": '{"companyId":"company-{g}","metricName":"integration_score","value":0.85,"note":"',
            "suffix": '"}',
        }
        return _measured(lab, NATS, streams, seconds, way, nats_url=f"nats://{nats.address}", relay=redis.url)


def by_http(lab: Lab, streams: int, seconds: int) -> list[Run]:
    """The same without NATS and Redis."""
    way = Ringcast.ndjson | {
        "publish_path": "/channels/companies/events",
        "prefix": '{"topic":"companies/company-{g}","private":true,"type":"metric_updated","data":"',
    }
    return _measured(lab, HTTP, streams, seconds, way)


def _measured(
    lab: Lab, label: str, streams: int, seconds: int, way: dict[str, object], **settings: object
) -> list[Run]:
    load = lab.load(
        label,
        readers=COMPANIES * streams,
        filters=COMPANIES * streams,
        groups=COMPANIES,
        path="/stream/updates?companyId=company-{g}",
        rate=RATE,
        count=RATE * seconds,
        publishers=4,
        **way,
    )
    settings |= {"apps": "companies", "simulate": False, "database": f"sqlite:{lab.folder}/companies.db"}
    return lab.compare(("ringcast",), load, repetitions=1, **settings).get("ringcast", [])
