"""What is behind a new connection to Redis has to be proved, log by log: to be what it was, and to be readable; and
what a log may cost Redis, and a node that can't open it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringcast import RedisPublisher
from server.event import Event
from server.ids import parse_id
from server.relay import redis_looks
from server.relay.protocol import RelayUnavailable, Retention
from server.relay.redis_client import Client
from server.relay.redis_reads import MAX_FOUND
from server.relay.redis_tail import Tail
from tests.harness.redis import RedisServer
from tests.server.relay.bench import UNBOUNDED, event
from tests.server.relay.test_redis import Seat, until, with_seats


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


async def published(node: Seat, text: str) -> None:
    """Publish once the relay can."""
    while True:
        try:
            await node.publish(text)
            return
        except RelayUnavailable:
            await asyncio.sleep(0.01)


def test_what_a_node_appends_before_its_look_proves_nothing(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis comes back as it was a while ago, without what it had acknowledged. Another process appends first, so that
    positions go on; then this node does, and only then looks: what it looks for is what it knew before the break."""
    sound = redis_looks.ask_scripts

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        may_look = asyncio.Event()

        async def later(client: Any, name: str, calls: Any) -> list[Any]:
            await may_look.wait()
            return await sound(client, name, calls)

        await node.publish("kept")
        redis.command("SAVE")
        await node.publish("lost")
        await until(lambda: node.delivered.data[-1:] == ["lost"])
        monkeypatch.setattr(redis_looks, "ask_scripts", later)
        await asyncio.to_thread(redis.kill)
        await until(lambda: node.relay._logs["main"].unproven)
        await asyncio.to_thread(redis.start)
        beside = RedisPublisher(redis.url, prefix="test", within_seconds=10)
        await asyncio.to_thread(beside.publish, "t", "from beside")
        await published(node, "its own")
        assert not node.turns
        may_look.set()
        await until(lambda: node.turns)
        assert node.turns[0][:2] == ("main", "epoch")

    with_seats(redis, 1, check)


def test_a_channel_that_cannot_be_read_keeps_no_other_from_being_followed(redis: RedisServer) -> None:
    """Its key in Redis is somebody else's. Once that is gone it is followed again, as what it is then."""

    async def check(nodes: list[Seat]) -> None:
        here, there = nodes
        for node in nodes:
            await node.relay.open("spoiled", UNBOUNDED, 0)
        redis.command("SET", "{test:spoiled}:facts", "not ours")
        redis.command("CLIENT", "KILL", "TYPE", "normal")
        await until(lambda: here.relay._logs["spoiled"].unproven and not here.relay.state()["ok"])
        await published(there, "a")
        await until(lambda: here.delivered.data[-1:] == ["a"])
        redis.command("DEL", "{test:spoiled}:facts")
        await until(lambda: here.relay.state()["ok"] and there.relay.state()["ok"])
        await there.relay.append("spoiled", [event("b")], None)
        await until(lambda: here.delivered.data[-1:] == ["b"])

    with_seats(redis, 2, check)


def test_a_node_that_did_not_read_the_last_event_in_time_says_so_and_goes_on(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was dropped for its age, and no other comes that would tell of it."""
    sound = Tail._read

    async def check(nodes: list[Seat]) -> None:
        here, there = nodes
        for node in nodes:
            await node.relay.open("short", Retention(0, 0, 1.0), 0)
        (stopped,) = here.relay._tails
        may_read = asyncio.Event()

        async def later(tail: Tail, client: Client) -> None:
            if tail is stopped:
                await may_read.wait()
            await sound(tail, client)

        monkeypatch.setattr(Tail, "_read", later)
        await there.relay.append("short", [event("read by all")], None)
        await until(lambda: there.delivered.data == ["read by all"])
        missed = (await there.relay.append("short", [event("unread")], None)).ids[0]
        _, position = parse_id(missed) or ("", 0)
        await until(lambda: [turn[:3] for turn in here.turns] == [("short", "history", position)])
        may_read.set()
        await here.relay.reach("short", here.state.epoch, position)
        await there.relay.append("short", [event("next")], None)
        await until(lambda: here.delivered.data[-1:] == ["next"])
        assert len(here.turns) == 1
        assert here.delivered.data.count("unread") == 0

    with_seats(redis, 2, check)


def test_a_channel_that_cannot_be_opened_takes_no_tail_each_time(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its own is there for the next try; a node that had more would have to hear all of them to be ready."""
    sound = Tail.begin

    async def deaf(_: Tail, client: Client) -> None:
        raise RelayUnavailable("what is published does not come back")

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        monkeypatch.setattr(Tail, "begin", deaf)
        for _ in range(3):
            with pytest.raises(RelayUnavailable):
                await node.relay.open("split", UNBOUNDED, 0)
        monkeypatch.setattr(Tail, "begin", sound)
        await node.relay.open("split", UNBOUNDED, 0)
        assert len(node.relay._tails) == 2
        await until(lambda: node.relay.state()["ok"])

    with_seats(redis, 1, check, shards_of=lambda channel: 2 if channel == "split" else 1)


def test_one_own_id_for_all_events_costs_no_more_the_more_there_are(redis: RedisServer) -> None:
    """A state under one name, published again and again: Redis works as long for the last events as for the first."""

    def spent_microseconds() -> int:
        found = re.search(rb"cmdstat_evalsha:calls=\d+,usec=(\d+)", redis._ask("INFO", "commandstats"))
        return int(found[1]) if found else 0

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        costs: list[int] = []
        for _ in range(30):
            before = spent_microseconds()
            await node.relay.append("main", [Event(("t",), "x", id="status")] * 1_000, None)
            costs.append(spent_microseconds() - before)
        assert min(costs[-5:]) < 3 * max(costs[:5]), costs
        assert len(await node.relay.find("main", "status")) == MAX_FOUND

    with_seats(redis, 1, check)
