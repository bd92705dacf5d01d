"""What a log elsewhere adds between publish and receipt: the same runs with `memory:`, `sqlite:` and Redis.

`memory:` is the base, for its log is the process itself. Redis keeps nothing on disk: its fsync is its own matter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome
from benchmarks.servers import RedisStore, StartError, free_port

NAME = "relay_cost"
TITLE = "What a relay adds between publish and receipt"
TARGET = "sqlite ≤ 1 ms, Redis ≤ 2 ms at p99 over memory"

METRICS = ("latency_p50_ms", "latency_p99_ms", "latency_p999_ms", "answer_p99_ms", "cpu_us_per_event")
LIMITS_MS = {"sqlite": 1.0, "redis": 2.0}


def run(lab: Lab) -> Outcome:
    seconds = lab.sized(10, 2)
    outcome = Outcome(NAME, f"{TITLE}, 100 readers, 100 events/s", TARGET)
    for _ in range(lab.repetitions):
        for relay in ("memory", *LIMITS_MS):
            try:
                with _place(lab, relay) as place:
                    measured = lab.compare(
                        ("ringcast",),
                        lab.load(f"{relay}, 100 events/s", readers=100, rate=100, count=100 * seconds, publishers=8),
                        repetitions=1,
                        relay=place,
                    )
                outcome.keep(measured.get("ringcast", []))
            except StartError as error:
                lab.trouble.append((relay, str(error)))
    for relay in ("memory", *LIMITS_MS):
        runs = [run for run in outcome.runs if run.label.startswith(relay)]
        if runs:
            outcome.add_figures(f"ringcast with {relay}", runs, METRICS)
    for relay, limit in LIMITS_MS.items():
        for metric in ("latency_p50_ms", "latency_p99_ms"):
            base, other = (outcome.median(f"ringcast with {name}", metric) for name in ("memory", relay))
            added = other - base if base is not None and other is not None else None
            outcome.check(f"{relay} adds at {metric.split('_')[1]}", added, "ms", at_most=limit)
    return outcome


@contextlib.contextmanager
def _place(lab: Lab, relay: str) -> Iterator[str]:
    """Where the log is to be."""
    if relay == "redis":
        with RedisStore(lab.folder, lab.cores[1]) as redis:
            yield redis.url
    else:
        yield "memory:" if relay == "memory" else f"sqlite:{lab.folder}/relay-{free_port()}.db"
