"""Trials: two ways of keeping the answers of a route, side by side on live traffic.

Owns the two strategies and which question belongs to which: half of the keys each, by their hash, so the same question
is always answered by the same one, on every node. Must never know what comes of them (handlers/cache_counts.py). Pure.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Strategy:
    """How answers are kept. `keep_factor`: so many times as long as the endpoint declares; `stale_seconds`: for so long
    after that they are still given while they are made anew; `drop`: a change drops them wherever the endpoint would
    let them live out their time."""

    name: str = ""
    keep_factor: float = 1.0
    stale_seconds: float = 0.0
    drop: bool = False

    def facts(self) -> dict[str, object]:
        """For /stats."""
        facts = asdict(self)
        del facts["name"]
        return facts


AS_DECLARED = Strategy()


@dataclass(frozen=True, slots=True)
class Trial:
    """Strategy A, which is what endpoints declare, against `b`, on some routes."""

    routes: Set[str] = frozenset()
    a: Strategy = Strategy("A")
    b: Strategy = Strategy("B")

    def strategy(self, route: str, key: str) -> Strategy:
        """How the answer under a key is kept."""
        if route not in self.routes:
            return AS_DECLARED
        return self.b if int(key[-1], 16) % 2 else self.a

    def facts(self) -> dict[str, object]:
        """For /stats."""
        return {"routes": sorted(self.routes), "A": self.a.facts(), "B": self.b.facts()}
