"""Resident memory of the server's process that each idle connection adds, with the default settings."""

from __future__ import annotations

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome
from benchmarks.scenarios import crowd

NAME = "idle_memory"
TITLE = "Memory per idle connection"
TARGET = "≤ 0.6 KB"


def run(lab: Lab) -> Outcome:
    outcome = Outcome(NAME, f"{TITLE}, {crowd.readers(lab):,} connections", TARGET)
    for runs in crowd.runs(lab).values():
        outcome.add(runs, ["memory_per_reader_kb", "memory_before_kb", "memory_idle_kb", "memory_end_kb"])
    outcome.check("memory per connection", outcome.median("ringcast", "memory_per_reader_kb"), "KB", at_most=0.6)
    return outcome
