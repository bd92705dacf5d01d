"""Ten thousand readers with ten thousand different filters: what an event costs by how many filters it matches.

Reader n wants its own topic and the topic of its group; an event goes to one group, so it matches filters / groups
readers. The same number of matches among a hundred filters is the measure: finding them must not cost more among ten
thousand. Events come ten a request, so that taking them in does not drown the difference, and never two of a group in
one request, so that no write can join them in one case and not in the other.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome, ratio
from benchmarks.servers import Ringcast, Server
from benchmarks.storm import Run

NAME = "distinct_filters"
TITLE = "Distinct filters at 1,000 events/s"
TARGET = "cost grows with matches, not with filters"

FEW, COMPARED = 100, 10
METRICS = ("cpu_us_per_event", "cpu_us_per_delivery", "latency_p99_ms", "cpu_percent")


def run(lab: Lab) -> Outcome:
    many = lab.sized(10_000, 1_000)
    outcome = Outcome(NAME, f"{many:,} distinct filters at 1,000 events/s", TARGET)
    for filters, matches in ((FEW, COMPARED), (many, 1), (many, COMPARED), (many, 100)):
        measured = lab.compare(("ringcast",), _readers(lab, filters, matches))
        for runs in measured.values():
            outcome.add(runs, METRICS, label=f"{filters} filters, {matches} matched")
    few = outcome.median(f"{FEW} filters, {COMPARED} matched", "cpu_us_per_event")
    all_of_them = outcome.median(f"{many} filters, {COMPARED} matched", "cpu_us_per_event")
    outcome.check(
        f"CPU per event with {COMPARED} matches, {many:,} filters against {FEW}",
        ratio(all_of_them, few),
        "×",
        at_most=1.25,
    )
    return outcome


def _readers(lab: Lab, filters: int, matches: int) -> Callable[[Server], Run]:
    seconds = lab.sized(10, 2)
    path = "/.well-known/mercure?topic=items/{f}&topic=groups/{g}"
    return lab.load(
        f"{filters:,} filters, {matches} matched",
        readers=filters,
        filters=filters,
        groups=filters // matches,
        path=path,
        rate=1_000,
        count=1_000 * seconds,
        publishers=4,
        batch=COMPARED,
        **Ringcast.ndjson | {"prefix": '{"topic":"groups/{g}","data":"'},
    )
