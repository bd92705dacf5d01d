"""From the moment an event is due at its publisher until a reader has it, in a small room."""

from __future__ import annotations

from benchmarks.lab import EVERYBODY, Lab
from benchmarks.outcome import Outcome

NAME = "latency"
TITLE = "Publish to receipt at 100 readers"
TARGET = "p99 < 3 ms"


def run(lab: Lab) -> Outcome:
    seconds = lab.sized(10, 1)
    outcome = Outcome(NAME, TITLE, TARGET)
    measured = lab.compare(
        lab.sized(EVERYBODY, ("ringcast", "floor")),
        lab.load("100 readers, 50 events/s", readers=100, rate=50, count=50 * seconds, publishers=4),
    )
    for runs in measured.values():
        outcome.add(runs, ["latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "latency_p999_ms", "latency_max_ms"])
    outcome.check("p99", outcome.median("ringcast", "latency_p99_ms"), "ms", at_most=3.0)
    return outcome
