"""Looks at many logs in few round trips: what one of them does keeps nobody from the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.relay import redis_client, redis_looks, redis_tail
from server.relay.protocol import RelayUnavailable
from tests.harness.redis import RedisServer
from tests.server.relay.bench import UNBOUNDED, event, run
from tests.server.relay.test_redis import Seat, until, with_seats

MANY = 20


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


async def open_many(seat: Seat) -> list[str]:
    """Channels with an event each."""
    names = [f"c{number}" for number in range(MANY)]
    for name in names:
        await seat.relay.open(name, UNBOUNDED, 0)
        await seat.relay.append(name, [event(name)], None)
    return names


def test_many_logs_are_looked_at_in_few_round_trips(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    trips: list[int] = []
    sound = redis_client.ask_each

    async def counted(client: Any, commands: Any) -> list[Any]:
        trips.append(len(commands))
        return await sound(client, commands)

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        names = await open_many(node)
        before = {name: node.relay.mark(name) for name in names}
        monkeypatch.setattr(redis_client, "ask_each", counted)
        await until(lambda: all(node.relay.mark(name) > before[name] for name in names))
        assert MANY + 1 in trips  # and `main`, all at once
        assert 1 not in trips

    with_seats(redis, 1, check)


def test_no_trip_is_longer_than_redis_should_be_busy_with_one_node(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_client, "MOST_A_TRIP", 3)

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        commands = [redis_client.Command("", ("ECHO", f"{number}")) for number in range(10)]
        said = await redis_client.ask_each(node.relay._client, commands)
        assert said == [f"{number}".encode() for number in range(10)]
        refused = [redis_client.Command("", ("ECHO",)), redis_client.Command("", ("ECHO", "x"))]
        error, word = await redis_client.ask_each(node.relay._client, refused)
        assert isinstance(error, redis_client.ERRORS)
        assert word == b"x"

    with_seats(redis, 1, check)


def test_logs_that_are_lost_turn_and_the_others_go_on(redis: RedisServer) -> None:
    """More than are turned at once; what was asked of the others is not asked again."""

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        names = await open_many(node)
        lost = names[: redis_looks.TURNS_AT_ONCE + 3]
        for name in lost:
            for key in ("facts", "events", "ids"):
                redis.command("DEL", f"{{test:{name}}}:{key}")
        kept = {name: node.relay.mark(name) for name in names if name not in lost}
        await until(lambda: {turn[0] for turn in node.turns} == set(lost))
        await until(lambda: all(node.relay.mark(name) > mark for name, mark in kept.items()))
        for name in names:
            await node.relay.append(name, [event("goes on")], None)
        assert len(node.turns) == len(lost)

    with_seats(redis, 1, check)


def test_scripts_that_redis_forgot_are_brought_along_for_all(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        names = await open_many(node)
        assert redis.command("SCRIPT", "FLUSH") == b"+OK"
        before = {name: node.relay.mark(name) for name in names}
        await until(lambda: all(node.relay.mark(name) > before[name] for name in names))
        assert node.relay.state()["ok"]

    with_seats(redis, 1, check)


def test_a_connection_that_breaks_during_a_look_is_still_looked_behind(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that comes then was asked before, and proves nothing of what is there since."""
    sound = redis_looks.ask_scripts

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        log, (tail,) = node.relay._logs["main"], node.relay._tails

        async def broken_meanwhile(client: Any, name: str, calls: Any) -> list[Any]:
            answers = await sound(client, name, calls)
            node.relay.broke(tail)
            return answers

        await node.publish("a")
        monkeypatch.setattr(redis_looks, "ask_scripts", broken_meanwhile)
        log.unproven = False
        await node.relay._looks.at(log)
        assert log.unproven
        monkeypatch.setattr(redis_looks, "ask_scripts", sound)
        await until(lambda: not log.unproven)

    with_seats(redis, 1, check)


def test_what_fails_first_in_a_tick_keeps_nothing_else_from_being_done(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full Redis takes no mark, and gets room only by the look behind it."""

    async def refused() -> None:
        raise RelayUnavailable("redis is out of memory")

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        monkeypatch.setattr(redis_tail, "DEAF_SECONDS", 60)  # a new connection of its own would look too
        monkeypatch.setattr(node.relay, "_prove", refused)
        await until(lambda: node.relay.state().get("reason") == "redis is out of memory")
        before = node.relay.mark("main")
        await until(lambda: node.relay.mark("main") > before)
        monkeypatch.undo()
        await until(lambda: node.relay.state()["ok"])

    with_seats(redis, 1, check)


def test_a_redis_that_is_not_there_is_told_for_each(redis: RedisServer) -> None:
    async def main() -> None:
        client = redis_client.connect(redis_client.Target(redis.url))
        redis.stop()
        commands = [redis_client.Command("", ("PING",))] * 3
        answers = await redis_client.ask_each(client, commands)
        assert [type(answer) for answer in answers] == [type(answers[0])] * 3
        assert isinstance(answers[0], redis_client.ERRORS)
        await client.aclose()

    run(main())
