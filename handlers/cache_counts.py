"""What the response cache has done, by route and strategy: as facts for /stats and as Prometheus families.

Owns the counters. Must never know how answers are kept. Labels are the templates of routes, the names of strategies and
reasons of drops, all of them few; never a key, a tag or an address. Cost: an addition or two per request.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from handlers.cache_store import Size

_NAME = "ringcast_response_cache"


@dataclass(slots=True)
class Counts:
    """Of one route and strategy. `stale` are hits of answers that were over their time and are being made anew.
    `changed_…` are hits of answers in which something had changed: how many, and for how long by then."""

    hits: int = 0
    stale: int = 0
    misses: int = 0
    skips: int = 0
    bypasses: int = 0
    computations: int = 0
    coalesced: int = 0
    unkept: int = 0
    changed_hits: int = 0
    changed_seconds: float = 0.0
    changed_seconds_max: float = 0.0

    def changed(self, seconds: float) -> None:
        """An answer was given in which something had changed so long ago."""
        self.changed_hits += 1
        self.changed_seconds += seconds
        self.changed_seconds_max = max(self.changed_seconds_max, seconds)

    def facts(self) -> dict[str, object]:
        """For /stats."""
        asked = self.hits + self.misses
        return {
            "hits": self.hits,
            "misses": self.misses,
            "hit_rate": round(self.hits / asked, 4) if asked else None,
            "stale": self.stale,
            "skips": self.skips,
            "bypasses": self.bypasses,
            "computations": self.computations,
            "coalesced": self.coalesced,
            "unkept": self.unkept,
            "changed_hits": self.changed_hits,
            "changed_seconds_mean": round(self.changed_seconds / self.changed_hits, 3) if self.changed_hits else 0.0,
            "changed_seconds_max": round(self.changed_seconds_max, 3),
        }


class Tally:
    """All of a cache's counters."""

    def __init__(self) -> None:
        self.of: defaultdict[tuple[str, str], Counts] = defaultdict(Counts)
        self.dropped: Counter[tuple[str, str]] = Counter()
        self.failures: Counter[str] = Counter()

    def note_drop(self, reason: str, dropped: Mapping[str, int]) -> int:
        """Answers of these routes were dropped; how many in all."""
        for route, number in dropped.items():
            self.dropped[route, reason] += number
        return sum(dropped.values())

    def facts(self, sizes: Mapping[str, Size]) -> dict[str, object]:
        """For /stats."""
        routes: dict[str, dict[str, object]] = {}
        for (route, strategy), counts in sorted(self.of.items()):
            told = routes.setdefault(route, self._about(route, sizes))
            if strategy:
                told[strategy] = counts.facts()
            else:
                told.update(counts.facts())
        return {"routes": routes, "failures": dict(self.failures)}

    def _about(self, route: str, sizes: Mapping[str, Size]) -> dict[str, object]:
        size = sizes.get(route, Size(0, 0))
        dropped = {reason: number for (of, reason), number in self.dropped.items() if of == route}
        return {"entries": size.entries, "bytes": size.bytes, "dropped": dropped}

    def metrics(self, sizes: Mapping[str, Size]) -> Iterator[Metric]:
        """For a scrape."""
        yield self._requests()
        yield self._each("computations", "Answers computed, by route and strategy.", "computations")
        yield self._each("coalesced", "Requests that were given another one's computation.", "coalesced")
        yield self._each("unkept", "Answers computed that were not kept: dropped meanwhile, or too large.", "unkept")
        yield self._each("changed_hits", "Kept answers given in which something had changed.", "changed_hits")
        yield self._each("changed_seconds", "For how long it had, summed over them.", "changed_seconds")
        yield self._each("changed_seconds_max", "For how long it had at most.", "changed_seconds_max", gauge=True)
        yield self._dropped()
        yield from self._sizes(sizes)
        failures = CounterMetricFamily(
            f"{_NAME}_failures", "Times that the store did not answer, by operation.", labels=["operation"]
        )
        for operation, number in self.failures.items():
            failures.add_metric([operation], number)
        yield failures

    def _requests(self) -> Metric:
        family = CounterMetricFamily(
            f"{_NAME}_requests", "Requests, by what the cache did.", labels=["route", "strategy", "outcome"]
        )
        for (route, strategy), counts in self.of.items():
            for outcome, number in (
                ("hit", counts.hits - counts.stale),
                ("stale", counts.stale),
                ("miss", counts.misses),
                ("skip", counts.skips),
                ("bypass", counts.bypasses),
            ):
                family.add_metric([route, strategy, outcome], number)
        return family

    def _each(self, name: str, text: str, field: str, *, gauge: bool = False) -> Metric:
        kind = GaugeMetricFamily if gauge else CounterMetricFamily
        family = kind(f"{_NAME}_{name}", text, labels=["route", "strategy"])
        for labels, counts in self.of.items():
            family.add_metric(labels, getattr(counts, field))
        return family

    def _dropped(self) -> Metric:
        family = CounterMetricFamily(f"{_NAME}_dropped", "Answers dropped, by reason.", labels=["route", "reason"])
        for labels, number in self.dropped.items():
            family.add_metric(labels, number)
        return family

    @staticmethod
    def _sizes(sizes: Mapping[str, Size]) -> Iterator[Metric]:
        entries = GaugeMetricFamily(f"{_NAME}_entries", "Answers kept.", labels=["route"])
        size = GaugeMetricFamily(f"{_NAME}_bytes", "Bytes that they take.", labels=["route"])
        for route, held in sizes.items():
            entries.add_metric([route], held.entries)
            size.add_metric([route], held.bytes)
        yield from (entries, size)
