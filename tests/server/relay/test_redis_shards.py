"""A channel that is split into shards by topic: one order, one cursor, and only what a node's readers need comes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import pytest
import structlog

from ringcast import RedisPublisher
from server.event import Event
from server.ids import parse_id
from server.relay import redis_tail
from server.relay.protocol import Entry, Followed, LogState, RelayUnavailable, Retention
from server.relay.redis import RedisRelay
from server.relay.redis_client import Target
from server.shards import shards_of
from tests.harness.redis import RedisServer
from tests.server.relay.bench import UNBOUNDED, Delivered, run

SHARDS = 4
TOPICS = [f"t/{number}" for number in range(40)]
# One topic of each shard.
OF = [next(topic for topic in TOPICS if shards_of([topic], SHARDS) == (shard,)) for shard in range(SHARDS)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    redis = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield redis
    redis.stop()


@pytest.fixture
def redis(server: RedisServer) -> RedisServer:
    server.command("FLUSHALL")
    return server


class Seat:
    """One node's relay, and what it was told."""

    def __init__(self, redis: RedisServer, shards: int = SHARDS) -> None:
        self.relay = RedisRelay(Target(redis.url), prefix="test", idempotency_seconds=120, shards_of=lambda _: shards)
        self.delivered = Delivered()
        self.marks: list[int] = []
        self.turns: list[tuple[str, str, int, LogState]] = []

    async def start(self, retention: Retention = UNBOUNDED) -> Seat:
        await self.relay.start(self._deliver, lambda *turn: self.turns.append(turn))
        self.state = await self.relay.open("main", retention, 100)
        return self

    def _deliver(self, channel: str, entries: Sequence[Entry]) -> None:
        assert all(entry.position > max(self.marks, default=0) for entry in entries), "below a mark that was given out"
        self.delivered(channel, entries)
        self.marks.append(self.relay.mark(channel))

    async def follow(self, *shards: int, recent: int = 1_000) -> Sequence[Followed]:
        return await self.relay.follow("main", shards, recent)

    async def publish(self, *topics: str, data: str = "") -> int:
        """Publish one event; its position."""
        (wire_id,) = (await self.relay.append("main", [Event(topics, data or topics[0])], None)).ids
        parsed = parse_id(wire_id)
        assert parsed is not None
        return parsed[1]

    async def whole(self, *shards: int, limit: int = 7) -> list[Entry]:
        """All that is in some shards, page by page."""
        found: list[Entry] = []
        while some := await self.relay.read("main", found[-1].position if found else 0, limit, shards):
            assert len(some) <= limit * len(shards or range(SHARDS))
            found += some
        return found


@contextlib.asynccontextmanager
async def seats(redis: RedisServer, count: int, retention: Retention = UNBOUNDED) -> AsyncIterator[list[Seat]]:
    with structlog.testing.capture_logs():
        several = [await Seat(redis).start(retention) for _ in range(count)]
        try:
            yield several
        finally:
            for seat in several:
                await seat.relay.close()


def with_seats(
    redis: RedisServer, count: int, doing: Callable[[list[Seat]], Awaitable[None]], retention: Retention = UNBOUNDED
) -> None:
    async def main() -> None:
        async with seats(redis, count, retention) as several:
            await doing(several)

    run(main())


