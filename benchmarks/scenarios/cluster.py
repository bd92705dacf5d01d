"""Three nodes that share one Redis, each with as many connections as one process may hold: all hold, all receive.

Everything runs on the machine's cores together: three nodes, Redis and a load generator for each node. The first
generator publishes to its node; the others only read, and count what comes from there.
"""

from __future__ import annotations

import contextlib

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome
from benchmarks.servers import RedisStore, Ringcast, StartError
from benchmarks.storm import GatedStorm, Run, StormError

NAME = "cluster"
TITLE = "Nodes that share Redis"
TARGET = "3 × 19,000 connections: all hold, all receive"
NODES = 3


def run(lab: Lab) -> Outcome:
    readers = lab.sized(19_000, 1_000)
    outcome = Outcome(NAME, f"{NODES} nodes with {readers:,} connections each over one Redis", TARGET)
    for _ in range(lab.repetitions):
        try:
            outcome.keep(_measure(lab, readers))
        except (StartError, StormError) as error:
            lab.trouble.append(("ringcast", str(error)))
            return outcome
    if outcome.runs:
        outcome.add_figures("ringcast, three nodes", outcome.runs, ["readers", "delivered", "memory_end_kb"])
        held = sum(run["readers"] for run in outcome.runs) / len(outcome.runs) * NODES
        outcome.check("connections held", held, "", at_least=NODES * readers)
        got = sum(run["delivered"] for run in outcome.runs)
        due = sum(run["expected"] for run in outcome.runs)
        outcome.check("of the deliveries due", got / due if due else None, "", at_least=1.0)
    return outcome


def _measure(lab: Lab, readers: int) -> list[Run]:
    """One run: what each node's readers got."""
    count, rate = lab.sized(20, 5), 1.0
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisStore(lab.folder))
        nodes = [stack.enter_context(Ringcast(lab.folder, None, relay=redis.url)) for _ in range(NODES)]
        storms = []
        for number, node in enumerate(nodes):
            options = node.options() | {
                "pids": ",".join(map(str, node.pids())),
                "readers": readers,
                "sources": 4,
                "count": count,
                "rate": rate,
                "silent": number > 0,
                "linger_seconds": 20 + count / rate,
            }
            storm = GatedStorm(lab.programs.storm, "ringcast", f"node {number + 1} of {NODES}", options)
            stack.callback(storm.stop)
            storm.wait_open()
            storms.append(storm)
        for storm in reversed(storms):  # who publishes comes last
            storm.go()
        runs = [storm.run() for storm in storms]
    for run in runs:
        lost = f" LOST {run.losses}" if run.losses else ""
        lab.say(f"    ringcast   {run.label}: {run['readers']:,.0f} readers, {run['delivered']:,.0f} delivered{lost}")
    return runs
