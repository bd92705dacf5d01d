"""Whether a delivery costs the same to a thousand readers and to as many as one process holds."""

from __future__ import annotations

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome, ratio

NAME = "scaling"
TITLE = "Cost per delivery from 1,000 to 19,500 readers"
TARGET = "flat within 15 %"

SIZES = (1_000, 2_500, 5_000, 10_000, 19_500)
DELIVERIES = 200_000


def run(lab: Lab) -> Outcome:
    sizes = lab.sized(SIZES, (500, 4_000))
    outcome = Outcome(NAME, f"Cost per delivery from {sizes[0]:,} to {sizes[-1]:,} readers", TARGET)
    for size in sizes:
        count = lab.sized(DELIVERIES, 20_000) // size
        measured = lab.compare(
            lab.sized(("ringcast", "floor", "nchan"), ("ringcast", "floor")),
            lab.load(f"{size:,} readers, one event at a time", readers=size, count=count, one_at_a_time=True),
        )
        for server, runs in measured.items():
            outcome.add(runs, ["cpu_us_per_delivery"], label=f"{server} at {size}")
    for server in ("floor", "nchan"):
        if spread := _spread(outcome, server, sizes):
            outcome.notes.append(f"{server}: highest by lowest {spread:.2f}")
    outcome.check("highest cost by lowest", _spread(outcome, "ringcast", sizes), "×", at_most=1.15)
    return outcome


def _spread(outcome: Outcome, server: str, sizes: tuple[int, ...]) -> float | None:
    costs = [cost for size in sizes if (cost := outcome.median(f"{server} at {size}", "cpu_us_per_delivery"))]
    return ratio(max(costs), min(costs)) if costs else None
