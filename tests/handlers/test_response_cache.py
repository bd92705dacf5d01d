"""The response cache: who is given which answer, until when, and what ends it. In one process, on a clock at rest."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import structlog

from handlers.answers import Refused
from handlers.cache_entry import Drop
from handlers.endpoints import Endpoint, not_found
from handlers.response_cache import MAX_TAGS
from server.rights import DEVELOPMENT, Principal
from tests.handlers.cache_bench import Bench, Source, header, run, together, until, value

SHOP = Principal("shop")
LAGOS = (6.5244, 3.3792, 10.0)
IBADAN = (7.3775, 3.9470, 10.0)


def test_an_answer_is_kept_for_its_time() -> None:
    """F6: a TTL per route, `X-Cache` and `Age`."""

    async def main() -> None:
        bench, source = Bench(), Source()
        short, long = source.endpoint(), source.endpoint("/others/{id}", keep_seconds=1000.0)
        first = await bench.get(short)
        assert (header(first, "X-Cache"), header(first, "Age"), value(first)) == ("MISS", None, 0)
        await bench.get(long, "/others/1")
        source.value = 1
        bench.clock.now += 42.9
        second = await bench.get(short)
        assert (header(second, "X-Cache"), header(second, "Age"), value(second)) == ("HIT", "42", 0)
        assert second.body == first.body
        bench.clock.now += 57.1
        assert value(await bench.get(short)) == 1
        assert await bench.mark(long, "/others/1") == "HIT"
        assert source.runs == 3

    run(main())


def test_a_hit_has_the_headers_of_the_answer_that_was_kept() -> None:
    async def main() -> None:
        bench, source = Bench(), Source()
        source.headers = [("Link", "</next>")]
        first, second = [await bench.get(source.endpoint()) for _ in range(2)]
        for response in (first, second):
            assert header(response, "Link") == "</next>"
            assert header(response, "Cache-Control") == "no-store"
            assert (response.status, response.content_type) == (200, "application/json")
        second.headers.append(("Spoilt", "yes"))
        assert header(await bench.get(source.endpoint()), "Spoilt") is None

    run(main())


def test_answers_of_one_moment_are_not_over_in_one_moment() -> None:
    """F8: TTLs are jittered."""

    async def main() -> None:
        left = iter([0.0, 0.5, 1.0])
        bench, source = Bench(jitter=0.1, chance=lambda: next(left)), Source()
        endpoint = source.endpoint()
        paths = [f"/things/{number}" for number in range(3)]
        for path in paths:
            await bench.get(endpoint, path)
        hits = []
        for moment in (89.9, 90.1, 99.9, 100.1, 109.9):
            bench.clock.now = 1000 + moment
            kept = [await bench.store.read(key) for key in list(bench.store._entries)]
            hits.append(sum(one is not None for one in kept))
        assert hits == [3, 2, 2, 1, 1]

    run(main())


@pytest.mark.parametrize(("status", "kept"), [(200, True), (201, False), (202, False), (203, False)])
def test_only_answers_with_200_are_kept(status: int, kept: bool) -> None:
    """F6."""

    async def main() -> None:
        bench, source = Bench(), Source()
        source.status = status
        await bench.get(source.endpoint())
        assert await bench.mark(source.endpoint()) == ("HIT" if kept else "MISS")

    run(main())


def test_a_refusal_is_not_kept() -> None:
    async def main() -> None:
        bench, source = Bench(), Source()
        source.error = not_found("id", "there is none")
        for _ in range(2):
            with pytest.raises(Refused):
                await bench.get(source.endpoint())
        source.error = None
        assert (await bench.mark(source.endpoint()), source.runs) == ("MISS", 3)

    run(main())


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_an_endpoint_that_would_keep_other_answers_than_those_to_get_cannot_be_declared(method: str) -> None:
    """F6: GET only."""
    with pytest.raises(ValueError, match="only answers to GET"):
        Endpoint(method, "/things", Source().run, "No.", keep_seconds=1.0)


def test_an_answer_for_all_that_sets_a_cookie_is_an_error() -> None:
    async def main() -> None:
        bench, source = Bench(), Source()
        source.headers = [("set-cookie", "session=1")]
        with pytest.raises(ValueError, match="cookie"):
            await bench.get(source.endpoint())
        assert bench.store.sizes() == {}

    run(main())


# --- who may be given it


@pytest.mark.parametrize(
    "asking",
    [{"principal": SHOP}, {"cookie": "a=b"}, {"authorization": "Basic x"}, {"principal": DEVELOPMENT, "cookie": "a=b"}],
)
def test_an_answer_to_a_request_with_a_token_or_a_cookie_is_never_shared(asking: dict[str, Any]) -> None:
    """Authorised responses are never shared: neither given to others, nor are others' given to it."""

    async def main() -> None:
        bench, source = Bench(), Source()
        endpoint = source.endpoint()
        for expected in ("BYPASS", "BYPASS"):
            assert header(await bench.get(endpoint, **asking), "X-Cache") == expected
        assert await bench.mark(endpoint) == "MISS"
        assert await bench.mark(endpoint) == "HIT"
        source.value = "own"
        own = await bench.get(endpoint, **asking)
        assert (value(own), header(own, "X-Cache"), header(own, "Age")) == ("own", "BYPASS", None)
        assert value(await bench.get(endpoint)) == 0

    run(main())


