"""Deliveries a second from one process as the publishing rate grows, with publishers that wait for their answers.

The floor and the peers write once for each event and reader; what they are offered is near and beyond their limit,
and what they deliver within the time is their figure. The rates for the server are a little above the targets' round
numbers, so that what arrives, start-up and tail included, is above them too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome
from benchmarks.servers import Ringcast, Server
from benchmarks.storm import Run

NAME = "throughput"
TITLE = "Deliveries a second, one process"
TARGET = "all delivered; ≥ 5 M/s with p99 < 350 ms; then 10 M/s"


@dataclass(frozen=True)
class Step:
    """A rate that is offered, and who gets it."""

    rate: int
    publishers: int
    servers: tuple[str, ...]
    batch: int = 1


LADDER = (
    Step(2, 2, ("tornado", "starlette")),
    Step(20, 8, ("ringcast", "floor", "nchan", "tornado", "starlette")),
    Step(50, 8, ("ringcast", "floor", "nchan")),
    Step(200, 32, ("ringcast",)),
    Step(1_050, 64, ("ringcast",)),
    Step(2_100, 8, ("ringcast",), batch=20),
)
QUICK = (Step(1_050, 64, ("ringcast",)),)


def run(lab: Lab) -> Outcome:
    readers, seconds = lab.sized(5_000, 1_000), lab.sized(10, 2)
    outcome = Outcome(NAME, f"{TITLE}, {readers:,} readers", TARGET)
    for step in lab.sized(LADDER, QUICK):
        measured = lab.compare(step.servers, _climb(lab, step, readers, seconds))
        for server, runs in measured.items():
            outcome.add(
                runs,
                [
                    "delivered_per_second",
                    "latency_p50_ms",
                    "latency_p99_ms",
                    "cpu_us_per_delivery",
                    "cpu_percent",
                    "load_cpu_percent",
                    "missed",
                ],
                label=f"{server} at {step.rate}/s",
            )
    _judge(outcome, "5 M/s" if not lab.quick else "1 M/s", 1_050, 1_000 * readers, 350)
    if not lab.quick:
        _judge(outcome, "10 M/s", 2_100, 2_000 * readers, None)
    return outcome


def _climb(lab: Lab, step: Step, readers: int, seconds: int) -> Callable[[Server], Run]:
    how = dict(Ringcast.ndjson) if step.batch > 1 else {}
    return lab.load(
        f"{step.rate:,} events/s to {readers:,} readers",
        readers=readers,
        rate=step.rate,
        count=step.rate * seconds,
        publishers=step.publishers,
        batch=step.batch,
        publish_seconds=seconds,
        linger_seconds=seconds,
        **how,
    )


def _judge(outcome: Outcome, what: str, rate: int, at_least: float, p99_ms: float | None) -> None:
    label = f"ringcast at {rate}/s"
    rates, wanted = outcome.median(label, "delivered_per_second"), at_least / 1e6
    outcome.check(f"{what}: delivered a second", None if rates is None else rates / 1e6, "M/s", at_least=wanted)
    if p99_ms is not None:
        outcome.check(
            f"{what}: p99 from publish to receipt", outcome.median(label, "latency_p99_ms"), "ms", at_most=p99_ms
        )
