"""Redis pub/sub with a real server: once on several nodes, one node after another, and a connection that is deaf."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog

from bridges import redis_pubsub as redis_pubsub_module
from bridges import turns as turns_module
from bridges.bridge import SourceLost
from bridges.mapping import Mapping
from bridges.redis_pubsub import RedisPubSub
from bridges.turns import RedisTurns
from server.relay.redis_client import Target, connect
from tests.bridges.conftest import bridge, data, facts, listen, mapping, settings, state, until, until_active
from tests.bridges.fed import fed
from tests.bridges.feeder import RedisFeeder
from tests.bridges.recording_hub import RecordingHub
from tests.conftest import StartNode
from tests.harness.process import Node, wait_until
from tests.harness.proxy import Proxy
from tests.harness.redis import RedisServer
from tests.server.relay.bench import run

UPDATES = mapping("job:*:updates", "jobs/{subject[1]}")
NUMBERS = mapping("numbers:*", "{subject[1]}")


@pytest.fixture
def source(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that others publish to; the relay, where there is one, is another."""
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


def jobs(source: RedisServer, *mappings: dict[str, Any]) -> dict[str, Any]:
    return bridge("redis", "jobs", *(mappings or (UPDATES,)), url=source.url)


@contextmanager
def leading_to(source: RedisServer) -> Iterator[Proxy]:
    proxy = Proxy(source.port).start()
    yield proxy
    proxy.stop()


def publish(source: RedisServer, channel: str, *bodies: str) -> None:
    for body in bodies:
        source.command("PUBLISH", channel, body)


def holder_and_other(nodes: list[Node]) -> list[Node]:
    """The node that reads, and the one that does not."""
    wait_until(lambda: any(facts(one, "jobs")["active"] for one in nodes), 20, "a node that reads")
    return sorted(nodes, key=lambda one: not facts(one, "jobs")["active"])


def test_j4_an_update_that_another_service_publishes_reaches_the_jobs_listeners(
    source: RedisServer, node: StartNode
) -> None:
    """J4: `PUBLISH job:123:updates` becomes an unnamed event of job 123."""
    one = node(**settings(jobs(source)))
    until_active(one, "jobs")
    update = '{"jobId":"123","status":"processing","progress":42}'
    with listen(one, "jobs/123") as stream:
        publish(source, "job:123:updates", update)
        publish(source, "job:124:updates", '{"jobId":"124"}')
        publish(source, "job:123:other", "not an update")
        publish(source, "job:123:updates", "done")
        events = stream.events(2)
    assert [(event.type, event.data) for event in events] == [("message", update), ("message", "done")]
    assert facts(one, "jobs")["published"] == 3


def test_a_channel_keeps_its_order_and_poison_does_not_stop_it(source: RedisServer, node: StartNode) -> None:
    one = node(**settings(jobs(source, mapping("n", data="{json.n}"))))
    until_active(one, "jobs")
    with listen(one) as stream:
        for number in range(300):
            publish(source, "n", f'{{"n":{number}}}', *(["poison"] if number % 50 == 0 else []))
        assert data(stream, 300) == [str(number) for number in range(300)]
    assert facts(one, "jobs")["unmappable"] == 6


def test_on_two_nodes_a_message_enters_once(source: RedisServer, redis: RedisServer, node: StartNode) -> None:
    both = [node(**settings(jobs(source, mapping("n")), relay=redis.url)) for _ in range(2)]
    holder, other = holder_and_other(both)
    wait_until(lambda: state(other, "jobs") == "ok", what="the other node at its source")
    with listen(holder) as first, listen(other) as second:
        publish(source, "n", *map(str, range(100)))
        for stream in (first, second):
            assert data(stream, 100) == [str(number) for number in range(100)]
    wait_until(lambda: facts(holder, "jobs")["published"] == 100, what="the last append")
    assert facts(other, "jobs")["received"] == 0


