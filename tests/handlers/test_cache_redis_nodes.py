"""The store in Redis: one computation for all nodes, and never an error when Redis is away."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from config.settings import Settings
from handlers import cache_redis
from handlers.cache_entry import Drop
from handlers.cache_making import make_response_cache
from handlers.cache_store import Claim, StoreAway
from server.exchange import Response
from server.relay.redis_client import Target
from tests.handlers.cache_bench import Bench, Source, header, run, together, until
from tests.handlers.cache_redis_bench import (
    LAGOS,
    PATIENT,
    ROUTE,
    Nodes,
    change,
    eventually,
    key,
    marks,
    marks_of,
    named,
    nodes,
    there,
    write,
)
from tests.harness.process import free_port
from tests.harness.redis import RedisServer

ACL = Path(__file__).parents[2] / "config" / "redis" / "ringcast.acl"


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


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that may be stopped."""
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


# --- one computation for all nodes


def test_a_crowd_on_several_nodes_costs_one_computation(redis: RedisServer) -> None:
    """F8."""

    async def main() -> None:
        async with nodes(redis, 3, lock_wait_seconds=PATIENT) as stores:
            several, source = Nodes(stores), Source()
            source.gate = asyncio.Event()
            asking = asyncio.ensure_future(several.ask(source, 50))
            await until(lambda: source.runs)
            source.gate.set()
            answers = await asking
            assert source.runs == 1
            assert marks(answers) == ["HIT"] * 100 + ["MISS"] * 50
            assert marks(await several.ask(source)) == ["HIT"] * 3

    run(main())


@pytest.mark.parametrize("outcome", ["fails", "is not kept", "is dropped"])
def test_a_node_that_keeps_no_answer_gives_the_computation_to_the_next(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    monkeypatch.setattr(cache_redis, "LOCK_SECONDS", 600.0)  # so it is not by the lock's end

    async def main() -> None:
        async with nodes(redis, 2, lock_wait_seconds=600.0) as stores:
            several, source = Nodes(stores), Source("1")
            source.gate = asyncio.Event()
            source.error = RuntimeError("a defect") if outcome == "fails" else None
            source.status = 201 if outcome == "is not kept" else 200
            endpoint = source.endpoint()
            first = asyncio.ensure_future(several.benches[0].get(endpoint))
            await until(lambda: source.runs)
            if outcome == "is dropped":
                several.benches[0].cache._flights.note(change("1"))
            second = asyncio.ensure_future(several.benches[1].get(endpoint))
            source.error = None
            source.gate.set()
            assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], Response | RuntimeError)
            assert header(await second, "X-Cache") == "MISS"
            assert source.runs == 2

    run(main())


def test_nobody_waits_long_for_a_node_that_hangs(redis: RedisServer) -> None:
    async def main() -> None:
        async with nodes(redis, 2, lock_wait_seconds=0.1) as stores:
            several, hanging, source = Nodes(stores), Source(), Source()
            hanging.gate = asyncio.Event()
            first = asyncio.ensure_future(several.benches[0].get(hanging.endpoint()))
            await until(lambda: hanging.runs)
            assert header(await several.benches[1].get(source.endpoint()), "X-Cache") == "MISS"
            assert source.runs == 1
            hanging.gate.set()
            await first

    run(main())


# --- Redis that is away


def test_a_redis_that_stands_still_costs_a_bounded_wait_and_no_error(own_redis: RedisServer) -> None:
    async def main() -> None:
        async with nodes(own_redis, answer_seconds=0.05) as [store]:
            several, source = Nodes([store]), Source("1")
            own_redis.signal(signal.SIGSTOP)
            loop = asyncio.get_running_loop()
            began = loop.time()
            answers = await several.ask(source, 20)
            assert marks(answers) == ["MISS"] * 20
            for number in range(50):  # it is left alone meanwhile
                await several.ask(source, 1, f"/things/{number}")
            assert loop.time() - began < 5
            facts: Any = several.benches[0].cache.facts()
            assert facts["failures"]["read"] >= 50
            assert several.benches[0].cache.state() == "redis does not answer"
            own_redis.signal(signal.SIGCONT)
            await eventually(lambda: marks_of(several, source), ["HIT"])
            assert several.benches[0].cache.state() == "ok"

    run(main(), 60)


def test_a_drop_that_did_not_reach_redis_is_made_good_before_anything_is_read(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_redis, "DROP_SECONDS", 0.2)

    async def main() -> None:
        async with nodes(own_redis) as [store]:
            several, source = Nodes([store]), Source("1")
            endpoint, bench = source.endpoint(), several.benches[0]
            await bench.get(endpoint)
            assert await bench.mark(endpoint) == "HIT"
            store._answer_seconds = 0.05
            own_redis.signal(signal.SIGSTOP)
            source.value = "new"
            with structlog.testing.capture_logs() as lines:
                bench.cache.drop_now(["1"])
                await until(lambda: [line for line in lines if line["event"] == "cache_drop_owed"])
                own_redis.signal(signal.SIGCONT)
                store._answer_seconds = PATIENT
                async with asyncio.timeout(20):
                    mark = None
                    while mark != "HIT":
                        answer = await bench.get(endpoint)
                        assert answer.body == b'{"value":"new"}'
                        mark = header(answer, "X-Cache")
                        await asyncio.sleep(0.02)
                await until(lambda: [line for line in lines if line["event"] == "cache_dropped_late"])

    run(main(), 60)


def test_all_drops_that_are_owed_are_made_good(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_redis, "AWAY_SECONDS", 0.1)

    async def main() -> None:
        async with nodes(redis) as [store]:
            await write(store, named("a", "1"), named("b", "2"), named("c", "3"))
            with structlog.testing.capture_logs() as lines:
                for tag in ("1", "2"):
                    store._owe(change(tag))
                await until(lambda: store.state() == "ok")
            assert [line["answers"] for line in lines] == [1, 1]
            assert await there(store, "a", "b", "c") == [False, False, True]

    run(main())


