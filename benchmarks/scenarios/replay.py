"""Everybody comes back at once with a cursor a thousand events old, while publishing goes on.

A hundred readers are there all the time; publishing begins, a second later the others return. What is accounted for
is every one of the old events and every one of the new, at each reader, in order.
"""

from __future__ import annotations

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome
from benchmarks.servers import Server
from benchmarks.storm import Run

NAME = "replay"
TITLE = "Replay"
TARGET = "all caught up in < 5 s; publishes go on meanwhile"


def run(lab: Lab) -> Outcome:
    clients, events = lab.sized(5_000, 500), 1_000
    outcome = Outcome(NAME, f"{TITLE}: {clients:,} clients return at once, {events:,} events each", TARGET)
    measured = lab.compare(
        lab.sized(("ringcast", "nchan"), ("ringcast",)), lambda server: _one(lab, server, clients, events)
    )
    for runs in measured.values():
        outcome.add(runs, ["caught_up_seconds", "answer_p50_ms", "answer_p99_ms", "latency_p99_ms", "cpu_seconds"])
    outcome.check("all caught up", outcome.median("ringcast", "caught_up_seconds"), "s", at_most=5.0)
    outcome.check(
        "a publish is answered meanwhile, p99", outcome.median("ringcast", "answer_p99_ms"), "ms", at_most=100.0
    )
    return outcome


def _one(lab: Lab, server: Server, clients: int, events: int) -> Run:
    witnesses, rate = 100, 20
    # nchan tells the id of an event only in its JSON answer.
    how = (
        {"publish_header": "Accept: text/json", "cursor_after": '"last_message_id": "'}
        if server.name == "nchan"
        else {}
    )
    return lab.storm(
        server,
        f"{clients:,} return to {events:,} events",
        readers=witnesses + clients,
        witnesses=witnesses,
        replay=events,
        rate=rate,
        count=rate * lab.sized(10, 2),
        publishers=4,
        **how,
    )