@pytest.mark.fault
def test_when_the_node_that_reads_is_killed_the_other_does(
    source: RedisServer, redis: RedisServer, node: StartNode, seed: int
) -> None:
    """What is published until it does may be lost, and nothing else."""
    moments = random.Random(seed)
    both = [node(**settings(jobs(source, NUMBERS), relay=redis.url)) for _ in range(2)]
    holder, other = holder_and_other(both)
    with fed(partial(RedisFeeder, source), holder, other, seed=seed) as scene:
        scene.wait_for(moments.randrange(20, 200))
        with scene.publisher.doubted():
            holder.kill()
            until_active(other, "jobs")
        scene.wait_for(50)


def test_when_the_node_that_reads_is_stopped_the_other_does_at_once(
    source: RedisServer, redis: RedisServer, node: StartNode
) -> None:
    both = [node(**settings(jobs(source, mapping("n")), relay=redis.url)) for _ in range(2)]
    holder, other = holder_and_other(both)
    wait_until(lambda: state(other, "jobs") == "ok", what="the other node at its source")
    holder.stop()
    wait_until(lambda: facts(other, "jobs")["active"], 4, "the other node")


def test_a_stop_appends_what_has_come(source: RedisServer, tmp_path: Path, node: StartNode) -> None:
    one = node(**settings(jobs(source, mapping("n")), relay="sqlite:log.db"))
    until_active(one, "jobs")
    publish(source, "n", *map(str, range(500)))
    one.stop()
    one.start()
    with listen(one, "t&last=1000") as stream:
        assert data(stream, 500) == [str(number) for number in range(500)]


@pytest.mark.fault
def test_redis_killed_and_started_again_is_found_again(source: RedisServer, node: StartNode, seed: int) -> None:
    """What is published while there is none, or nobody listens, may be lost, and nothing else."""
    moments = random.Random(seed)
    one = node(**settings(jobs(source, NUMBERS)))
    until_active(one, "jobs")
    with fed(partial(RedisFeeder, source), one, seed=seed) as scene:
        scene.wait_for(moments.randrange(20, 200))
        with scene.publisher.doubted():
            source.kill()
            wait_until(lambda: state(one, "jobs") == "Redis does not answer", what="the bridge's state")
            assert one.get("/ready")[0] == 200
            time.sleep(moments.uniform(0, 1))  # for so long there is none
            source.start()
            until_active(one, "jobs")
        scene.wait_for(50)
    assert facts(one, "jobs")["reconnects"] >= 1


