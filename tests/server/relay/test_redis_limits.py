"""A Redis at its limits, or that others have their hands in: what it can't do is said, and what it lost is declared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
)

from server.relay.protocol import RelayUnavailable, Retention
from server.relay.redis_client import ERRORS, reason_of
from tests.harness.redis import RedisServer
from tests.server.relay.bench import event, run
from tests.server.relay.test_redis import Seat, until, with_seats


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, maxmemory_policy="noeviction").start()
    yield server
    server.stop()


def test_a_redis_that_is_full_says_so_and_goes_on_when_events_have_aged(redis: RedisServer) -> None:
    async def check(_: list[Seat]) -> None:
        seat = Seat(redis)
        await seat.relay.start(seat.delivered, lambda *turn: seat.turns.append(turn))
        await seat.relay.open("aged", Retention(0, 0, 2.0), 0)
        used = int(redis.facts("INFO", "memory")["used_memory"])
        redis.command("CONFIG", "SET", "maxmemory", str(used + (4 << 20)))
        seat.state = await seat.relay.open("aged", Retention(0, 0, 2.0), 0)
        reason = ""
        for _ in range(400):
            try:
                await _publish(seat, "x" * 100_000)
            except RelayUnavailable as error:
                reason = error.reason
                break
        assert reason == "redis is out of memory"
        await until(lambda: not seat.relay.state()["ok"])
        await until(lambda: seat.relay.state()["ok"], 20)
        await _publish(seat, "again")
        assert not seat.turns
        await seat.relay.close()

    with_seats(redis, 0, check)


async def _publish(seat: Seat, text: str) -> None:
    await seat.relay.append("aged", [event(text)], None)


@pytest.mark.parametrize(
    ("command", "left"), [(("XTRIM", "{test:main}:events", "MAXLEN", "2"), 2), (("DEL", "{test:main}:events"), 0)]
)
def test_what_others_have_dropped_is_below_the_floor(redis: RedisServer, command: tuple[str, ...], left: int) -> None:
    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        await node.publish(*map(str, range(10)))
        positions = [entry.position for entry in node.delivered.entries]
        redis.command(*command)
        found = await node.relay.read("main", positions[0], 100)
        assert [entry.position for entry in found] == positions[10 - left :]
        assert node.relay.floor("main") == positions[9 - left]

    with_seats(redis, 1, check)


def test_a_node_whose_tail_is_cut_off_again_and_again_is_not_well(redis: RedisServer) -> None:
    """Each connection is up, and dies with the first answer that is too large for Redis to hold."""

    async def check(nodes: list[Seat]) -> None:
        publisher, reader = nodes
        redis.command("CONFIG", "SET", "client-output-buffer-limit", "normal 100kb 0 0")
        await publisher.publish("x" * 500_000)
        await until(lambda: not reader.relay.state()["ok"])
        redis.command("CONFIG", "SET", "client-output-buffer-limit", "normal 0 0 0")
        await until(lambda: reader.relay.state()["ok"])
        assert len(reader.delivered.entries) == 1

    with_seats(redis, 2, check)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OutOfMemoryError("command not allowed"), "redis is out of memory"),
        (ReadOnlyError("You can't write"), "redis is read-only: a failover is under way"),
        (BusyLoadingError("Redis is loading"), "redis is loading its data"),
        (NoPermissionError("this user has no permissions"), "redis does not allow it: see its ACL"),
        (AuthenticationError("invalid username-password pair"), "redis does not accept the user or the password"),
        (ResponseError("NOREPLICAS Not enough good replicas"), "redis has too few replicas"),
        (ResponseError("MISCONF Redis is configured to save"), "redis cannot write to its disk"),
        (RedisClusterException("cannot be connected"), "redis does not answer"),
        (ConnectionRefusedError("10.1.2.3"), "redis does not answer"),
    ],
)
def test_what_redis_refuses_is_told_in_words_and_without_addresses(error: Exception, reason: str) -> None:
    assert isinstance(error, ERRORS)
    assert reason_of(error) == reason


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, appendonly="yes", appendfsync="always").start()
    yield server
    server.stop()


async def _epoch(redis: RedisServer, *, durable: bool = False) -> str:
    """The epoch that a node finds which is the only one."""
    seat = await Seat(redis, durable=durable).start()
    await seat.publish("x")
    await seat.relay.close()
    return seat.state.epoch


@pytest.mark.parametrize("durable", [False, True])
def test_a_redis_that_went_down_with_all_nodes_has_to_be_known_as_one_that_loses_nothing(
    kept: RedisServer, durable: bool
) -> None:
    """Nobody is left who could tell what it had: without a word of the operator that is a new epoch."""

    async def main() -> None:
        with structlog.testing.capture_logs():
            before = await _epoch(kept, durable=durable)
            assert await _epoch(kept, durable=durable) == before  # nodes may come and go
            kept.kill()
            kept.start()
            after = await _epoch(kept, durable=durable)
            assert (after == before) is durable
            assert await _epoch(kept, durable=durable) == after

    run(main())


def test_a_node_that_lived_through_it_vouches_for_the_log(kept: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        (witness,) = nodes
        await witness.publish("before")
        kept.kill()
        kept.start()
        fresh = await Seat(kept).start()
        assert fresh.state.epoch == witness.state.epoch
        assert not witness.turns
        await fresh.relay.close()

    with_seats(kept, 1, check)
