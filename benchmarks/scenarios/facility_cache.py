"""What the cache does for a crowd that asks for facilities, and how long a change takes to show (F11).

The crowd asks for 2,000 different things, the n-th of them n times as rarely as the first (Zipf): a fifth are
facilities, the others searches around places. A run is one time to live of a search, so what is asked twice in it
should be computed once. Every hundredth request changes a facility and asks for it: the answer has to be the new one,
and the searches stay. At the end an administrator drops all searches, again and again, with the crowd's answers in the
cache.

All of that with the answers in the process, and once more with them in Redis, where nodes share them.

The change is timed as a client sees it, with the database's transaction and two requests; of the dropping alone the
server's log says how long it took (`took_ms` of `cache_dropped`), from the order to when nothing of it is left.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from itertools import accumulate
from pathlib import Path

from benchmarks.lab import Lab
from benchmarks.outcome import Outcome, Spread
from benchmarks.servers import RedisStore, Server

NAME = "facility_cache"
TITLE = "Kept answers about facilities"
TARGET = "80 % hits under a Zipf load, a change shows within 10 ms"

DIFFERENT, FACILITIES = 2_000, 100
DROPS = 50
WARM = 1_000  # answers that are in the cache again before it is emptied again


class Crowd:
    """One connection of a client that asks for popular things often. Times are in milliseconds."""

    def __init__(self, server: Server, seed: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
        self._chance = random.Random(seed)
        paths = [self._path(number) for number in range(DIFFERENT)]
        self._paths, self._weights = paths, list(accumulate(1 / (rank + 1) for rank in range(DIFFERENT)))
        self.marks: dict[str, int] = {}
        self.wrong: list[str] = []

    def _path(self, number: int) -> str:
        if number % 5 == 0:
            return f"/api/facilities/{self._facility()}"
        lat, lon = self._chance.uniform(-1, 1), self._chance.uniform(-1, 1)
        return f"/api/facilities/search?lat={6.5 + lat:.4f}&lon={3.4 + lon:.4f}&radius=10"

    def _facility(self) -> str:
        return f"fac_{self._chance.randrange(1, FACILITIES + 1):03}"

    def _ask(self, method: str, path: str, body: object = None) -> tuple[str, dict[str, object]]:
        text = None if body is None else json.dumps(body)
        self._connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
        answer = self._connection.getresponse()
        data = json.loads(answer.read() or b"{}")
        if answer.status != 200:
            self.wrong.append(f"{method} {path}: {answer.status}")
        return answer.getheader("X-Cache", ""), data

    def ask(self, times: int = 1) -> None:
        """So many requests, counted by whether the answer was a kept one."""
        for path in self._chance.choices(self._paths, cum_weights=self._weights, k=times):
            mark, _ = self._ask("GET", path)
            self.marks[mark] = self.marks.get(mark, 0) + 1

    def change(self) -> float:
        """Change a facility and ask for it; how long both took."""
        path, minutes = f"/api/facilities/{self._facility()}", self._chance.randrange(1, 200)
        began = time.perf_counter()
        self._ask("PATCH", path, {"avg_wait_minutes": minutes})
        _, found = self._ask("GET", path)
        took = time.perf_counter() - began
        if found.get("avg_wait_minutes") != minutes:
            self.wrong.append(f"{path} is the old one")
        return took * 1e3

    def drop(self) -> float:
        """Drop all searches; how long it took."""
        self.ask(WARM)
        began = time.perf_counter()
        self._ask("DELETE", "/api/cache/searches")
        return (time.perf_counter() - began) * 1e3


class Measured:
    """What one place for kept answers does, over all repetitions: in the process, or in Redis."""

    def __init__(self) -> None:
        self.hits: list[float] = []
        self.changes: list[float] = []
        self.drops: list[float] = []
        self.invalidations: list[float] = []

    def figures(self) -> dict[str, Spread]:
        """As the results keep them."""
        found = {
            "hits_percent": self.hits,
            "change_ms": self.changes,
            "invalidation_ms": self.invalidations,
            "drop_searches_ms": self.drops,
        }
        return {name: Spread.of(values) for name, values in found.items()}


def run(lab: Lab) -> Outcome:
    requests = lab.sized(20_000, 2_000)
    outcome = Outcome(NAME, f"{requests:,} requests, {DIFFERENT:,} different ones", TARGET)
    here, shared = Measured(), Measured()
    for seed in range(lab.repetitions):
        _crowd(lab, outcome, here, seed, requests)
    with RedisStore(lab.folder, lab.cores[1]) as redis:
        other = lab.repetitions  # another crowd: the database has all changes of the ones before
        _crowd(lab, outcome, shared, other, requests, relay=redis.url, response_cache="redis")
    outcome.figures["ringcast"] = here.figures() | {
        f"redis_{name}": spread for name, spread in shared.figures().items()
    }
    for measured, where in ((here, ""), (shared, " (answers in Redis)")):
        outcome.check(f"hits{where}", min(measured.hits), "%", at_least=80)
        outcome.check(f"change and look{where}, p99", _p99(measured.changes), "ms", at_most=10)
        outcome.check(f"invalidation of one facility alone{where}, p99", _p99(measured.invalidations), "ms", at_most=10)
        outcome.check(f"all searches dropped{where}, p99", _p99(measured.drops), "ms", at_most=10)
    return outcome


def _crowd(lab: Lab, outcome: Outcome, measured: Measured, seed: int, requests: int, **more: object) -> None:
    settings = {"apps": "facilities", "simulate": False, "log_level": "info"}
    with lab.server("ringcast", database=f"sqlite:{lab.folder}/facilities.db", **settings, **more) as server:
        crowd = Crowd(server, seed)
        measured.changes += list(_changes(crowd, requests))
        measured.hits.append(100 * crowd.marks.get("HIT", 0) / sum(crowd.marks.values()))
        measured.drops += [crowd.drop() for _ in range(lab.sized(DROPS, 5))]
        outcome.failures += crowd.wrong[:3]
        measured.invalidations += list(_invalidations(server.log_path))
    where = "in Redis" if more else "in the process"
    lab.say(f"    ringcast   {requests:,} requests, answers {where}: {measured.hits[-1]:.1f} % hits")


def _changes(crowd: Crowd, requests: int) -> Iterator[float]:
    for _ in range(requests // 100):
        crowd.ask(99)
        yield crowd.change()


def _invalidations(log: Path) -> Iterator[float]:
    """How long the server says that each drop for a change took which dropped something."""
    for line in log.read_text().splitlines():
        facts = json.loads(line) if line.startswith("{") else {}
        if facts.get("event") == "cache_dropped" and facts["reason"] == "change":
            yield facts["took_ms"]


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]
