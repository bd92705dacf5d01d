"""The response cache: comparing two strategies, figures, and settings."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric

from config.settings import Settings
from handlers.cache_making import make_response_cache
from handlers.cache_trial import Strategy, Trial
from handlers.endpoints import Endpoint
from handlers.response_cache import ResponseCache
from server.rights import Principal
from tests.handlers.cache_bench import Bench, Source, header, run, until, value

SHOP = Principal("shop")

# --- trials


def halves(bench: Bench, endpoint: Endpoint) -> Any:
    """Paths of which one half is answered by strategy A and the other by B."""

    async def ask() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {"A": [], "B": []}
        for number in range(40):
            path = f"/search?q={number}"
            found[header(await bench.get(endpoint, path), "X-Cache-Strategy") or ""].append(path)
        return found

    return ask()


def test_two_ways_of_keeping_answers_are_compared_on_live_traffic() -> None:
    """F9: hit rate and staleness of each."""

    async def main() -> None:
        bench = Bench(trial=Trial(frozenset(["/search"]), b=Strategy("B", keep_factor=3.0)))
        source = Source("facility:1")
        search = source.endpoint("/search", drop_on_change=False)
        paths = await halves(bench, search)
        assert min(len(paths["A"]), len(paths["B"])) >= 10
        assert await halves(bench, search) == paths  # a question is always answered by the same
        bench.cache.drop_now(["facility:1"])
        bench.clock.now += 150
        assert {await bench.mark(search, path) for path in paths["A"]} == {"MISS"}
        assert {await bench.mark(search, path) for path in paths["B"]} == {"HIT"}
        figures = bench.figures("/search")
        assert (figures["A"]["hit_rate"], figures["B"]["hit_rate"]) == (0.3333, 0.6667)
        assert (figures["A"]["changed_seconds_max"], figures["B"]["changed_seconds_max"]) == (0.0, 150.0)
        assert figures["B"]["changed_hits"] == len(paths["B"])
        facts: Any = bench.cache.facts()
        assert facts["trial"]["B"] == {"keep_factor": 3.0, "stale_seconds": 0.0, "drop": False}
        assert header(await bench.get(source.endpoint()), "X-Cache-Strategy") is None

    run(main())


def test_an_answer_that_is_over_is_given_while_it_is_made_anew() -> None:
    """F9: the strategy `stale-while-revalidate`."""

    async def main() -> None:
        strategy = Strategy("B", stale_seconds=50.0)
        bench, source = Bench(trial=Trial(frozenset(["/search"]), strategy, strategy)), Source()
        search = source.endpoint("/search")
        await bench.get(search, "/search")
        source.value = "new"
        source.gate = asyncio.Event()
        bench.clock.now += 120
        for _ in range(3):
            stale = await bench.get(search, "/search")
            assert (value(stale), header(stale, "X-Cache"), header(stale, "Age")) == (0, "STALE", "120")
        await until(lambda: source.runs == 2)
        source.gate.set()
        await until(lambda: not bench.cache._flights._running)
        after = await bench.get(search, "/search")
        assert (value(after), header(after, "X-Cache"), header(after, "Age")) == ("new", "HIT", "0")
        assert source.runs == 2
        assert bench.figures("/search")["B"]["stale"] == 3
        bench.clock.now += 151
        assert await bench.mark(search, "/search") == "MISS"

    run(main())


def test_a_strategy_may_drop_what_another_lets_live() -> None:
    async def main() -> None:
        bench = Bench(trial=Trial(frozenset(["/search"]), b=Strategy("B", drop=True)))
        search = Source("facility:1").endpoint("/search", drop_on_change=False)
        paths = await halves(bench, search)
        assert bench.cache.drop_now(["facility:1"]) == len(paths["B"])
        assert {await bench.mark(search, path) for path in paths["A"]} == {"HIT"}
        assert {await bench.mark(search, path) for path in paths["B"]} == {"MISS"}

    run(main())


# --- figures


def scraped(cache: ResponseCache) -> list[str]:
    class Families:
        def collect(self) -> list[Metric]:
            return list(cache.metrics())

    registry = CollectorRegistry()
    registry.register(Families())
    return generate_latest(registry).decode().split("\n")


def test_a_scrape_tells_of_each_route_by_its_template() -> None:
    """F9: hits, misses, invalidations, size."""

    async def main() -> None:
        bench, source = Bench(), Source("facility:1")
        endpoint = source.endpoint()
        for path in ("/things/1", "/things/1", "/things/2", "/things/2?cache=skip"):
            await bench.get(endpoint, path)
        await bench.get(endpoint, principal=SHOP)
        size = bench.store.sizes()["/things/{id}"]
        lines = scraped(bench.cache)
        of = 'route="/things/{id}"'
        for outcome, number in {"hit": 1, "miss": 2, "skip": 1, "bypass": 1, "stale": 0}.items():
            name = f'ringcast_response_cache_requests_total{{outcome="{outcome}",{of},strategy=""}}'
            assert f"{name} {number}.0" in lines
        assert f'ringcast_response_cache_computations_total{{{of},strategy=""}} 3.0' in lines
        assert f"ringcast_response_cache_entries{{{of}}} 2.0" in lines
        assert f"ringcast_response_cache_bytes{{{of}}} {float(size.bytes)}" in lines
        bench.cache.drop_now(["facility:1"])
        assert f'ringcast_response_cache_dropped_total{{reason="change",{of}}} 2.0' in scraped(bench.cache)
        figures = bench.figures()
        assert (figures["hits"], figures["misses"], figures["hit_rate"]) == (1, 2, 0.3333)
        assert (figures["skips"], figures["bypasses"], figures["entries"]) == (1, 1, 0)
        json.dumps(bench.cache.facts())

    run(main())


# --- settings


def test_a_cache_that_is_off_computes_every_answer() -> None:
    async def main() -> None:
        bench, source = Bench(), Source("a")
        bench.cache = make_response_cache(Settings(response_cache="off"))
        for _ in range(2):
            assert await bench.mark(source.endpoint()) == "MISS"
        assert (bench.cache.drop_now("a"), await bench.cache.drop_tags("a"), bench.cache.state()) == (0, 0, "ok")
        assert bench.cache.facts() == {"routes": {}}
        await bench.cache.stop()

    run(main())


def test_settings_make_the_store_and_the_trial() -> None:
    async def main() -> None:
        bench, source = Bench(), Source()
        bench.cache = make_response_cache(
            Settings(
                response_cache_bytes=1 << 20,
                response_cache_entries=1,
                response_cache_trial_routes=["/search"],
                response_cache_trial_keep_factor=2,
                response_cache_trial_stale_seconds=5,
                response_cache_trial_drop=True,
            )
        )
        for path, expected in (
            ("/things/1", "MISS"),
            ("/things/2", "MISS"),
            ("/things/2", "HIT"),
            ("/things/1", "MISS"),
        ):
            assert await bench.mark(source.endpoint(), path) == expected
        facts: Any = bench.cache.facts()
        assert facts["trial"]["routes"] == ["/search"]
        assert facts["trial"]["B"] == {"keep_factor": 2.0, "stale_seconds": 5.0, "drop": True}
        await bench.cache.stop()

    run(main())