def test_requests_with_tokens_do_not_wait_for_one_another() -> None:
    async def main() -> None:
        bench, source = Bench(), Source()
        source.gate = asyncio.Event()
        asking = [asyncio.ensure_future(bench.get(source.endpoint(), principal=SHOP)) for _ in range(3)]
        await until(lambda: source.runs == 3)
        source.gate.set()
        await together(*asking)

    run(main())


def test_an_answer_that_depends_on_nobody_is_for_everybody() -> None:
    async def main() -> None:
        bench, source = Bench(), Source()
        endpoint = source.endpoint(shared=True)
        assert header(await bench.get(endpoint, principal=SHOP), "X-Cache") == "MISS"
        assert await bench.mark(endpoint, cookie="a=b") == "HIT"
        assert header(await bench.get(endpoint, principal=DEVELOPMENT), "X-Cache") == "HIT"
        assert await bench.mark(endpoint) == "HIT"

    run(main())


def test_who_may_do_everything_on_this_machine_shares_with_nobody_else() -> None:
    async def main() -> None:
        bench, source = Bench(), Source()
        endpoint = source.endpoint()
        for expected in ("MISS", "HIT"):
            assert header(await bench.get(endpoint, principal=DEVELOPMENT), "X-Cache") == expected
        assert await bench.mark(endpoint) == "MISS"

    run(main())


def test_who_may_not_is_refused_before_the_cache_is_looked_at() -> None:
    async def main() -> None:
        def nobody(_: object) -> None:
            raise not_found("", "not for you")

        bench, source = Bench(), Source()
        with pytest.raises(Refused):
            await bench.get(source.endpoint(access=nobody, shared=True))
        assert source.runs == 0

    run(main())


# --- fresh answers


@pytest.mark.parametrize("query", ["cache=skip", "bypass_cache=true", "q=&cache=skip&x=y"])
def test_who_skips_the_cache_gets_a_new_answer_and_leaves_it_for_the_others(query: str) -> None:
    """P5: the cache is not read, but it is written."""

    async def main() -> None:
        bench, source = Bench(), Source()
        endpoint = source.endpoint()
        await bench.get(endpoint)
        source.value = "new"
        fresh = await bench.get(endpoint, f"/things/1?{query}")
        assert (value(fresh), header(fresh, "X-Cache"), header(fresh, "Age")) == ("new", "SKIP", None)
        after = await bench.get(endpoint)
        assert (value(after), header(after, "X-Cache")) == ("new", "HIT")
        assert bench.figures()["skips"] == 1

    run(main())


# --- one computation


