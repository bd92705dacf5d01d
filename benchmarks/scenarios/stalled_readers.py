"""Whether readers that never read slow down the others: the same run with and without two hundred of them.

Events are large and far enough apart that each goes out by itself, and long enough that the stalled readers' buffers
fill early on.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome, ratio
from benchmarks.servers import Server
from benchmarks.storm import Run

NAME = "stalled_readers"
TITLE = "Readers that never read"
TARGET = "p99 of the others within 10 % of a run without them"


def run(lab: Lab) -> Outcome:
    readers, stalled = lab.sized(5_000, 1_000), lab.sized(200, 40)
    outcome = Outcome(NAME, f"{stalled} readers that never read among {readers:,}", TARGET)
    for _ in range(lab.repetitions):
        for silent in (0, stalled):
            measured = lab.compare(("ringcast",), _crowd(lab, readers, silent), repetitions=1)
            outcome.keep(measured.get("ringcast", []))
    for silent in (0, stalled):
        runs = [run for run in outcome.runs if run["stalled"] == silent]
        if runs:
            outcome.add_figures(
                f"ringcast, {silent} stalled", runs, ["latency_p50_ms", "latency_p99_ms", "stalled_ended"]
            )
    without, beside = (outcome.median(f"ringcast, {silent} stalled", "latency_p99_ms") for silent in (0, stalled))
    outcome.check("p99 of the others against a run without", ratio(beside, without), "×", at_most=1.10)
    return outcome


def _crowd(lab: Lab, readers: int, stalled: int) -> Callable[[Server], Run]:
    seconds = lab.sized(20, 3)
    rate, size = 10, lab.sized(8_000, 16_000)
    return lab.load(
        f"{readers - stalled:,} readers and {stalled} stalled",
        readers=readers,
        stalled=stalled,
        rate=rate,
        count=rate * seconds,
        publishers=4,
        bytes=size,
    )
