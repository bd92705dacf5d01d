"""What writing the log down adds between publish and receipt: the same runs with `memory:` and with `sqlite:`.

`memory:` is the base, for its log is the process itself.
"""

from __future__ import annotations

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome
from benchmarks.servers import free_port

NAME = "relay_cost"
TITLE = "What a relay adds between publish and receipt"
TARGET = "sqlite ≤ 1 ms at p99 over memory"

METRICS = ("latency_p50_ms", "latency_p99_ms", "latency_p999_ms", "answer_p99_ms", "cpu_us_per_event")


def run(lab: Lab) -> Outcome:
    seconds = lab.sized(10, 2)
    outcome = Outcome(NAME, f"{TITLE}, 100 readers, 100 events/s", TARGET)
    for _ in range(lab.repetitions):
        for relay in ("memory", "sqlite"):
            place = "memory:" if relay == "memory" else f"sqlite:{lab.folder}/relay-{free_port()}.db"
            measured = lab.compare(
                ("ringcast",),
                lab.load(f"{relay}, 100 events/s", readers=100, rate=100, count=100 * seconds, publishers=8),
                repetitions=1,
                relay=place,
            )
            outcome.keep(measured.get("ringcast", []))
    for relay in ("memory", "sqlite"):
        runs = [run for run in outcome.runs if run.label.startswith(relay)]
        if runs:
            outcome.add_figures(f"ringcast with {relay}", runs, METRICS)
    for metric, limit in (("latency_p50_ms", 1.0), ("latency_p99_ms", 1.0)):
        memory, sqlite = outcome.median("ringcast with memory", metric), outcome.median("ringcast with sqlite", metric)
        added = sqlite - memory if memory is not None and sqlite is not None else None
        outcome.check(f"sqlite adds at {metric.split('_')[1]}", added, "ms", at_most=limit)
    return outcome
