"""The relay over a real Redis: one log for several nodes, whole and in one order, or a declared turn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from server.event import Event
from server.ids import parse_id
from server.relay.protocol import KeyConflict, LogState, RelayUnavailable, Retention
from server.relay.redis import RedisRelay
from server.relay.redis_client import Target
from tests.harness.redis import RedisServer
from tests.server.relay.bench import UNBOUNDED, Delivered, event, key, run

Turn = tuple[str, str, int, LogState]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


class Seat:
    """One node's relay, and what it was told."""

    def __init__(self, redis: RedisServer, **options: Any) -> None:
        self.relay = RedisRelay(Target(redis.url), prefix="test", idempotency_seconds=120, **options)
        self.delivered = Delivered()
        self.turns: list[Turn] = []
        self.state: LogState

    async def start(self, retention: Retention = UNBOUNDED, recent: int = 0) -> Seat:
        await self.relay.start(self.delivered, lambda *turn: self.turns.append(turn))
        self.state = await self.relay.open("main", retention, recent)
        return self

    async def publish(self, *texts: str) -> tuple[str, ...]:
        return (await self.relay.append("main", [event(text) for text in texts], None)).ids


@contextlib.asynccontextmanager
async def seats(redis: RedisServer, count: int = 1, **options: Any) -> AsyncIterator[list[Seat]]:
    """Relays of several nodes; what they log is theirs."""
    with structlog.testing.capture_logs():
        several = [await Seat(redis, **options).start() for _ in range(count)]
        try:
            yield several
        finally:
            for seat in several:
                await seat.relay.close()


