"""How many events one process takes in when nobody listens: one a request, and a thousand a request."""

from __future__ import annotations

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome
from benchmarks.servers import Ringcast

NAME = "publish_rate"
TITLE = "Publishes accepted without readers"
TARGET = "single POSTs ≥ 4,000/s; NDJSON of 1,000 a request ≥ 50,000 events/s"


def run(lab: Lab) -> Outcome:
    outcome = Outcome(NAME, TITLE, TARGET)
    count, publishers = lab.sized(30_000, 4_000), 64
    singles = lab.compare(
        lab.sized(("ringcast", "nchan", "tornado", "starlette"), ("ringcast",)),
        lab.load(f"{publishers} publishers, one event a request", count=count, rate=0, publishers=publishers),
    )
    for runs in singles.values():
        outcome.add(runs, ["accepted_per_second", "answer_p99_ms", "cpu_us_per_event"])
    lines = lab.sized(600_000, 60_000)
    batches = lab.compare(
        ("ringcast",),
        lab.load(
            "4 publishers, 1,000 events a request",
            count=lines,
            rate=0,
            publishers=4,
            batch=1_000,
            **Ringcast.ndjson,
        ),
    )
    for server, runs in batches.items():
        outcome.add(runs, ["accepted_per_second", "answer_p99_ms", "cpu_us_per_event"], label=f"{server} with NDJSON")
    outcome.check("single POSTs", outcome.median("ringcast", "accepted_per_second"), "/s", at_least=4_000)
    outcome.check(
        "NDJSON of 1,000", outcome.median("ringcast with NDJSON", "accepted_per_second"), "/s", at_least=50_000
    )
    return outcome
