"""CPU per new streaming connection: without a token, and with a token that the server has seen before."""

from __future__ import annotations

import time

import jwt

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome
from benchmarks.scenarios import crowd

NAME = "opening_cost"
TITLE = "CPU per new streaming connection"
TARGET = "≤ 50 µs anonymous; ≤ 80 µs with a JWT seen before"

SECRET = "a secret of the benchmark, long enough"
BY_TOKEN = ("ringcast", "tornado", "starlette")  # nchan and the floor know no tokens


def run(lab: Lab) -> Outcome:
    count = crowd.readers(lab)
    outcome = Outcome(NAME, f"{TITLE}, {count:,} connections", TARGET)
    for runs in crowd.runs(lab).values():
        outcome.add(runs, ["open_cpu_us", "open_p99_ms", "listen_drops"])
    claims = {"sub": "bench", "exp": int(time.time()) + 3600, "mercure": {"subscribe": ["*"], "publish": ["*"]}}
    header = f"Authorization: Bearer {jwt.encode(claims, SECRET, 'HS256')}"
    measured = lab.compare(
        lab.sized(BY_TOKEN, ("ringcast",)),
        lab.load(f"{count:,} openings with a JWT", readers=count, count=0, header=header),
        jwt_secret=SECRET,
    )
    for server, runs in measured.items():
        outcome.add(runs, ["open_cpu_us", "open_p99_ms"], label=f"{server} with JWT")
    outcome.check("anonymous", outcome.median("ringcast", "open_cpu_us"), "µs", at_most=50)
    outcome.check("JWT seen before", outcome.median("ringcast with JWT", "open_cpu_us"), "µs", at_most=80)
    return outcome