def test_a_crowd_that_asks_the_same_costs_one_computation() -> None:
    """F8."""

    async def main() -> None:
        bench, source = Bench(), Source()
        source.gate = asyncio.Event()
        paths = ["/things/1?lat=6.5&q=x", "/things/1?q=x&lat=6.50", "/things/1?lat=6.5&q=x&utm=1"] * 100
        asking = [asyncio.ensure_future(bench.get(source.endpoint(), path)) for path in paths]
        await until(lambda: source.runs)
        source.gate.set()
        answers = await together(*asking)
        assert source.runs == 1
        assert {header(answer, "X-Cache") for answer in answers} == {"MISS"}
        assert {answer.body for answer in answers} == {b'{"value":0}'}
        figures = bench.figures()
        assert (figures["misses"], figures["computations"], figures["coalesced"]) == (300, 1, 299)

    run(main())


def test_the_answer_is_kept_when_all_who_asked_for_it_have_gone() -> None:
    """F8: a computation is shielded from its client."""

    async def main() -> None:
        bench, source = Bench(), Source()
        source.gate = asyncio.Event()
        asking = asyncio.ensure_future(bench.get(source.endpoint()))
        await until(lambda: source.runs)
        asking.cancel()
        source.gate.set()
        await until(lambda: bench.store.sizes())
        assert await bench.mark(source.endpoint()) == "HIT"
        assert source.runs == 1

    run(main())


# --- drops


def test_a_change_drops_the_facilitys_own_answers_at_once() -> None:
    """F7: also those under hashed keys."""

    async def main() -> None:
        bench, one, other = Bench(), Source("facility:1"), Source("facility:2")
        await bench.get(one.endpoint(), "/things/1")
        await bench.get(one.endpoint(), "/things/1?lat=5")
        await bench.get(other.endpoint(), "/things/2")
        with structlog.testing.capture_logs() as lines:
            assert bench.cache.drop_now(["facility:1"]) == 2
        assert [(line["event"], line["reason"], line["answers"], line["tags"]) for line in lines] == [
            ("cache_dropped", "change", 2, ["facility:1"])
        ]
        assert await bench.mark(one.endpoint(), "/things/1?lat=5") == "MISS"
        assert await bench.mark(other.endpoint(), "/things/2") == "HIT"
        assert await bench.cache.drop_tags(["facility:2", "facility:1"]) == 2
        assert bench.figures()["dropped"] == {"change": 4}

    run(main())


def test_searches_live_out_their_time() -> None:
    """F7."""

    async def main() -> None:
        bench, source = Bench(), Source("facility:1", "facility:2")
        search = source.endpoint("/search", drop_on_change=False)
        await bench.get(search, "/search")
        assert bench.cache.drop_now(["facility:1"]) == 0
        bench.clock.now += 30
        assert await bench.mark(search, "/search") == "HIT"
        bench.clock.now += 40
        assert await bench.mark(search, "/search") == "HIT"
        figures = bench.figures("/search")
        assert (figures["changed_hits"], figures["changed_seconds_mean"], figures["changed_seconds_max"]) == (2, 50, 70)
        bench.clock.now += 30
        assert await bench.mark(search, "/search") == "MISS"
        assert await bench.mark(search, "/search") == "HIT"
        assert bench.figures("/search")["changed_hits"] == 2  # the new one has not changed

    run(main())


def test_an_operator_ends_all_searches_or_those_of_a_region() -> None:
    """F7: manual invalidation of searches or of a region, each logged."""

    async def main() -> None:
        bench = Bench()
        near, far, plain = Source(area=LAGOS), Source(area=IBADAN), Source()
        searches = {"/search?q=near": near, "/search?q=far": far, "/search?q=none": plain}

        async def marks() -> list[str]:
            return [
                await bench.mark(source.endpoint("/search", drop_on_change=False), path)
                for path, source in searches.items()
            ]

        assert await marks() == ["MISS"] * 3
        detail = near.endpoint()
        await bench.get(detail)
        with structlog.testing.capture_logs() as lines:
            assert await bench.cache.drop_region((6.6, 3.4, 5.0), "/search") == 1
            assert await marks() == ["MISS", "HIT", "HIT"]
            assert await bench.mark(detail) == "HIT"
            assert await bench.cache.drop_region((6.6, 3.4, 5.0)) == 2
            assert await bench.cache.drop_route("/search") == 2
        assert await marks() == ["MISS"] * 3
        assert await bench.cache.drop_where(lambda kept: kept.body != b"" and kept.area == IBADAN) == 1
        assert [(line["event"], line["reason"], line["answers"]) for line in lines] == [
            ("cache_dropped", "region", 1), ("cache_dropped", "region", 2), ("cache_dropped", "route", 2),
        ]  # fmt: skip
        assert bench.figures("/search")["dropped"] == {"region": 2, "route": 2, "where": 1}

    run(main())


