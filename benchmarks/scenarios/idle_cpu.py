"""What a full house costs that has nothing to hear but heartbeats.

The quick form keeps the number of heartbeats a second: a fifteenth of the connections, fifteen times as often.
"""

from __future__ import annotations

from benchmarks.lab import EVERYBODY, Lab
from benchmarks.outcome import Outcome

NAME = "idle_cpu"
TITLE = "Idle CPU"
TARGET = "≤ 1 % of a core at 19,500 connections with 30 s heartbeats"


def run(lab: Lab) -> Outcome:
    readers, heartbeat, hold = lab.sized(19_500, 1_300), lab.sized(30, 2), lab.sized(60, 3)
    outcome = Outcome(NAME, f"{TITLE}, {readers:,} connections, {heartbeat} s heartbeats", TARGET)
    measured = lab.compare(
        lab.sized(EVERYBODY, ("ringcast", "floor")),
        lab.load(
            f"{readers:,} idle readers for {hold} s",
            readers=readers,
            count=0,
            hold_seconds=hold,
            settle_seconds=0.5,
        ),
        repetitions=min(2, lab.repetitions),
        heartbeat_seconds=heartbeat,
    )
    for runs in measured.values():
        outcome.add(runs, ["idle_cpu_percent", "memory_idle_kb", "bytes"])
    outcome.check("CPU of one core", outcome.median("ringcast", "idle_cpu_percent"), "%", at_most=1.0)
    return outcome
