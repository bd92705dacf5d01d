"""The runs that three targets share: open many readers, let them rest, then publish one event at a time until all
have it.
"""

from __future__ import annotations

from benchmarks.lab import EVERYBODY, Lab
from benchmarks.servers import Server
from benchmarks.storm import Run

PYTHON_PEERS = ("tornado", "starlette")


def readers(lab: Lab) -> int:
    """How many readers the crowd has."""
    return lab.sized(10_000, 2_000)


def runs(lab: Lab) -> dict[str, list[Run]]:
    """Made once in a benchmark, for every server."""
    return lab.once("crowd", lambda: lab.compare(EVERYBODY, lambda server: _one(lab, server)))


def _one(lab: Lab, server: Server) -> Run:
    # A Python peer takes a second for one event to 10,000 readers; a few events say as much about it as many.
    count = lab.sized(8, 2) if server.name in PYTHON_PEERS else lab.sized(30, 10)
    return lab.storm(
        server,
        f"{readers(lab):,} readers, one event at a time",
        readers=readers(lab),
        count=count,
        one_at_a_time=True,
        settle_seconds=lab.sized(2.0, 0.5),
        gap_seconds=lab.sized(0.05, 0.02),
    )
