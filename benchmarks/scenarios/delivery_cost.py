"""CPU per delivery when every event must go out by itself: the server's own work on top of the kernel's."""

from __future__ import annotations

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome, ratio
from benchmarks.scenarios import crowd

NAME = "delivery_cost"
TITLE = "CPU per delivery, one event at a time"
TARGET = "≤ 1.15 × floor; less than nchan in every run"


def run(lab: Lab) -> Outcome:
    outcome = Outcome(NAME, f"{TITLE}, {crowd.readers(lab):,} readers", TARGET)
    made = crowd.runs(lab)
    for runs in made.values():
        outcome.add(runs, ["cpu_us_per_delivery", "fanout_p50_ms", "latency_p99_ms"])
    ours, floor = outcome.median("ringcast", "cpu_us_per_delivery"), outcome.median("floor", "cpu_us_per_delivery")
    outcome.check("CPU per delivery against the floor", ratio(ours, floor), "×", at_most=1.15)
    if "nchan" in lab.wanted:
        pairs = zip(made.get("ringcast", []), made.get("nchan", []), strict=False)
        against = [mine["cpu_us_per_delivery"] / theirs["cpu_us_per_delivery"] for mine, theirs in pairs]
        outcome.check("CPU per delivery against nchan, worst repetition", max(against, default=None), "×", at_most=1.0)
    return outcome