def test_a_subscription_that_is_deaf_is_noticed_though_redis_answers(
    source: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        with leading_to(source) as proxy:
            direct, through = Target(source.url), Target(f"redis://127.0.0.1:{proxy.port}/0")
            # In this order a bridge connects: for its marks, for its turns, for what it listens to.
            targets = itertools.cycle([direct, direct, through])
            monkeypatch.setattr(redis_pubsub_module, "connect", lambda _: connect(next(targets)))
            hub: Any = RecordingHub()
            one = RedisPubSub("n", hub, direct, [Mapping("n", channel="main", topics=["t"])], holder="a")
            task = asyncio.ensure_future(one.run())
            await until(lambda: one.active)
            proxy.hold()
            await until(lambda: one.state == "what is published in Redis does not come back")
            proxy.heal()
            await until(lambda: one.active)
            await asyncio.to_thread(publish, source, "n", "heard")
            await until(lambda: hub.data == ["main heard"])
            assert one.counts.reconnects == 1
            await one.stop()
            await task

    with structlog.testing.capture_logs():
        run(main())


@pytest.mark.fault
def test_while_the_relay_is_away_a_bounded_number_waits(
    source: RedisServer, redis: RedisServer, node: StartNode, seed: int
) -> None:
    moments = random.Random(seed)
    one = node(**settings(jobs(source, NUMBERS) | {"max_waiting": 50}, relay=redis.url))
    until_active(one, "jobs")
    with fed(partial(RedisFeeder, source), one, seed=seed) as scene:
        scene.wait_for(moments.randrange(10, 50))
        feeder = scene.publisher
        with feeder.counted():
            redis.signal(signal.SIGSTOP)
            first, more = feeder.next, moments.randrange(1, 60)
            for _ in range(50 + more):
                feeder.publish()
            wait_until(lambda: facts(one, "jobs")["dropped"] == more, what="the bound")
            assert facts(one, "jobs")["lag"] == 50
            redis.signal(signal.SIGCONT)
            wait_until(lambda: facts(one, "jobs")["lag"] == 0, 20, "the last append")
        scene.wait_for(20)
    assert feeder.seen_of(range(first, first + 50 + more)) == list(range(first, first + 50))


def test_the_relays_own_redis_may_be_the_source(redis: RedisServer, node: StartNode) -> None:
    one = node(**settings(bridge("redis", "jobs", mapping("n")), relay=redis.url))
    until_active(one, "jobs")
    with listen(one) as stream:
        publish(redis, "n", "here")
        assert data(stream, 1) == ["here"]


def test_a_wrong_password_is_said_without_being_shown(source: RedisServer, node: StartNode) -> None:
    source.command("CONFIG", "SET", "requirepass", "right")
    wrong = bridge("redis", "wrong", mapping("n"), url=source.url, password="canary")
    right = bridge("redis", "right", mapping("n"), url=source.url.replace("//", "//:right@"))
    one = node(**settings(wrong, right))
    wait_until(lambda: "refuses" in state(one, "wrong"), what="the bridge's state")
    until_active(one, "right")
    assert "canary" not in one.log() + json.dumps(facts(one, "wrong"))


# --- turns


class Sitting:
    """Counts who is in a turn, over all."""

    def __init__(self) -> None:
        self.now: list[str] = []
        self.most = 0

    async def take(self, name: str) -> None:
        self.now.append(name)
        self.most = max(self.most, len(self.now))
        try:
            await asyncio.Event().wait()
        finally:
            self.now.remove(name)


def test_one_at_a_time_has_the_turn_and_a_stop_passes_it_on(source: RedisServer) -> None:
    async def main() -> None:
        sitting = Sitting()
        stops = [asyncio.Event() for _ in range(4)]
        tasks = []
        for number, stopping in enumerate(stops):
            turns = RedisTurns(lambda: connect(Target(source.url)), "test", "turn", str(number))
            work = _until(stopping, sitting, str(number))
            tasks.append(asyncio.ensure_future(turns.taken(stopping, work)))
        order = []
        while len(order) < 4:
            await until(lambda: sitting.now)
            order.append(sitting.now[0])
            stops[int(order[-1])].set()
            await tasks[int(order[-1])]
        assert sorted(order) == ["0", "1", "2", "3"]
        assert sitting.most == 1

    with structlog.testing.capture_logs():
        run(main())


def _until(stopping: asyncio.Event, sitting: Sitting, name: str) -> Any:
    async def work() -> None:
        task = asyncio.ensure_future(sitting.take(name))
        try:
            await stopping.wait()
        finally:
            task.cancel()
            await asyncio.wait((task,))

    return work


def test_who_cannot_renew_stops_before_another_begins(source: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "LEASE_SECONDS", 2.0)
    monkeypatch.setattr(turns_module, "MARGIN_SECONDS", 0.7)
    monkeypatch.setattr(turns_module, "RENEW_SECONDS", 0.3)

    async def main() -> None:
        sitting = Sitting()
        with leading_to(source) as proxy:
            cut_off = RedisTurns(
                lambda: connect(Target(f"redis://127.0.0.1:{proxy.port}/0")), "test", "turn", "cut off"
            )
            other = RedisTurns(lambda: connect(Target(source.url)), "test", "turn", "other")
            never = asyncio.Event()
            first = asyncio.ensure_future(cut_off.taken(never, lambda: sitting.take("cut off")))
            await until(lambda: sitting.now == ["cut off"])
            second = asyncio.ensure_future(other.taken(never, lambda: sitting.take("other")))
            await asyncio.sleep(3)  # longer than a lease: it is renewed
            assert sitting.now == ["cut off"]
            proxy.hold()
            await until(lambda: sitting.now == ["other"])
            assert sitting.most == 1
            with pytest.raises(SourceLost):
                await first
            second.cancel()
            await asyncio.wait((second,))

    with structlog.testing.capture_logs():
        run(main())
