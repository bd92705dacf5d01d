"""Whether readers that never read slow down the others: the same run with and without two hundred of them.

They are stalled before the measured run begins: a generator of its own opens them and events fill their buffers. While
they fill, the kernel squeezes each event into a full receive buffer within the sender's `send`, 100 microseconds each;
over a network that is the other machine's work.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome, ratio
from benchmarks.servers import Server
from benchmarks.storm import GatedStorm, Run

NAME = "stalled_readers"
TITLE = "Readers that never read"
TARGET = "p99 of the others within 10 % of a run without them"

EVENT_BYTES = 8_000
FILLING_EVENTS = 60  # of that size: more than a stalled reader's send buffer and receive buffer hold


def run(lab: Lab) -> Outcome:
    readers, stalled = lab.sized(4_800, 960), lab.sized(200, 40)
    outcome = Outcome(NAME, f"{stalled} readers that never read beside {readers:,}", TARGET)
    for _ in range(lab.repetitions):
        for silent in (0, stalled):
            measured = lab.compare(("ringcast",), _crowd(lab, readers, silent), repetitions=1)
            outcome.keep(measured.get("ringcast", []))
    for silent in (0, stalled):
        runs = [run for run in outcome.runs if run.label.endswith(f" {silent} stalled")]
        if runs:
            outcome.add_figures(f"ringcast, {silent} stalled", runs, ["latency_p50_ms", "latency_p99_ms"])
    without, beside = (outcome.median(f"ringcast, {silent} stalled", "latency_p99_ms") for silent in (0, stalled))
    outcome.check("p99 of the others against a run without", ratio(beside, without), "×", at_most=1.10)
    return outcome


def _crowd(lab: Lab, readers: int, stalled: int) -> Callable[[Server], Run]:
    seconds, rate = lab.sized(20, 3), 10
    measure = lab.load(
        f"{readers:,} readers and {stalled} stalled",
        readers=readers,
        rate=rate,
        count=rate * seconds,
        publishers=4,
        bytes=EVENT_BYTES,
    )

    def beside(server: Server) -> Run:
        with _stalled(lab, server, stalled, seconds) if stalled else contextlib.nullcontext():
            return measure(server)

    return beside


@contextlib.contextmanager
def _stalled(lab: Lab, server: Server, count: int, seconds: int) -> Iterator[None]:
    """Readers that take nothing any more."""
    options = server.options() | {"readers": count, "stalled": count, "count": 0, "hold_seconds": seconds + 60}
    holder = GatedStorm(lab.programs.storm, server.name, f"{count} stalled", options)
    try:
        holder.wait_open()
        holder.go()
        lab.storm(server, f"filling {count}", readers=1, rate=100, count=FILLING_EVENTS, bytes=EVENT_BYTES)
        yield
    finally:
        holder.stop()
