"""The store in Redis: one for all nodes, and never older than a change that was told of."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from handlers import cache_redis
from handlers.cache_entry import Drop
from handlers.cache_key import PREFIX
from handlers.cache_store import Claim, Size, StoreAway
from handlers.response_cache import ResponseCache
from tests.handlers.cache_bench import run, until
from tests.handlers.cache_redis_bench import LAGOS, ROUTE, change, eventually, key, named, nodes, there, write
from tests.harness.redis import RedisServer


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def redis(shared_redis: RedisServer) -> RedisServer:
    """One that is empty."""
    assert shared_redis.command("FLUSHALL") == b"+OK"
    return shared_redis


# --- answers


def test_what_one_node_keeps_another_one_has(redis: RedisServer) -> None:
    """F6: in Redis."""

    async def main() -> None:
        async with nodes(redis, 2) as (one, other):
            body = bytes(range(256))
            await write(
                one, named("a", "1", "2", body=body, area=LAGOS, headers=(("Link", "</é>"),), drop_on_change=False)
            )
            found = await other.read(key("a"))
            assert found is not None
            assert (found.body, found.content_type, found.headers) == (body, "application/json", (("Link", "</é>"),))
            assert (found.route, found.area, found.drop_on_change, found.changed) == (ROUTE, LAGOS, False, None)
            assert 0 <= other._clock() - found.made < 10
            assert await other.read(key("b")) is None
            assert redis.command("EXISTS", "{test}:" + key("a")) == b":1"

    run(main())


def test_an_answer_is_over_in_its_time_and_leaves_nothing(redis: RedisServer) -> None:
    async def main() -> None:
        async with nodes(redis) as [store]:
            await write(store, named("a", "1", kept_seconds=2.0))
            assert await there(store, "a") == [True]
            await eventually(lambda: there(store, "a"), [False])
            await write(store, named("b"))
            assert store.sizes() == {ROUTE: Size(1, named("b").cost)}
            assert redis.command("ZCARD", "{test}:http:index") == b":1"
            await until(lambda: redis.command("EXISTS", "{test}:http:tag:1", "{test}:" + key("a")) == b":0")

    run(main())


def test_the_set_of_a_tag_does_not_grow_with_what_is_over(redis: RedisServer) -> None:
    async def main() -> None:
        async with nodes(redis) as [store]:
            await write(store, named("long", "t"), *(named(str(number), "t", kept_seconds=0.05) for number in range(5)))
            await eventually(lambda: there(store, "4"), [False])
            await write(store, named("new", "t"))
            for name in ("tag:t", f"route:{ROUTE}", "index"):
                assert redis.command("ZCARD", "{test}:http:" + name) == b":2"

    run(main())


def test_sizes_are_bounded_and_what_is_over_first_makes_room(redis: RedisServer) -> None:
    async def main() -> None:
        cost = named("0").cost
        async with nodes(redis, max_entries=3) as [store]:
            await write(store, named("0", kept_seconds=50.0), named("1", kept_seconds=20.0), named("2"), named("3"))
            assert await there(store, "0", "1", "2", "3") == [True, False, True, True]
            assert store.sizes() == {ROUTE: Size(3, 3 * cost)}
        async with nodes(redis, max_bytes=10 * cost) as [store]:
            await write(store, *(named(f"n{number}") for number in range(20)))
            assert store.sizes() == {ROUTE: Size(10, 10 * cost)}
            assert not await store.write(named("large", body=b"x" * 3 * cost), Claim())
            assert await there(store, "large", "n19") == [False, True]

    run(main())


def test_what_another_version_has_written_is_not_there(redis: RedisServer) -> None:
    async def main() -> None:
        async with nodes(redis) as [store]:
            await write(store, named("a", "1"), named("b", "1"))
            for about in ("{}", "[1]", "no"):
                redis.command("HSET", "{test}:" + key("a"), "about", about)
                assert await there(store, "a") == [False]
                claim = await store.claim(key("a"), fresh=False)
                assert isinstance(claim, Claim)
            assert await store.drop(Drop("where", where=lambda _: False)) == {ROUTE: 1}  # nobody can say

    run(main())


def test_keys_that_somebody_has_deleted_are_no_reason_to_keep_nothing_more(redis: RedisServer) -> None:
    async def main() -> None:
        async with nodes(redis, max_entries=2) as [store]:
            await write(store, named("a"), named("b"))
            redis.command("DEL", "{test}:http:index")
            await store.write(named("c"), Claim())
            await write(store, named("d"))
            assert await there(store, "d") == [True]

    run(main())


def test_a_member_from_before_takes_nothing_away(redis: RedisServer) -> None:
    """An answer that was over may be there again before it was taken off the books."""

    async def main() -> None:
        async with nodes(redis) as [store]:
            await write(store, named("a"))
            member = f"{key('a').removeprefix(PREFIX)} 10 before {ROUTE}"
            redis.command("ZADD", "{test}:http:index", "1", member)
            await write(store, named("b"))
            assert await there(store, "a", "b") == [True, True]
            assert redis.command("ZCARD", "{test}:http:index") == b":2"

    run(main())


# --- drops


def test_a_tag_drops_what_carries_it_whichever_node_wrote_it(redis: RedisServer) -> None:
    """F7."""

    async def main() -> None:
        async with nodes(redis, 2) as (one, other):
            await write(one, named("a", "1"), named("ab", "1", "2"), named("b", "2"), named("s", "1", route="/search"))
            assert await other.drop(change("1")) == {ROUTE: 2, "/search": 1}
            assert await there(one, "a", "ab", "b", "s") == [False, False, True, False]
            assert other.sizes() == {ROUTE: Size(1, named("b", "2").cost), "/search": Size(0, 0)}
            assert await one.drop(change("1", "2", "3")) == {ROUTE: 1}

    run(main())


def test_what_lives_out_its_time_remembers_in_redis_when_it_changed(redis: RedisServer) -> None:
    async def main() -> None:
        async with nodes(redis, 2) as (one, other):
            await write(one, named("s", "1", drop_on_change=False))
            assert await other.drop(change("1")) == {}
            await asyncio.sleep(0.05)
            assert await other.drop(change("1")) == {}
            found = await one.read(key("s"))
            assert found is not None
            assert found.changed is not None
            assert one._clock() - found.changed >= 0.04
            assert await other.drop(Drop("order", frozenset(["1"]))) == {ROUTE: 1}

    run(main())


def test_an_answer_that_took_anothers_place_has_its_own_tags_alone(redis: RedisServer) -> None:
    async def main() -> None:
        async with nodes(redis) as [store]:
            await write(store, named("a", "1"), named("a", "2"))
            assert await store.drop(change("1")) == {}
            assert store.sizes()[ROUTE].entries == 1
            assert await store.drop(change("2")) == {ROUTE: 1}

    run(main())


def test_other_drops_find_all_that_they_mean_page_by_page(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """F7: manual invalidation of searches or of a region."""
    monkeypatch.setattr(cache_redis, "PAGE_ENTRIES", 3)

    async def main() -> None:
        async with nodes(redis) as [store]:
            for number in range(30):
                route = "/search" if number % 2 else ROUTE
                await write(store, named(str(number), "t", route=route, area=(0.0, number % 5 * 10.0, 1.0)))
            assert await store.drop(Drop("region", area=(0.0, 20.0, 5.0), route="/search")) == {"/search": 3}
            assert await store.drop(Drop("region", area=(0.0, 20.0, 5.0))) == {ROUTE: 3}
            assert await store.drop(Drop("where", where=lambda kept: kept.area == (0.0, 10.0, 1.0))) == {
                "/search": 3, ROUTE: 3,
            }  # fmt: skip
            assert await store.drop(Drop("route", route="/search")) == {"/search": 9}
            assert await store.drop(change("t")) == {ROUTE: 9}
            assert redis.command("ZCARD", "{test}:http:index") == b":0"

    run(main())


def test_pages_get_past_answers_that_are_over_in_one_millisecond(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_redis, "PAGE_ENTRIES", 2)

    async def main() -> None:
        async with nodes(redis) as [store]:
            for number in range(10):
                await write(store, named(str(number), "t", drop_on_change=number == 9))
            for name in ("tag:t", "index"):
                members = await store._client.zrange("{test}:http:" + name, 0, -1)
                await store._client.zadd("{test}:http:" + name, dict.fromkeys(members, 4e12))
            assert await store.drop(change("t")) == {ROUTE: 1}
            assert await store.drop(Drop("where", where=lambda _: True)) == {ROUTE: 9}

    run(main())


@pytest.mark.parametrize(
    "drop",
    [
        change("1"),
        Drop("order", frozenset(["1"])),
        Drop("route", route=ROUTE),
        Drop("region", area=LAGOS),
        Drop("where", where=lambda _: True),
        Drop("all"),
    ],
)
def test_what_was_dropped_by_another_node_while_it_was_computed_is_not_kept(redis: RedisServer, drop: Drop) -> None:
    """F7: the race, over two nodes."""

    async def main() -> None:
        async with nodes(redis, 2) as (one, other):
            claim = await one.claim(key("a"), fresh=False)
            unspoilt = await one.claim(key("b"), fresh=False)
            assert isinstance(claim, Claim)
            assert isinstance(unspoilt, Claim)
            await other.drop(drop)
            assert not await one.write(named("a", "1", area=LAGOS), claim)
            if drop.tags is not None and drop.change:
                assert await one.write(named("b", "2"), unspoilt)
            again = await one.claim(key("a"), fresh=False)
            assert isinstance(again, Claim)
            assert again.token  # the lock was given back
            assert await one.write(named("a", "1", area=LAGOS), again)

    run(main())


def test_a_search_in_which_something_changed_while_another_node_computed_it_is_known_for_stale(
    redis: RedisServer,
) -> None:
    async def main() -> None:
        async with nodes(redis, 2) as (one, other):
            claim = await one.claim(key("s"), fresh=False)
            assert isinstance(claim, Claim)
            await other.drop(change("1"))
            assert await one.write(named("s", "1", drop_on_change=False), claim)
            found = await other.read(key("s"))
            assert found is not None
            assert found.changed is not None

    run(main())


def test_a_read_waits_for_the_changes_that_this_node_was_told_of(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F7: a page that hears of a change and asks at once."""

    async def main() -> None:
        async with nodes(redis, 2) as (store, other):
            way, drop = asyncio.Event(), store._drop

            async def slow(what: Drop) -> Counter[str]:
                await way.wait()
                return await drop(what)

            monkeypatch.setattr(store, "_drop", slow)
            await write(store, named("a", "1"))
            assert ResponseCache(store).drop_now(["1"]) == 0
            await asyncio.sleep(0)
            reading = asyncio.ensure_future(store.read(key("a")))
            assert await there(other, "a") == [True]  # which was not told
            assert not reading.done()
            way.set()
            assert await reading is None

    run(main())


def test_a_read_does_not_wait_long_for_a_change(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with nodes(redis) as [store]:
            way = asyncio.Event()

            async def slow(_: Drop) -> Counter[str]:
                await way.wait()
                return Counter()

            monkeypatch.setattr(store, "_drop", slow)
            await write(store, named("a", "1"))
            dropping = asyncio.ensure_future(store.drop(change("1")))
            await asyncio.sleep(0)
            store._answer_seconds = 0.02
            with pytest.raises(StoreAway):
                await store.read(key("a"))
            way.set()
            await dropping

    run(main())
