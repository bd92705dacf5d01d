"""What the contract says of nodes over one Redis when the Redis itself is full, away, empty, or lost to a replica.

Each test has a Redis of its own and two nodes on it. Faults under load, judged by a checker, are in tests/faults.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.contract.client import Answer, Channel, control, until
from tests.contract.conftest import StartChannel
from tests.harness.process import wait_until
from tests.harness.proxy import Proxy
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream

KEY = "order-7/attempt"


class StartRedis(Protocol):
    """`start_redis(appendonly="yes")` starts a Redis with these lines of configuration."""

    def __call__(self, **options: str) -> RedisServer: ...


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[StartRedis]:
    started: list[RedisServer] = []

    def start(**options: str) -> RedisServer:
        started.append(RedisServer(tmp_path, **options))
        return started[-1].start()

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def proxies() -> Iterator[list[Proxy]]:
    """Proxies put in here are stopped at the end."""
    started: list[Proxy] = []
    yield started
    for proxy in started:
        proxy.stop()


def through(proxies: list[Proxy], target: int) -> Proxy:
    """A proxy to this port."""
    proxies.append(Proxy(target).start())
    return proxies[-1]


def wait_ready(c: Channel, ready: bool = True) -> None:
    """Until every node says that it is ready, or that it is not."""
    status = 200 if ready else 503
    wait_until(lambda: all(node.get("/ready")[0] == status for node in c.nodes), 20, f"/ready to answer {status}")


def retained(c: Channel, last: str | None) -> list[str | None]:
    """The data of every retained event up to one with this data; nothing is published for it."""
    with c.stream("last_event_id=earliest") as stream:
        found: list[str | None] = []
        while not found or found[-1] != last:
            event = stream.next_event()
            if event.type == "message":
                found.append(event.data)
        return found


def assert_told(answer: Answer, status: int, code: str) -> None:
    """A refusal with a time to come back."""
    assert answer.status == status, answer
    assert answer.fields["code"] == code
    assert int(answer.headers["retry-after"]) > 0


def test_a_full_redis_refuses_publishers_and_serves_readers(channel: StartChannel, start_redis: StartRedis) -> None:
    """1.7, 1.5: 503 with a time to come back; live readers and replays go on; with room again all works."""
    redis = start_redis()
    c = channel(relay=redis.url, nodes=2)
    first, second = c.each()
    live, publisher = second.stream(), first.publisher()
    ids = [publisher.publish("before")]
    redis.command("CONFIG", "SET", "maxmemory", str(int(redis.facts("INFO", "memory")["used_memory"]) + (1 << 20)))
    for number in range(2000):
        answer = publisher.offer({"data": f"{number} " + "x" * 4000})
        if answer.status != 200:
            break
        ids += answer.ids
    assert_told(answer, 503, "unavailable")
    assert_told(publisher.offer({"data": "x" * 500_000}), 503, "unavailable")
    assert [event.id for event in live.events(len(ids))] == ids
    for node in (first, second):
        assert [event.id for event in node.stream(f"last_event_id={ids[0]}").events(len(ids) - 1)] == ids[1:]
    redis.command("CONFIG", "SET", "maxmemory", "0")
    wait_until(lambda: publisher.offer({"data": "after"}).status == 200, 10, "a publish after there was room again")
    assert live.next_event().data == "after"
    assert [event.id for event in c.history()][: len(ids)] == ids


class Failover:
    """A master with a replica behind a proxy, and a proxy before the master that the nodes use."""

    def __init__(self, start_redis: StartRedis, proxies: list[Proxy]) -> None:
        self.master = start_redis(repl_diskless_sync_delay="0")
        self.between = through(proxies, self.master.port)
        self.replica = start_redis(replicaof=f"127.0.0.1 {self.between.port}")
        self.before = through(proxies, self.master.port)
        wait_until(lambda: self.master.command("WAIT", "1", "100") == b":1", 20, "the replica in sync")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.before.port}/0"

    def happen(self) -> None:
        """The master dies, the replica is promoted, and the nodes are led to it."""
        self.master.kill()
        assert self.replica.command("REPLICAOF", "NO", "ONE") == b"+OK"
        self.before.lead_to(self.replica.port)


def test_with_replicas_an_acknowledgement_outlives_the_master(
    channel: StartChannel, start_redis: StartRedis, proxies: list[Proxy]
) -> None:
    """1.10, 3.11: what a replica did not get was not acknowledged, and what was acknowledged is there when it is
    promoted; that something is gone is said on both nodes.
    """
    failover = Failover(start_redis, proxies)
    c = channel(relay=failover.url, nodes=2, redis_replicas=1, redis_replicas_seconds=1.5)
    streams = [node.stream() for node in c.each()]
    acknowledged = [str(number) for number in range(20)]
    for data in acknowledged:
        c.publish(data)
    failover.between.hold()
    assert_told(c.offer({"data": "lost"}), 504, "uncertain")
    for stream in streams:
        assert [event.data for event in stream.events(21)] == [*acknowledged, "lost"]
    failover.happen()
    for stream in streams:
        kind, facts = control(stream, 20)
        assert (kind, facts["reason"]) == ("gap", "epoch")
    wait_ready(c)
    for node in c.each():
        assert retained(node, acknowledged[-1]) == acknowledged


def test_an_answer_that_leaves_it_open_is_settled_by_the_key(
    channel: StartChannel, start_redis: StartRedis, proxies: list[Proxy]
) -> None:
    """1.10, 5.7: as long as too few replicas have the event there is no acknowledgement, on whichever node it is asked
    for; then there is one, of the one event.
    """
    failover = Failover(start_redis, proxies)
    c = channel(relay=failover.url, nodes=2, redis_replicas=1, redis_replicas_seconds=0.2)
    failover.between.hold()
    for _ in range(4):
        assert_told(c.offer({"data": "once"}, Idempotency_Key=KEY), 504, "uncertain")
    failover.between.heal()
    answers: list[Answer] = []

    def acknowledged() -> bool:
        answers.append(c.offer({"data": "once"}, Idempotency_Key=KEY))
        return answers[-1].status == 200

    wait_until(acknowledged, 20, "an acknowledgement")
    assert answers[-1].headers["idempotency-replayed"] == "true"
    assert [event.id for event in c.history()] == answers[-1].ids


def test_cursors_of_a_log_that_redis_lost_get_a_gap_on_every_node(
    channel: StartChannel, start_redis: StartRedis
) -> None:
    """3.11: whoever was connected is told once, whoever comes back with a cursor of the old epoch is told too."""
    redis = start_redis()
    c = channel(relay=redis.url, nodes=2)
    ids = [c.publish(number) for number in range(5)]
    streams = [node.stream(f"last_event_id={ids[-1]}") for node in c.each()]
    assert [control(stream)[1]["complete"] for stream in streams] == [True, True]
    redis.kill()
    redis.start()
    wait_ready(c)
    for stream in streams:
        kind, facts = control(stream)
        assert (kind, facts["reason"]) == ("gap", "epoch")
    new = c.publish("new")
    assert new.split("-")[0] != ids[0].split("-")[0]
    assert [stream.next_event().id for stream in streams] == [new, new]
    for node, cursor in itertools.product(c.each(), (ids[0], ids[-1])):
        with node.stream(Last_Event_ID=cursor) as stream:
            assert control(stream)[1]["complete"] is False
            kind, facts = control(stream)
            assert (kind, facts["reason"], facts["from"]) == ("gap", "epoch", cursor)
            assert stream.next_event().id == new


def test_nothing_of_a_log_that_redis_lost_is_replayed(channel: StartChannel, start_redis: StartRedis) -> None:
    """3.11: not a page of it that the node has read a moment ago, though the new log begins where the old one did."""
    redis = start_redis()
    c = channel(relay=redis.url, ring_events=50)
    for _ in range(5):
        old = c.publish_all([{"data": "old"}] * 500)
        with c.stream("last_event_id=earliest") as stream:
            until(stream, old[-1])
        redis.command("FLUSHALL")
        new = c.publish("new")
        with c.stream(Last_Event_ID=f"{old[0].split('-')[0]}-{0:013x}") as stream:
            assert [control(stream)[0] for _ in range(2)] == ["hello", "gap"]
            assert stream.next_event().id == new


def beats(stream: Stream, count: int) -> None:
    """That many heartbeats come, and nothing else."""
    blocks = [stream.next_block(5) for _ in range(count)]
    assert [block and block.data for block in blocks] == [None] * count


def test_while_the_log_does_not_answer_nobody_is_stranded(channel: StartChannel, start_redis: StartRedis) -> None:
    """9.1, 9.2, 9.8: who is there stays, with heartbeats; who comes and can't be served without the log is asked to
    come back; all goes on where it was.
    """
    redis = start_redis(appendonly="yes", appendfsync="always")
    c = channel(relay=redis.url, nodes=2, heartbeat_seconds=0.5)
    before = c.publish("before")
    streams = [node.stream() for node in c.each()]
    assert [control(stream)[0] for stream in streams] == ["hello", "hello"]
    redis.kill()
    wait_ready(c, False)
    for node, stream in zip(c.each(), streams, strict=True):
        assert_told(node.offer({"data": "refused"}), 503, "unavailable")
        came = node.beside(name="unknown-to-the-node").stream()
        assert (came.status, came.headers["content-type"]) == (200, "text/event-stream")
        [farewell] = [block for block in came.wait_end() if block.data is not None]
        assert (farewell.type, json.loads(farewell.data or "")["reconnect"]) == ("unavailable", True)
        assert int(farewell.get("retry") or "") > 0
        other = Answer(*node.node.get("/channels/unknown-to-the-node/events"))
        assert_told(other, 503, "unavailable")
        with node.stream(Last_Event_ID=before) as resumed:
            assert control(resumed)[1]["complete"] is True
        beats(stream, 2)
    redis.start()
    wait_ready(c)
    after = c.publish("after")
    for stream in streams:
        assert stream.next_event().id == after
    assert [event.id for event in c.history()] == [before, after]
