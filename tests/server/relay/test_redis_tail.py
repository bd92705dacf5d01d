"""The tail against a real Redis: what it waits for has limits, a connection that is up proves nothing, and how far it
is behind is said.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

import server.supervision
from server.relay import redis_tail
from server.relay.redis import RedisRelay
from server.relay.redis_client import BLOCK_LIMIT_SECONDS, Target
from server.relay.redis_tail import DEAF_SECONDS, Tail
from tests.harness.proxy import Proxy
from tests.harness.redis import RedisServer
from tests.server.relay.bench import run
from tests.server.relay.test_redis import Seat, until, with_seats


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
def proxy(redis: RedisServer) -> Iterator[Proxy]:
    one = Proxy(redis.port).start()
    yield one
    one.heal()
    one.stop()


@contextlib.asynccontextmanager
async def seat_with_a_tail_through(proxy: Proxy, redis: RedisServer) -> AsyncIterator[Seat]:
    """A relay whose tail reaches Redis through the proxy, and all else of it without."""
    with structlog.testing.capture_logs():
        seat = Seat(redis)
        seat.relay._target = Target(f"redis://127.0.0.1:{proxy.port}/0")
        await seat.start()
        try:
            yield seat
        finally:
            await seat.relay.close()


def lag_of(seat: Seat) -> float:
    lag = seat.relay.state()["lag_seconds"]
    assert isinstance(lag, float)
    return lag


def reads(redis: RedisServer) -> int:
    """How many times Redis has been asked for what comes next."""
    return int(redis.facts("INFO", "commandstats")["cmdstat_xread"].partition(",")[0].removeprefix("calls="))


def test_a_blocking_read_is_shorter_than_the_sockets_time_limit(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing wakes the reads, neither an event nor a mark: each ends by its own limit, and the connection lives on."""

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        monkeypatch.setattr(redis_tail, "DEAF_SECONDS", 60)
        monkeypatch.setattr(Tail, "prove_all", staticmethod(put_no_mark))
        connections, began = node.relay.state()["tail_connections"], asyncio.get_running_loop().time()
        calls = reads(redis)
        await until(lambda: reads(redis) >= calls + 4)
        assert asyncio.get_running_loop().time() - began > BLOCK_LIMIT_SECONDS
        assert node.relay.state()["tail_connections"] == connections

    with_seats(redis, 1, check)


async def put_no_mark(client: object, tails: object) -> None:
    """In the place of `prove_all`."""


def test_a_tail_that_is_up_and_deaf_is_noticed_while_all_else_works(redis: RedisServer, proxy: Proxy) -> None:
    """Its bytes vanish and nothing ends: it is known by what does not come out of it, and by nothing else."""

    async def main() -> None:
        async with seat_with_a_tail_through(proxy, redis) as seat:
            await seat.publish("a")
            proxy.hold()
            await until(lambda: not seat.relay.state()["ok"], DEAF_SECONDS + 2)
            assert seat.relay.state()["reason"] == "what is published does not come back"
            await seat.publish("b")  # Redis takes it
            assert seat.delivered.data == ["a"]
            proxy.heal()
            await until(lambda: seat.relay.state()["ok"])
            await until(lambda: seat.delivered.data == ["a", "b"])
            assert seat.turns == []

    run(main())


def test_a_tail_that_is_answered_by_another_redis_is_given_up(redis: RedisServer, proxy: Proxy, tmp_path: Path) -> None:
    """A demoted master goes on answering who is connected to it: with nothing, for ever. Nothing ends that connection
    but the marks that do not come out of it."""
    other = RedisServer(tmp_path).start()

    async def main() -> None:
        async with seat_with_a_tail_through(proxy, redis) as seat:
            await seat.publish("a")
            proxy.lead_to(other.port)
            await until(lambda: "cmdstat_xread" in other.facts("INFO", "commandstats"))
            await seat.publish("b")
            await until(lambda: not seat.relay.state()["ok"], DEAF_SECONDS + 2)
            proxy.target = redis.port  # for the next connection; the one that is there stays
            await until(lambda: seat.relay.state()["ok"])
            await until(lambda: seat.delivered.data == ["a", "b"])
            assert seat.turns == []

    try:
        run(main())
    finally:
        other.stop()


