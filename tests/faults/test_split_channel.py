"""A channel that is split into shards, on two nodes: to clients it is one channel, with one order and one cursor."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import pytest

from ringcast import RedisPublisher, make_event
from server.shards import shards_of
from tests.faults.witnesses import Attempt, Scene
from tests.harness.process import Node, wait_until
from tests.harness.proxy import Proxy
from tests.harness.redis import RedisServer
from tests.harness.stream import Block
from tests.threats.conftest import finish_all

EVENTS = "/channels/main/events"
SHARDS = 4
TOPICS = [f"t/{number}" for number in range(12)]
A, B = TOPICS[0], next(topic for topic in TOPICS if shards_of([topic], SHARDS) != shards_of(TOPICS[:1], SHARDS))
Start = Callable[..., list[Node]]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, appendonly="yes", appendfsync="always").start()
    yield server
    server.stop()


@pytest.fixture
def link(redis: RedisServer) -> Iterator[Proxy]:
    """To Redis."""
    proxy = Proxy(redis.port).start()
    yield proxy
    proxy.stop()


@pytest.fixture
def split(redis: RedisServer, tmp_path: Path) -> Iterator[Start]:
    """Starts nodes whose main channel is split."""
    started: list[Node] = []

    def start(count: int = 2, **settings: object) -> list[Node]:
        channels = json.dumps({"main": {"shards": SHARDS}})
        common = {"relay": redis.url, "drain_seconds": 0, "channels": channels} | settings
        several = [Node(tmp_path, **common) for _ in range(count)]
        started.extend(several)
        return [node.start() for node in several]

    yield start
    finish_all(started)


def publish(node: Node, data: str, *topics: str) -> str:
    """Publish one event; its id."""
    body = json.dumps({"topics": topics, "data": data})
    status, _, answer = node.request("POST", EVENTS, body, Content_Type="application/json")
    assert status == 200, answer
    wire_id: str = json.loads(answer)["ids"][0]
    return wire_id


def path_of(*topics: str, **fields: object) -> str:
    return f"{EVENTS}?{urlencode([*[('topic', topic) for topic in topics], *fields.items()])}"


def followed(node: Node) -> list[int]:
    shards: list[int] = json.loads(node.get("/stats")[2])["channels"]["main"]["shards_followed"]
    return shards


def data_until(stream: Attempt, last: str) -> list[tuple[str, str]]:
    """Ids and data of the events up to one; a gap fails."""
    seen = []
    while not seen or seen[-1][1] != last:
        event = stream.next_event(10)
        assert event.type in ("hello", "message"), event.type
        if event.type == "message":
            seen.append((event.id or "", event.data))
    return seen


def test_a_node_follows_the_shards_that_it_has_readers_for(split: Start) -> None:
    first, second = split()
    assert followed(second) == []
    with Attempt(second.port, path_of(A)) as stream:
        assert stream.next_event(5).type == "hello"
        assert followed(second) == list(shards_of([A], SHARDS))
        publish(first, "elsewhere", B)
        wire_id = publish(first, "here", A)
        event = stream.next_event(5)
        assert (event.id, event.data) == (wire_id, "here")
    with Attempt(second.port, path_of("*")) as stream:
        assert stream.next_event(5).type == "hello"
        assert followed(second) == list(range(SHARDS))
    assert followed(first) == []


def test_a_cursor_is_good_for_any_selection_on_any_node(split: Start, seed: int) -> None:
    chance = random.Random(seed)
    nodes = split()
    ids = [publish(nodes[number % 2], str(number), chance.choice([A, B])) for number in range(40)]
    with Attempt(nodes[0].port, path_of("*"), Last_Event_ID=ids[9]) as stream:
        seen = data_until(stream, "39")
        assert [wire_id for wire_id, _ in seen] == ids[10:]
    for topic in (A, B):
        last = publish(nodes[0], f"last {topic}", topic)
        for node in nodes:
            with Attempt(node.port, path_of(topic), Last_Event_ID=ids[9]) as stream:
                mine = data_until(stream, f"last {topic}")
                assert mine[-1][0] == last
                assert {wire_id for wire_id, _ in mine[:-1]} <= set(ids[10:])
                assert mine == sorted(mine)


def test_the_last_few_are_there_for_the_first_reader_of_a_shard(split: Start) -> None:
    first, second = split()
    for number in range(20):
        publish(first, str(number), A, *([B] if number % 2 else []))
    with Attempt(second.port, path_of(B, last=3)) as stream:
        assert [data for _, data in data_until(stream, "19")] == ["15", "17", "19"]
    with Attempt(second.port, path_of(A, last=3)) as stream:
        assert [data for _, data in data_until(stream, "19")] == ["17", "18", "19"]


def test_readers_that_come_at_any_moment_see_their_topics_whole(split: Start, seed: int) -> None:
    """FLT-25: selections of one, two and all topics join with and without cursors while events pour in, so that shards
    are followed one after the other; each sees what it selects after its cursor, in order and once."""
    chance = random.Random(seed)
    nodes = split()
    log: list[tuple[str, str, tuple[str, ...]]] = []
    done = threading.Event()

    def pour() -> None:
        while not done.is_set():
            topics = tuple(chance.sample(TOPICS, chance.choice([1, 1, 1, 2])))
            log.append((publish(nodes[len(log) % 2], str(len(log)), *topics), str(len(log)), topics))

    thread = threading.Thread(target=pour, daemon=True)
    thread.start()
    opened: list[tuple[Attempt, tuple[str, ...], str]] = []
    try:
        for number in range(24):
            goal = len(log) + 8
            wait_until(lambda goal=goal: len(log) >= goal, 10)  # type: ignore[misc]
            topics = tuple(chance.sample(TOPICS, chance.choice([1, 1, 2])) if number % 6 else ["*"])
            since = chance.choice(log[: len(log) - 2])[0]
            opened.append((Attempt(nodes[number % 2].port, path_of(*topics), Last_Event_ID=since), topics, since))
    finally:
        done.set()
        thread.join(10)
    publish(nodes[0], "last", *TOPICS)
    for stream, topics, since in opened:
        with stream:
            wanted = [
                wire_id for wire_id, _, of in log if wire_id > since and (topics == ("*",) or set(topics) & set(of))
            ]
            assert [wire_id for wire_id, _ in data_until(stream, "last")[:-1]] == wanted


def test_kill_nine_of_nodes_and_of_redis_loses_nothing(split: Start, redis: RedisServer, seed: int) -> None:
    """FLT-02, FLT-09 for a split channel: the subscribers go to another node, whose shard may not be followed yet."""
    chance = random.Random(seed)
    nodes = split(3)
    with Scene(*[node.port for node in nodes], subscribers=6) as scene:
        for node in chance.sample(nodes, 3):
            scene.wait_for(chance.randrange(10, 70))
            node.kill()
            scene.broken(node.port)
            scene.carried_on()
            scene.wait_for(chance.randrange(10, 70))
            node.start()
            scene.healed()
        redis.kill()
        scene.broken(*[node.port for node in nodes])
        wait_until(lambda: all(node.get("/ready")[0] == 503 for node in nodes), 10, "readiness told of it")
        redis.start()
        scene.healed()
        scene.wait_for(40, 30)
    assert scene.history.problems() == []
    assert not any(entry.gap for seen in scene.history.seen.values() for entry in seen)


def test_who_comes_while_a_node_reads_on_behind_a_hole_gets_all_that_is_kept(
    split: Start, redis: RedisServer, link: Proxy
) -> None:
    """FLT-14: a node that stood still has one shard to read that is whole, and one that has lost its beginning further
    on. Whoever comes meanwhile is told once, of all that is missing, and gets the rest, whichever of it comes live.
    """
    kept = 1_500
    (node,) = split(
        1, relay=f"redis://127.0.0.1:{link.port}/0", retain_events=kept * SHARDS, lag_events=100_000, lag_bytes=1 << 30
    )
    cursor = publish(node, "first", A)
    with contextlib.ExitStack() as opened, closing(RedisPublisher(redis.url, shards=SHARDS)) as publisher:
        streams = [opened.enter_context(Attempt(node.port, path_of(A, B)))]
        assert streams[0].next_event().type == "hello"
        os.kill(node.pid, signal.SIGSTOP)
        whole = [one for _ in range(2) for one in publisher.publish_many([make_event(B, "b")] * 500)]
        part = [one for _ in range(5) for one in publisher.publish_many([make_event(A, "a")] * 500)]
        link.bytes_a_second = 250_000
        os.kill(node.pid, signal.SIGCONT)
        for _ in range(8):
            streams.append(opened.enter_context(Attempt(node.port, path_of(A, B), Last_Event_ID=cursor)))
            time.sleep(0.1)
        link.bytes_a_second = 0
        end = publish(node, "end", B)
        for stream in streams:
            seen: list[Block] = []
            while not seen or seen[-1].id != end:
                seen.append(stream.next_event())
            ids = [event.id for event in seen if event.type == "message"]
            missing = part[: len(whole) + len(part) + 1 - len(ids)]
            assert ids == [*whole, *part[len(missing) :], end]
            assert len(missing) == len(part) - kept
            [gap] = [json.loads(event.data or "") for event in seen if event.type == "gap"]
            assert (gap["from"] or "") < missing[0]
            assert missing[-1] <= gap["to"]


def test_while_redis_is_away_a_reader_of_a_new_shard_is_asked_back(split: Start, redis: RedisServer, seed: int) -> None:
    """Nobody can tell it what is in there; those that are there stay."""
    _, node = split(heartbeat_seconds=1)
    with Attempt(node.port, path_of(A)) as stays:
        assert stays.next_event(5).type == "hello"
        redis.kill()
        with Attempt(node.port, path_of(B)) as stream:
            assert stream.status == 200
            assert stream.next_event(10).type == "unavailable"
        time.sleep(random.Random(seed).uniform(0, 2))  # for so long it stays away
        redis.start()
        body = json.dumps({"topics": (A, B), "data": "on"})
        headers = {"Content_Type": "application/json", "Idempotency_Key": "on"}
        wait_until(lambda: node.request("POST", EVENTS, body, **headers)[0] == 200, 20, "a publish taken again")
        assert data_until(stays, "on")