def test_a_drop_that_another_node_has_told_of_is_done_here_too() -> None:
    """Every node has a store of its own: each must drop."""

    async def main() -> None:
        bench, source = Bench(), Source("facility:1", area=LAGOS)
        for drop in (Drop("change", frozenset(["facility:1"]), change=True), Drop("region", area=LAGOS)):
            await bench.get(source.endpoint())
            bench.cache.begin_drop(Drop.of_facts(json.loads(json.dumps(drop.facts()))))
            await until(lambda: not bench.store.sizes())

    run(main())


@pytest.mark.parametrize("kind", ["now", "tags", "route", "region", "where"])
def test_an_answer_that_was_being_computed_while_it_was_dropped_is_not_kept(kind: str) -> None:
    """F7: the race of a change with a computation that has read what was there before."""

    async def main() -> None:
        bench, source = Bench(), Source("facility:1", area=LAGOS)
        endpoint = source.endpoint()
        source.gate = asyncio.Event()
        asking = asyncio.ensure_future(bench.get(endpoint))
        await until(lambda: source.runs)
        source.value = "new"
        cache = bench.cache
        if kind == "now":
            cache.drop_now(["facility:1"])
        elif kind == "tags":
            await cache.drop_tags(["facility:1"])
        elif kind == "route":
            await cache.drop_route("/things/{id}")
        elif kind == "region":
            await cache.drop_region(LAGOS)
        else:
            await cache.drop_where(lambda kept: kept.area == LAGOS)
        late = asyncio.ensure_future(bench.get(endpoint))
        await asyncio.sleep(0)
        source.gate.set()
        assert value(await asking) == 0  # it asked before
        assert value(await late) == "new"
        assert value(await bench.get(endpoint)) == "new"
        assert bench.figures()["unkept"] == 1

    run(main())


def test_a_drop_of_other_tags_does_not_spoil_a_computation() -> None:
    async def main() -> None:
        bench, source = Bench(), Source("facility:1")
        source.gate = asyncio.Event()
        asking = asyncio.ensure_future(bench.get(source.endpoint()))
        await until(lambda: source.runs)
        bench.cache.drop_now(["facility:2"])
        source.gate.set()
        await asking
        assert await bench.mark(source.endpoint()) == "HIT"

    run(main())


def test_a_search_that_was_being_computed_when_something_in_it_changed_is_known_for_stale() -> None:
    async def main() -> None:
        bench, source = Bench(), Source("facility:1")
        search = source.endpoint("/search", drop_on_change=False)
        source.gate = asyncio.Event()
        asking = asyncio.ensure_future(bench.get(search, "/search"))
        await until(lambda: source.runs)
        bench.cache.drop_now(["facility:1"])
        source.gate.set()
        await asking
        bench.clock.now += 5
        assert await bench.mark(search, "/search") == "HIT"
        assert bench.figures("/search")["changed_seconds_max"] == 5

    run(main())


def test_an_answer_with_too_many_tags_is_not_kept() -> None:
    async def main() -> None:
        for number, expected in ((MAX_TAGS, "HIT"), (MAX_TAGS + 1, "MISS")):
            bench, source = Bench(), Source(*map(str, range(number)))
            await bench.get(source.endpoint())
            assert await bench.mark(source.endpoint()) == expected

    run(main())