async def until(condition: Callable[[], object], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is what a server has said
            await asyncio.sleep(0.01)


def with_seats(redis: RedisServer, count: int, doing: Callable[[list[Seat]], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with seats(redis, count, **options) as several:
            await doing(several)

    run(main())


def test_every_node_gets_what_any_node_publishes_in_one_order(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        await asyncio.gather(*[nodes[number % 3].publish(f"{number}") for number in range(300)])
        await until(lambda: all(len(node.delivered.entries) == 300 for node in nodes))
        assert nodes[0].delivered.entries == nodes[1].delivered.entries == nodes[2].delivered.entries
        positions = [entry.position for entry in nodes[0].delivered.entries]
        assert positions == sorted(set(positions))

    with_seats(redis, 3, check)


def test_a_node_has_its_own_event_before_it_is_acknowledged(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        for number in range(50):
            (wire_id,) = await nodes[0].publish(f"{number}")
            assert nodes[0].delivered.entries[-1].id == wire_id

    with_seats(redis, 1, check)


def test_positions_are_the_time_of_redis(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        (wire_id,) = await nodes[0].publish("x")
        parsed = parse_id(wire_id)
        assert parsed is not None
        assert abs(parsed[1] / 1e6 - time.time()) < 2

    with_seats(redis, 1, check)


def test_an_entry_comes_back_as_it_went_in(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        sent = Event(topics=("x", "y/ü"), data="a\r\nb\x00c\u2028\U0001f600", type="price", retry_ms=7, private=True)
        placed = Event(("x",), "here", location=(0.1 + 0.2, -179.99999999999997))
        await nodes[0].relay.append("main", [sent, placed], None)
        await until(lambda: len(nodes[1].delivered.entries) == 2)
        assert [entry.event for entry in nodes[1].delivered.entries] == [sent, placed]
        assert list(await nodes[1].relay.read("main", 0, 10)) == nodes[1].delivered.entries

    with_seats(redis, 2, check)


def test_a_batch_is_all_or_nothing_and_consecutive(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        ids = await nodes[0].publish(*[str(number) for number in range(2_500)])
        positions = [parsed[1] for wire_id in ids if (parsed := parse_id(wire_id))]
        assert positions == list(range(positions[0], positions[0] + 2_500))
        await until(lambda: len(nodes[1].delivered.entries) == 2_500)

    with_seats(redis, 2, check)


def test_appends_of_one_turn_go_out_in_one_round_trip(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        before = nodes[0].relay.state()["round_trips"]
        await asyncio.gather(*[nodes[0].publish(f"{number}") for number in range(200)])
        assert nodes[0].relay.state()["round_trips"] - before <= 2  # type: ignore[operator]

    with_seats(redis, 1, check)


def test_a_key_gives_one_event_on_whichever_node_it_comes_again(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        events = [event("a"), event("b", "mine")]
        first = await nodes[0].relay.append("main", events, key("k"))
        again = await nodes[1].relay.append("main", events, key("k"))
        assert (again.ids, again.replayed) == (first.ids, True)
        with pytest.raises(KeyConflict):
            await nodes[1].relay.append("main", events, key("k", digest=b"2"))
        assert not (await nodes[1].relay.append("main", events, key("k", scope="other"))).replayed
        await until(lambda: len(nodes[1].delivered.entries) == 4)
        await asyncio.gather(*[node.relay.append("main", [event("c")], key("race")) for node in nodes * 10])
        await nodes[0].publish("end")
        await until(lambda: nodes[1].delivered.data[-1:] == ["end"])
        assert nodes[1].delivered.data.count("c") == 1

    with_seats(redis, 2, check)


def test_a_mark_is_below_all_that_comes_later_and_tells_nothing_of_private_events(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        await nodes[0].publish("public")
        public = nodes[0].delivered.entries[-1].position
        assert nodes[0].relay.mark("main") >= public
        before = nodes[0].relay.mark("main")
        await nodes[0].relay.append("main", [Event(("a",), "private", private=True)], None)
        private = nodes[0].delivered.entries[-1].position
        mark = nodes[0].relay.mark("main")
        assert mark == before or mark > private
        await until(lambda: nodes[0].relay.mark("main") > private)
        mark = nodes[0].relay.mark("main")
        await nodes[1].publish("later")
        await until(lambda: nodes[0].delivered.data[-1] == "later")
        assert nodes[0].delivered.entries[-1].position > mark

    with_seats(redis, 2, check)


def test_retention_by_count_by_bytes_and_by_age(redis: RedisServer) -> None:
    async def main() -> None:
        with structlog.testing.capture_logs():
            node = await Seat(redis).start(Retention(10, 0, 0))
            for number in range(25):
                await node.publish(str(number))
            kept = await node.relay.read("main", 0, 100)
            assert [entry.event.data for entry in kept] == [str(number) for number in range(15, 25)]
            assert node.relay.floor("main") == node.delivered.entries[14].position
            await node.relay.open("main", Retention(0, 2_000, 0), 0)
            await node.relay.close()
            node = await Seat(redis).start(Retention(0, 2_000, 0))
            await node.publish(*["x" * 500 for _ in range(10)])
            assert 1 <= len(await node.relay.read("main", 0, 100)) <= 4
            newest = node.delivered.entries[-1].position
            await node.relay.close()
            node = await Seat(redis).start(Retention(0, 0, 0.5))
            await until(lambda: node.relay.floor("main") == newest)
            assert await node.relay.read("main", 0, 100) == []
            await node.relay.close()

    run(main())


def test_the_newest_entries_and_a_publishers_own_ids_are_found(redis: RedisServer) -> None:
    async def main() -> None:
        async with seats(redis) as (node,):
            await node.publish(*[str(number) for number in range(1_500)])
            for text in ("a", "b"):
                await node.relay.append("main", [event(text, "mine")], None)
            other = await Seat(redis).start(recent=1_200)
            assert [entry.event.data for entry in other.state.recent][-3:] == ["1499", "a", "b"]
            assert len(other.state.recent) == 1_200
            assert [entry.event.data for entry in await other.relay.find("main", "mine")] == ["a", "b"]
            assert await other.relay.find("main", "nobody's") == []
            await other.relay.close()

    run(main())


# --- faults


@pytest.mark.fault
def test_a_redis_that_comes_back_empty_is_a_new_epoch_for_everybody(redis: RedisServer, seed: int) -> None:
    rng = random.Random(seed)

    async def check(nodes: list[Seat]) -> None:
        lost = [f"lost {number}" for number in range(rng.randrange(1, 60))]
        for text in lost:
            await rng.choice(nodes).publish(text)
        await until(lambda: all(node.delivered.data == lost for node in nodes))
        epoch = nodes[0].state.epoch
        redis.kill()
        for _ in range(rng.randrange(1, 4)):
            with pytest.raises(RelayUnavailable):
                await rng.choice(nodes).publish("refused")
        await asyncio.sleep(rng.uniform(0, 1.5))  # for so long it is away
        redis.start()
        await until(lambda: all(node.turns for node in nodes))
        assert [[reason for _, reason, *_ in node.turns] for node in nodes] == [["epoch"], ["epoch"]]
        new = {node.turns[0][3].epoch for node in nodes}
        assert len(new) == 1 and epoch not in new
        await rng.choice(nodes).publish("goes on")
        await until(lambda: all(node.delivered.data == [*lost, "goes on"] for node in nodes))

    with_seats(redis, 2, check)


def test_a_redis_that_kept_everything_is_the_same_epoch(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path, appendonly="yes", appendfsync="always").start()

    async def check(nodes: list[Seat]) -> None:
        await nodes[0].publish("kept")
        redis.kill()
        redis.start()
        await until(lambda: all(node.relay.state()["ok"] for node in nodes))
        await nodes[1].publish("goes on")
        await until(lambda: nodes[0].delivered.data == ["kept", "goes on"])
        assert [node.turns for node in nodes] == [[], []]

    try:
        with_seats(redis, 2, check)
    finally:
        redis.stop()


def test_a_log_that_lost_its_tail_is_noticed_though_others_appended_since(redis: RedisServer) -> None:
    """A failover to a replica that lagged: what this node saw is gone, and what another appended stands higher."""

    async def check(nodes: list[Seat]) -> None:
        await nodes[0].publish("stays")
        await until(lambda: len(nodes[1].delivered.entries) == 1)
        stays = nodes[0].delivered.entries[0].position
        await nodes[0].publish("is lost")
        lost = nodes[0].delivered.entries[1].position
        await until(lambda: len(nodes[1].delivered.entries) == 2)
        redis.command("XDEL", "{test:main}:events", f"{lost}-0")
        redis.command("CLIENT", "KILL", "TYPE", "normal")
        await until(lambda: all(node.turns for node in nodes))
        assert {node.turns[0][1] for node in nodes} == {"epoch"}
        assert [entry.position for entry in await nodes[0].relay.read("main", 0, 10)] == [stays]

    with_seats(redis, 2, check)


def test_ids_that_go_back_after_a_failover_are_a_new_epoch_and_nothing_is_skipped(redis: RedisServer) -> None:
    """The new master's clock lags: its ids are below the cursors. XREAD behind a cursor would give nothing for ever."""

    async def check(nodes: list[Seat]) -> None:
        await nodes[0].publish("a", "b")
        await until(lambda: len(nodes[1].delivered.entries) == 2)
        hour = 3_600_000_000
        back = nodes[0].delivered.entries[0].position - hour
        for name in ("high", "last"):
            redis.command("HSET", "{test:main}:facts", name, str(back))
        redis.command("DEL", "{test:main}:events")
        await nodes[1].publish("c")
        await until(lambda: all(node.turns for node in nodes))
        await until(lambda: all(node.delivered.data[-1] == "c" for node in nodes))
        assert nodes[0].delivered.entries[-1].position > nodes[0].delivered.entries[1].position

    with_seats(redis, 2, check)


@pytest.mark.fault
def test_a_redis_that_stands_still_is_noticed_and_its_connections_given_up(redis: RedisServer, seed: int) -> None:
    rng = random.Random(seed)

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        texts = [str(number) for number in range(rng.randrange(1, 60))]
        await node.publish(*texts)
        connections = node.relay.state()["tail_connections"]
        redis.signal(signal.SIGSTOP)
        await until(lambda: not node.relay.state()["ok"])
        await asyncio.sleep(rng.uniform(0, 2))  # for so long it stands still after that
        redis.signal(signal.SIGCONT)
        await until(lambda: node.relay.state()["ok"])
        assert node.relay.state()["tail_connections"] > connections  # type: ignore[operator]
        await node.publish("goes on")
        assert node.delivered.data == [*texts, "goes on"]
        assert node.turns == []

    with_seats(redis, 1, check)


def test_an_append_whose_answer_was_lost_is_not_made_twice(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        await node.publish("a")
        redis.signal(signal.SIGSTOP)
        publishing = asyncio.ensure_future(node.publish("unknown"))
        with pytest.raises(RelayUnavailable):
            await publishing
        redis.signal(signal.SIGCONT)
        await until(lambda: node.relay.state()["ok"])
        await node.publish("end")
        await until(lambda: node.delivered.data[-1] == "end")
        assert node.delivered.data.count("unknown") <= 1

    with_seats(redis, 1, check)


def test_entries_that_were_dropped_before_a_node_read_them_are_a_declared_hole(redis: RedisServer) -> None:
    async def main() -> None:
        with structlog.testing.capture_logs():
            node = await Seat(redis).start(Retention(10, 0, 0))
            await node.publish("a")
            await node.publish(*[str(number) for number in range(25)])
            await until(lambda: node.delivered.data[-1:] == ["24"])
            assert node.delivered.data[1:] == [str(number) for number in range(15, 25)]
            [(_, reason, position, _)] = node.turns
            assert (reason, position) == ("history", node.delivered.entries[1].position - 1)
            await node.relay.close()

    run(main())


@pytest.mark.parametrize(
    "fields",
    [
        ("e", "not json"),
        ("e", json.dumps([["t"], None, None, None, False])),
        ("e", json.dumps([["t\n"], None, None, None, False, "x"])),
        ("e", json.dumps([["t"], None, None, None, False, "x", [91, 0]])),
        ("e", json.dumps([["t"], None, None, None, False, "x", [1]])),
        ("e", json.dumps([["t"], None, None, None, False, "x", "here"])),
        ("e", json.dumps([["t"], None, None, None, False, "x", None])),
        ("other", "1"),
        ("e", json.dumps({"a": 1})),
    ],
)
def test_an_entry_that_is_not_ours_is_skipped_counted_and_declared(redis: RedisServer, fields: tuple[str, str]) -> None:
    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        await node.publish("a")
        redis.command("XADD", "{test:main}:events", f"{node.delivered.entries[0].position + 1}-0", *fields)
        await until(lambda: node.turns)
        assert [reason for _, reason, *_ in node.turns] == ["damaged"]
        assert node.relay.state()["damaged"] == 1
        await node.publish("b")
        assert node.delivered.data == ["a", "b"]
        assert [entry.event.data for entry in await node.relay.read("main", 0, 10)] == ["a", "b"]

    with_seats(redis, 1, check)


def test_keys_and_ids_of_any_characters_stay_where_they_belong(redis: RedisServer) -> None:
    """S45."""

    async def check(nodes: list[Seat]) -> None:
        for number, text in enumerate(("a}b{c", "{x}", "* ? [", "'\" .. redis.call", "é")):
            first = await nodes[0].relay.append("main", [event("x", f"id {text}")], key(text, scope=text))
            again = await nodes[0].relay.append("main", [event("x", f"id {text}")], key(text, scope=text))
            assert (again.ids, again.replayed) == (first.ids, True)
            assert len(await nodes[0].relay.find("main", f"id {text}")) == 1, number

    with_seats(redis, 1, check)


def test_without_enough_replicas_nothing_is_acknowledged(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        with pytest.raises(RelayUnavailable, match="replicas"):
            await nodes[0].publish("a")

    with_seats(redis, 1, check, replicas=1, replicas_seconds=1)


def test_a_redis_that_is_not_there_is_an_error_at_the_start(redis: RedisServer) -> None:
    redis.stop()

    async def main() -> None:
        with pytest.raises(RelayUnavailable, match="does not answer"):
            await Seat(redis).start()

    run(main())


def test_scripts_that_redis_forgot_are_loaded_again(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        await nodes[0].publish("a")
        redis.command("SCRIPT", "FLUSH")
        await nodes[0].publish("b")
        assert nodes[0].delivered.data == ["a", "b"]

    with_seats(redis, 1, check)
