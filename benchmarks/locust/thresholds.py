"""Limits that a load test must keep, and the exit code that says whether it did.

Judged once, when Locust quits: by the process itself, or by the master over the sums of all workers. Works from
Locust's statistics alone.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from locust import events
from locust.env import Environment
from locust.runners import WorkerRunner
from locust.stats import RequestStats


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run amounted to."""

    readers: int
    events: int
    replayed: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    reconnects: int
    gaps: int
    losses: int
    errors: int
    published: int

    @staticmethod
    def of(stats: RequestStats) -> Figures:
        """Read Locust's statistics."""
        event, publish = stats.get("event", "SSE"), stats.get("publish", "POST")
        streams = [stats.get(name, "SSE") for name in ("open", "reconnect")]
        p50, p95, p99 = (float(event.get_response_time_percentile(share) or 0) for share in (0.5, 0.95, 0.99))
        return Figures(
            readers=streams[0].num_requests - streams[0].num_failures,
            events=event.num_requests,
            replayed=stats.get("replayed", "SSE").num_requests,
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            reconnects=streams[1].num_requests - streams[1].num_failures,
            gaps=stats.get("gap", "SSE").num_requests,
            losses=stats.get("loss", "SSE").num_failures,
            errors=sum(entry.num_failures for entry in (*streams, publish)),
            published=publish.num_requests - publish.num_failures,
        )

    def broken(self, limits: argparse.Namespace) -> list[str]:
        """The limits that were not kept, in words."""
        table = [
            (
                self.p95_ms > limits.max_p95_ms,
                f"p95 of the latency is {self.p95_ms:.0f} ms, more than {limits.max_p95_ms:.0f} ms",
            ),
            (self.losses > limits.max_losses, f"{self.losses} events were lost, more than {limits.max_losses}"),
            (self.gaps > limits.max_gaps, f"{self.gaps} gaps were declared, more than {limits.max_gaps}"),
            (self.errors > limits.max_errors, f"{self.errors} errors, more than {limits.max_errors}"),
            (self.events < limits.min_events, f"{self.events} events arrived, fewer than {limits.min_events}"),
        ]
        return [text for wrong, text in table if wrong]

    def text(self) -> str:
        """One line for people."""
        return (
            f"{self.readers} readers, {self.published} published, "
            f"{self.events} received live and {self.replayed} replayed, "
            f"latency p50 {self.p50_ms:.0f} p95 {self.p95_ms:.0f} p99 {self.p99_ms:.0f} ms, "
            f"{self.reconnects} reconnects, {self.gaps} gaps, {self.losses} losses, {self.errors} errors"
        )


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """Print the figures and set the exit code."""
    if isinstance(environment.runner, WorkerRunner) or environment.parsed_options is None:
        return
    figures = Figures.of(environment.stats)
    broken = figures.broken(environment.parsed_options)
    print(f"\n{figures.text()}", flush=True)
    for text in broken:
        print(f"FAILED: {text}", flush=True)
    environment.process_exit_code = 1 if broken else 0