async def until(condition: Callable[[], object], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is what a server has said
            await asyncio.sleep(0.01)


def test_all_nodes_see_one_order_over_all_shards(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        for node in nodes:
            await node.follow(*range(SHARDS))
        several = [random.sample(TOPICS, random.choice([1, 1, 2, 3])) for _ in range(600)]
        await asyncio.gather(*[nodes[n % 3].publish(*topics, data=str(n)) for n, topics in enumerate(several)])
        await until(lambda: all(len(node.delivered.entries) >= 600 for node in nodes))
        assert nodes[0].delivered.entries == nodes[1].delivered.entries == nodes[2].delivered.entries
        positions = [entry.position for entry in nodes[0].delivered.entries]
        assert positions == sorted(set(positions))
        assert await nodes[0].whole() == nodes[0].delivered.entries

    with_seats(redis, 3, check)


def test_one_append_over_several_shards_keeps_its_order(redis: RedisServer) -> None:
    """A blocking read wakes with the stream that was written first, and has only what is in that one."""

    async def check(nodes: list[Seat]) -> None:
        await nodes[1].follow(*range(SHARDS))
        for _ in range(50):
            events = [Event((random.choice(OF),), str(number)) for number in range(9)]
            await nodes[0].relay.append("main", events, None)
        await until(lambda: len(nodes[1].delivered.entries) == 450)
        assert nodes[1].delivered.data == [str(number) for number in range(9)] * 50
        assert not nodes[1].turns

    with_seats(redis, 2, check)


def test_a_burst_longer_than_one_read_keeps_its_order(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full answer of one shard says nothing of what is behind it; what others have beyond it waits."""
    monkeypatch.setattr(redis_tail, "ENTRIES_A_PAGE", 5)

    async def check(nodes: list[Seat]) -> None:
        await nodes[1].follow(*range(SHARDS))
        events = [Event((random.choice(OF[: number // 100 + 1]),), str(number)) for number in range(400)]
        await nodes[0].relay.append("main", events, None)
        await until(lambda: len(nodes[1].delivered.entries) == 400)
        assert nodes[1].delivered.data == [str(number) for number in range(400)]
        assert not nodes[1].turns

    with_seats(redis, 2, check)


def test_only_followed_shards_come(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        await nodes[1].follow(1)
        for number in range(80):
            await nodes[0].publish(OF[number % SHARDS])
        await nodes[0].publish(OF[1], data="last")
        await until(lambda: "last" in nodes[1].delivered.data)
        assert nodes[1].delivered.data == [OF[1]] * 20 + ["last"]
        assert nodes[0].delivered.data == []  # it publishes and has no readers

    with_seats(redis, 2, check)


def test_an_event_of_several_topics_comes_once_and_with_any_of_its_shards(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        await nodes[0].follow(0, 1)
        await nodes[1].follow(1)
        await nodes[2].follow(2)
        await nodes[0].publish(OF[0], OF[1], data="both")
        for topic in OF:
            await nodes[0].publish(topic, data="last")
        await until(lambda: all("last" in node.delivered.data for node in nodes))
        assert [node.delivered.data.count("both") for node in nodes] == [1, 1, 0]
        assert [entry.event.data for entry in await nodes[2].whole(0, 1)] == ["both", "last", "last"]

    with_seats(redis, 3, check)


def test_a_publish_into_a_shard_that_nobody_follows_here_waits_for_nothing(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        await nodes[0].follow(2)
        async with asyncio.timeout(5):
            for _ in range(50):  # each would wait for its arrival, for two seconds
                await nodes[0].publish(OF[0])
        await nodes[0].publish(OF[2], data="mine")
        assert nodes[0].delivered.data == ["mine"]  # before it is acknowledged, as ever

    with_seats(redis, 1, check)


@pytest.mark.parametrize("seed", range(4))
def test_who_joins_while_events_are_published_misses_nothing_and_gets_nothing_twice(
    redis: RedisServer, seed: int
) -> None:
    """What a shard held before and what is delivered afterwards are the whole of it, whenever it is followed."""
    chance = random.Random(seed)

    async def check(nodes: list[Seat]) -> None:
        publisher, reader = nodes
        done = asyncio.Event()
        published: list[tuple[str, ...]] = []

        async def go_on() -> None:
            while not done.is_set():
                topics = tuple(chance.sample(OF, chance.choice([1, 1, 2])))
                published.append(topics)
                await publisher.publish(*topics, data=str(len(published) - 1))

        task = asyncio.create_task(go_on())
        held: dict[int, list[int]] = {}
        for shard in chance.sample(range(SHARDS), SHARDS):
            goal = len(published) + chance.randrange(40)
            await until(lambda goal=goal: len(published) >= goal)  # type: ignore[misc]
            (followed,) = await reader.follow(shard)
            assert followed.since == 0
            held[shard] = [entry.position for entry in followed.recent]
        goal = len(published) + 30
        await until(lambda: len(published) >= goal)
        done.set()
        await task
        last = await publisher.publish(OF[0], data="last")
        await until(lambda: reader.delivered.entries and reader.delivered.entries[-1].position == last)
        positions = [entry.position for entry in reader.delivered.entries]
        assert positions == sorted(set(positions))
        for shard in range(SHARDS):
            mine = [e.position for e in reader.delivered.entries if shard in shards_of(e.event.topics, SHARDS)]
            in_log = [entry.position for entry in await reader.whole(shard)]
            # An event of two shards may have come with the other one before this one was followed.
            late = [position for position in mine if not held[shard] or position > held[shard][-1]]
            assert held[shard] + late == in_log

    with_seats(redis, 2, check)


def test_a_shard_that_is_given_up_and_followed_again_is_whole(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        await node.follow(1)
        await node.publish(OF[1], data="one")
        node.relay.unfollow("main", [1])
        await node.publish(OF[1], data="two")
        (followed,) = await node.follow(1)
        assert [entry.event.data for entry in followed.recent] == ["one", "two"]
        await node.publish(OF[1], data="three")
        assert node.delivered.data == ["one", "three"]

    with_seats(redis, 1, check)


def test_what_is_recent_is_bounded_and_says_so(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        positions = [await node.publish(OF[1]) for _ in range(20)]
        (followed,) = await node.follow(1, recent=5)
        assert [entry.position for entry in followed.recent] == positions[-5:]
        assert positions[-6] <= followed.since < positions[-5]

    with_seats(redis, 1, check)


def test_a_busy_shard_drops_nothing_of_a_quiet_one(redis: RedisServer) -> None:
    """Retention by count is shared out, and each shard has a floor of its own."""

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        quiet = await node.publish(OF[0])
        for _ in range(40):
            busy = await node.publish(OF[1])
        await node.follow(0, 1)
        assert [entry.position for entry in await node.whole(0)] == [quiet]
        assert len(await node.whole(1)) == 5
        assert node.relay.floor("main", (0,)) == 0
        assert quiet < node.relay.floor("main", (1,)) < busy
        assert node.relay.floor("main") == node.relay.floor("main", (1,))

    with_seats(redis, 1, check, Retention(20, 0, 0))


def test_a_publishers_own_id_is_found_in_any_shard(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        events = [Event((topic,), topic, id="mine") for topic in (OF[2], OF[0])]
        events.append(Event((OF[1], OF[3]), "both", id="other"))
        await node.relay.append("main", events, None)
        assert [entry.event.data for entry in await node.relay.find("main", "mine")] == [OF[2], OF[0]]
        assert [entry.event.data for entry in await node.relay.find("main", "other")] == ["both"]
        assert not await node.relay.find("main", "nobody's")

    with_seats(redis, 1, check)


def test_entries_dropped_before_they_were_read_are_a_declared_hole(redis: RedisServer) -> None:
    """Each entry names the one before it in its shard, whatever came in others meanwhile."""

    async def check(nodes: list[Seat]) -> None:
        publisher, reader = nodes
        await reader.follow(0, 1)
        await publisher.publish(OF[0], data="seen")
        await until(lambda: reader.delivered.data == ["seen"])
        await publisher.relay.append("main", [Event((OF[0],), f"{n}") for n in range(40)], None)
        await publisher.publish(OF[1], data="elsewhere")
        await until(lambda: "elsewhere" in reader.delivered.data)
        await publisher.publish(OF[0], data="later")
        await until(lambda: "later" in reader.delivered.data)
        assert [turn[1] for turn in reader.turns] == ["history"]
        assert "3" not in reader.delivered.data

    with_seats(redis, 2, check, Retention(8, 0, 0))


def test_a_log_that_is_lost_turns_for_every_shard(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        publisher, reader = nodes
        await reader.follow(0, 1)
        await publisher.publish(OF[0])
        await until(lambda: reader.delivered.entries)
        before = reader.state.epoch
        redis.command("FLUSHALL")
        await until(lambda: publisher.turns and reader.turns)
        assert reader.turns[-1][1] == "epoch"
        assert reader.turns[-1][3].epoch == publisher.turns[-1][3].epoch != before
        await publisher.publish(OF[1], data="after")
        await until(lambda: "after" in reader.delivered.data)
        assert reader.turns[-1][3].shards == SHARDS

    with_seats(redis, 2, check)


def test_a_cursor_of_a_node_that_is_ahead_is_reached(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        publisher, reader = nodes
        await reader.follow(3)
        position = await publisher.publish(OF[0])  # in a shard that the other does not follow
        await reader.relay.reach("main", reader.state.epoch, position)
        assert reader.relay.mark("main") >= position

    with_seats(redis, 2, check)


def test_nodes_with_another_number_of_shards_are_refused_in_words(redis: RedisServer) -> None:
    async def check(_: list[Seat]) -> None:
        other = Seat(redis, shards=8)
        with pytest.raises(RelayUnavailable, match="main is in 4 shards in Redis, and in 8 by the settings"):
            await other.start()
        await other.relay.close()

    with_seats(redis, 1, check)


def test_a_publisher_beside_the_nodes_goes_by_the_number_in_the_log(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        await node.follow(*range(SHARDS))

        def publish() -> None:
            publisher = RedisPublisher(redis.url, prefix="test")
            for topic in OF:
                publisher.publish(topic, "x")
            publisher.close()

        await asyncio.to_thread(publish)
        await until(lambda: len(node.delivered.entries) == SHARDS)
        assert [entry.event.topics for entry in node.delivered.entries] == [(topic,) for topic in OF]
        assert [len(await node.whole(shard)) for shard in range(SHARDS)] == [1] * SHARDS

    with_seats(redis, 1, check)


def test_a_publisher_may_open_a_channel_that_is_split(redis: RedisServer) -> None:
    publisher = RedisPublisher(redis.url, prefix="test", shards=SHARDS)
    publisher.publish(OF[2], "first")
    publisher.close()

    async def check(nodes: list[Seat]) -> None:
        (followed,) = await nodes[0].follow(2)
        assert [entry.event.data for entry in followed.recent] == ["first"]

    with_seats(redis, 1, check)


def test_an_event_without_topics_is_for_who_reads_all(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        await nodes[1].follow(*range(SHARDS))
        await nodes[0].relay.append("main", [Event((), "to all")], None)
        await until(lambda: nodes[1].delivered.data == ["to all"])
        assert [entry.event.data for entry in await nodes[1].whole()] == ["to all"]

    with_seats(redis, 2, check)


def test_a_hole_in_one_shard_is_no_hole_in_the_others(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        publisher, reader = nodes
        await reader.follow(0, 1)
        await publisher.publish(OF[0], data="seen")
        await until(lambda: reader.delivered.data == ["seen"])
        events = [Event((OF[0],), f"{n}") for n in range(40)] + [Event((OF[1],), "whole")]
        await publisher.relay.append("main", events, None)
        await until(lambda: "whole" in reader.delivered.data)
        assert [(turn[1], turn[3].missing) for turn in reader.turns] == [("history", (0,))]
        assert reader.delivered.data[-3:] == ["38", "39", "whole"]
        assert reader.relay.floor("main", (1,)) == 0

    with_seats(redis, 2, check, Retention(8, 0, 0))


def test_of_several_shards_everything_that_is_kept_is_read(redis: RedisServer) -> None:
    """What a quiet shard still has is older than the busy one's floor."""

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        quiet = [await node.publish(OF[0]) for _ in range(3)]
        for _ in range(40):
            await node.publish(OF[1])
        await node.follow(0, 1)
        assert [entry.position for entry in (await node.whole(0, 1))[:3]] == quiet
        assert node.relay.lowest_floor("main", (0, 1)) == 0

    with_seats(redis, 1, check, Retention(20, 0, 0))


def test_an_own_id_is_known_as_long_as_one_shard_keeps_the_event(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        await node.relay.append("main", [Event((OF[0], OF[1]), "both", id="mine")], None)
        for _ in range(20):
            await node.publish(OF[1])
        assert [entry.event.data for entry in await node.relay.find("main", "mine")] == ["both"]
        for _ in range(20):
            await node.publish(OF[0])
        assert not await node.relay.find("main", "mine")
        assert redis.command("ZCARD", "{test:main}:own") == b":0"

    with_seats(redis, 1, check, Retention(20, 0, 0))


def test_a_page_has_as_many_entries_as_were_asked_for_whatever_the_shards(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        await node.follow(*range(SHARDS))
        topics = [random.choice([OF[0]] * 9 + OF) for _ in range(300)]
        await node.relay.append("main", [Event((topic,), str(n)) for n, topic in enumerate(topics)], None)
        page = await node.relay.read("main", 0, 100)
        assert [entry.event.data for entry in page] == [str(number) for number in range(100)]
        assert page.upto == page[-1].position
        rest = await node.relay.read("main", page.upto, 500)
        assert len(rest) == 200
        assert rest.upto >= rest[-1].position

    with_seats(redis, 1, check)


def test_a_channel_that_cannot_be_used_keeps_nobody_from_the_others(redis: RedisServer) -> None:
    """Redis lost its data, and somebody who knows nothing of shards was first."""

    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        await node.relay.open("other", UNBOUNDED, 0)
        await node.relay.splitter.follow("other", range(SHARDS), 1)
        redis.command("FLUSHALL")
        redis.command("HSET", "{test:main}:facts", "epoch", "zzzzzz", "high", "1", "shards", "1")
        await until(lambda: any(turn[0] == "other" for turn in node.turns))
        await node.relay.append("other", [Event((OF[0],), "goes on")], None)
        await until(lambda: "goes on" in node.delivered.data)
        with pytest.raises(RelayUnavailable, match="in 1 shards in Redis, and in 4 by the settings"):
            await node.publish(OF[0])

    with_seats(redis, 1, check)


def test_an_entry_with_anything_in_it_stops_nothing(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        await node.follow(0)
        await node.publish(OF[0], data="one")
        redis.command("XADD", "{test:main}:events:0", f"{time.time() * 1e6 + 1000:.0f}-0", "p", "12.50", "e", "[]")
        await node.publish(OF[1], data="elsewhere")
        await until(lambda: node.turns)
        assert [(turn[1], turn[3].missing) for turn in node.turns] == [("damaged", (0,))]

    with_seats(redis, 1, check)


def test_an_entry_beside_one_of_ours_wakes_nobody_again_and_again(redis: RedisServer) -> None:
    async def check(nodes: list[Seat]) -> None:
        (node,) = nodes
        await node.follow(0)
        await node.publish(OF[0], data="one")
        redis.command("XADD", "{test:main}:events:0", "*", "foreign", "1")
        await node.publish(OF[0], data="two")
        before = int(redis.facts("INFO", "stats")["total_commands_processed"])
        await asyncio.sleep(1.0)  # what is measured
        assert int(redis.facts("INFO", "stats")["total_commands_processed"]) - before < 50
        assert node.delivered.data == ["one", "two"]

    with_seats(redis, 1, check)