def test_a_crowd_takes_few_connections(redis: RedisServer) -> None:
    async def main() -> None:
        async with nodes(redis) as [store]:
            await together(*(store.read(key(str(number))) for number in range(300)))
            assert int(redis.facts("INFO", "clients")["connected_clients"]) <= cache_redis.MAX_ASKED + 1

    run(main())


def test_too_many_drops_that_are_owed_become_one_of_everything(redis: RedisServer) -> None:
    async def main() -> None:
        async with nodes(redis) as [store]:
            for number in range(cache_redis.MAX_OWED + 1):
                store._owe(change(str(number)))
            assert [drop.meets(named("a")) for drop in store._owed] == [True]
            with pytest.raises(StoreAway):
                await store.read(key("a"))
            with pytest.raises(StoreAway):
                await store.drop(change("1"))

    run(main())


def test_a_redis_that_was_killed_and_comes_back_empty_is_used_again(own_redis: RedisServer) -> None:
    async def main() -> None:
        async with nodes(own_redis) as [store]:
            several, source = Nodes([store]), Source("1")
            await several.ask(source)
            assert marks(await several.ask(source)) == ["HIT"]
            own_redis.kill()
            assert marks(await several.ask(source)) == ["MISS"]
            await asyncio.to_thread(own_redis.start)
            await eventually(lambda: marks_of(several, source), ["HIT"])

    run(main(), 60)


def test_a_redis_that_refuses_to_write_is_still_read(redis: RedisServer) -> None:
    async def main() -> None:
        async with nodes(redis) as [store]:
            several, source = Nodes([store]), Source("1")
            await several.ask(source)
            redis.command("CONFIG", "SET", "maxmemory", "1")
            try:
                assert marks(await several.ask(source, 1, "/things/2")) == ["MISS"]
            finally:
                redis.command("CONFIG", "SET", "maxmemory", "0")
            assert marks(await several.ask(source)) == ["HIT"]

    run(main())


def test_a_wait_that_is_cut_off_leaves_the_command_to_end_by_itself(redis: RedisServer) -> None:
    """S32: an answer must never be taken for that of another command."""

    async def main() -> None:
        async with nodes(redis) as [store]:
            names = [str(number) for number in range(20)]
            await write(store, *(named(name, body=name.encode()) for name in names))
            for delay in range(40):
                reading = asyncio.ensure_future(store.read(key("0")))
                for _ in range(delay % 8):
                    await asyncio.sleep(0)
                reading.cancel()
                name = names[delay % 20]
                found = await store.read(key(name))
                assert found is not None
                assert found.body == name.encode()

    run(main())


def test_a_cluster_is_a_redis_too(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path, cluster_enabled="yes", cluster_port=str(free_port())).start()

    async def main() -> None:
        redis.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        await until(lambda: redis.facts("CLUSTER", "INFO")["cluster_state"] == "ok")
        target = Target(f"redis+cluster://127.0.0.1:{redis.port}/0")
        async with nodes(redis, 2, target=target) as (one, other):
            await write(one, named("a", "1", area=LAGOS), named("b", "2", drop_on_change=False))
            assert await there(other, "a", "b") == [True, True]
            assert await other.drop(change("1", "2")) == {ROUTE: 1}
            assert await other.drop(Drop("where", where=lambda kept: kept.tags == ("2",))) == {ROUTE: 1}
            assert one.state() == other.state() == "ok"

    try:
        run(main())
    finally:
        redis.stop()


# --- settings and rights


def test_settings_name_the_relays_redis_or_one_of_its_own(redis: RedisServer) -> None:
    async def main() -> None:
        bench, source = Bench(), Source("1")
        for settings, expected in (
            (Settings(response_cache="redis", relay=redis.url), "MISS"),
            (Settings(response_cache="redis", response_cache_redis=redis.url), "HIT"),
            (Settings(response_cache="redis", relay=redis.url, redis_prefix="other"), "MISS"),
        ):
            bench.cache = make_response_cache(settings)
            store: Any = bench.cache._store
            store._answer_seconds = PATIENT
            assert await bench.mark(source.endpoint()) == expected
            await bench.cache.stop()
        assert int(redis.command("EXISTS", "{ringcast}:http:index", "{other}:http:index")[1:]) == 2

    run(main())


def test_the_user_of_the_nodes_may_do_all_that_the_cache_does(tmp_path: Path) -> None:
    """config/redis/ringcast.acl."""
    [line] = [line for line in ACL.read_text().splitlines() if line.startswith("user ringcast ")]
    rights = tmp_path / "users.acl"
    rights.write_text(
        "user default on nopass ~* &* +@all\n"
        + line.replace("user ringcast on", "user ringcast on >word").replace("{ringcast", "{test")
        + "\n"
    )
    redis = RedisServer(tmp_path, aclfile=str(rights)).start()

    async def main() -> None:
        async with nodes(redis, 2, target=Target(redis.url, "ringcast", "word"), max_entries=3) as (one, other):
            for number in range(5):
                claim = await one.claim(key("a"), fresh=False)
                assert isinstance(claim, Claim), number
                await one.release(key("a"), claim)
                await write(one, named(str(number), "1", area=LAGOS, drop_on_change=bool(number % 2)))
            await other.drop(change("1"))
            await other.drop(Drop("region", area=LAGOS))
            await other.drop(Drop("route", route=ROUTE))
            await other.drop(Drop("all"))
            assert one.state() == other.state() == "ok"

    try:
        run(main())
    finally:
        redis.stop()