def test_the_lag_grows_as_long_as_a_mark_does_not_come_back(redis: RedisServer, proxy: Proxy) -> None:
    async def main() -> None:
        async with seat_with_a_tail_through(proxy, redis) as seat:
            await until(lambda: 0 < lag_of(seat) < 0.5)
            proxy.hold(forward=False)
            await until(lambda: lag_of(seat) > DEAF_SECONDS + 1)  # longer than any connection is waited for
            proxy.heal()
            await until(lambda: lag_of(seat) < 0.5)

    run(main())


def test_a_mark_that_overtook_entries_does_not_say_that_the_tail_is_there(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read brings a bounded number of entries, and the mark at once: the lag counts until the last entry is there."""
    handed_on: list[tuple[float, int]] = []

    async def check(nodes: list[Seat]) -> None:
        publisher, reader = nodes
        took = reader.relay.took

        def slowly(log: Any, entries: Any) -> None:
            took(log, entries)
            end = asyncio.get_running_loop().time() + 0.1
            while asyncio.get_running_loop().time() < end:
                pass  # a node that has much to do for each read
            handed_on.append((lag_of(reader), len(reader.delivered.entries)))

        monkeypatch.setattr(reader.relay, "took", slowly)
        await publisher.publish(*map(str, range(500 * 16)))
        await until(lambda: len(reader.delivered.entries) == 500 * 16)
        await until(lambda: lag_of(reader) < 0.5)
        assert max(lag for lag, _ in handed_on) > 0.3

    with_seats(redis, 2, check)


def test_a_node_that_is_far_behind_is_not_ready_though_marks_come(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it has caught up: each read brings a mark, and leaves entries behind."""
    said: set[object] = set()

    async def check(nodes: list[Seat]) -> None:
        publisher, reader = nodes
        took = reader.relay.took

        def slowly(log: Any, entries: Any) -> None:
            took(log, entries)
            end = asyncio.get_running_loop().time() + 0.1
            while asyncio.get_running_loop().time() < end:
                pass
            if reader.relay._well:  # by its marks
                said.add(reader.relay.state().get("reason"))

        monkeypatch.setattr(reader.relay, "took", slowly)
        await publisher.publish(*map(str, range(500 * 16)))
        await until(lambda: len(reader.delivered.entries) == 500 * 16)
        assert "this node is more than 0.3 s behind the log" in said
        await until(lambda: reader.relay.state()["ok"])

    with_seats(redis, 2, check, lag_seconds=0.3)


def deaths(task: str) -> int:
    return server.supervision.died.get(task, 0)


@pytest.mark.parametrize("place", ["_read", "_hear"])
def test_a_tail_that_dies_is_not_well_from_that_moment_until_it_follows_again(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """However often, and though a mark came a moment ago. What is published meanwhile comes when it is back."""
    sound = getattr(Tail, place)
    well: list[object] = []

    async def check(nodes: list[Seat]) -> None:
        publisher, reader = nodes
        relay = reader.relay
        broke = relay.broke

        def poisoned(tail: Tail, *arguments: Any) -> Any:
            if tail in relay._tails:
                raise ZeroDivisionError("planted")
            return sound(tail, *arguments)

        def told(tail: Tail) -> None:
            broke(tail)
            well.append(relay.state()["ok"])

        await publisher.publish("a")
        await until(lambda: reader.delivered.data == ["a"] and relay.state()["ok"])
        before = deaths("relay_tail")
        monkeypatch.setattr(relay, "broke", told)
        monkeypatch.setattr(Tail, place, poisoned)
        await until(lambda: deaths("relay_tail") >= before + 2)
        assert set(well) == {False}
        assert relay.state()["reason"] == "what is published does not come back"
        await publisher.publish("b")
        assert reader.delivered.data == ["a"]
        monkeypatch.setattr(Tail, place, sound)
        await until(lambda: relay.state()["ok"])
        await publisher.publish("c")
        await until(lambda: reader.delivered.data == ["a", "b", "c"])
        assert reader.turns == []

    with_seats(redis, 2, check)


def test_a_tick_that_dies_is_told_of_until_one_comes_to_its_end(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the tail is well: a new connection of its own proves it each time."""
    sound = RedisRelay._tick

    async def poisoned(relay: RedisRelay) -> None:
        raise ZeroDivisionError("planted")

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        before = deaths("relay_tick")
        monkeypatch.setattr(RedisRelay, "_tick", poisoned)
        await until(lambda: deaths("relay_tick") > before)
        assert node.relay._well
        assert (node.relay.state()["ok"], node.relay.state()["reason"]) == (False, "the relay failed")
        monkeypatch.setattr(RedisRelay, "_tick", sound)
        await until(lambda: node.relay.state()["ok"])

    with_seats(redis, 1, check)
