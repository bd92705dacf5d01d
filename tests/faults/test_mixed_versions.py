"""An upgrade, node by node: logs that earlier releases wrote, their cursors, and entries of releases to come.

What earlier releases wrote is recorded (recorded/README.md): their log is put back, and today's node opens it.
"""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.faults.recorded.log_of_a_release import HERE, KEY, KEYED, PATH, RETAINED, post
from tests.faults.test_redis_faults import over_redis, relay_of
from tests.faults.witnesses import Scene
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream
from tests.threats.conftest import finish
from tests.threats.tokens import bearer, signed

FACTS, STREAM, IDS = (f"{{ringcast:main}}:{name}" for name in ("facts", "events", "ids"))
RECORDED = ["redis-first", "redis-before", "sqlite-first", "sqlite-before"]
HOUR_MS = 3_600_000
SETTINGS: dict[str, Any] = {
    "jwt_secret": TOKEN_SECRET,
    "retain_events": RETAINED,
    "retain_seconds": 0,
    "idempotency_seconds": 3600,
}
Fields = list[tuple[str, str]]


class Recorded:
    """What was recorded, and a node of today over it. `seen` are the blocks that a reader had then, oldest first."""

    def __init__(self, name: str, node: Node, redis: RedisServer | None) -> None:
        written = read(name)
        self.node, self.redis = node, redis
        self.hello: str = written["hello"]
        self.seen: list[Fields] = [[(key, value) for key, value in block] for block in written["events"]]
        self.retained = self.seen[-RETAINED:]

    def stream(self, cursor: str) -> Stream:
        return Stream(self.node.port, PATH, Authorization=bearer(signed()), Last_Event_ID=cursor)

    def resumed(self, cursor: str, count: int) -> list[Fields]:
        """The first blocks behind a cursor."""
        with self.stream(cursor) as stream:
            return [block.fields for block in stream.events(count)]


def read(name: str) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return written


def put_into_redis(server: RedisServer, keys: dict[str, Any]) -> None:
    """As if this Redis had had them all the time."""
    with Redis(port=server.port, decode_responses=True, protocol=2) as client:
        for key, one in keys.items():
            value = one["value"]
            if one["type"] == "hash":
                client.hset(key, mapping=value)
            elif one["type"] == "stream":
                for stream_id, fields in value:
                    client.xadd(key, fields, id=stream_id)
            else:
                client.set(key, value, px=HOUR_MS)
        if client.hexists(FACTS, "run"):
            client.hset(FACTS, "run", str(client.info("server")["run_id"]))


def put_into_file(path: Path, statements: list[str]) -> None:
    """As if it had been written a moment ago."""
    connection = sqlite3.connect(path)
    connection.executescript("\n".join(statements))
    connection.execute("UPDATE keys SET expires_us = ?", (round((time.time() + 3600) * 1e6),))
    connection.commit()
    connection.close()


@contextmanager
def today_over(name: str, folder: Path) -> Iterator[Recorded]:
    written, server, relay = read(name), None, f"sqlite:{folder / 'log.db'}"
    if "keys" in written:
        server = RedisServer(folder).start()
        relay = server.url
        put_into_redis(server, written["keys"])
    else:
        put_into_file(folder / "log.db", written["sql"])
    node = Node(folder, relay=relay, drain_seconds=0, **SETTINGS)
    try:
        yield Recorded(name, node.start(), server)
        finish(node)
    finally:
        if server is not None:
            server.stop()


@pytest.fixture(params=RECORDED)
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Recorded]:
    with today_over(request.param, tmp_path) as one:
        yield one


@pytest.fixture(params=[name for name in RECORDED if name.startswith("redis")])
def recorded_redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Recorded]:
    with today_over(request.param, tmp_path) as one:
        yield one


def id_of(block: Fields) -> str:
    return dict(block)["id"]


def test_a_reader_goes_on_with_the_cursor_that_an_earlier_release_gave_it(recorded: Recorded) -> None:
    """FLT-28: from each event that is retained, byte by byte what its release would have sent; nothing is declared."""
    epoch = recorded.hello[:6]
    places = [place for place, block in enumerate(recorded.retained) if id_of(block).startswith(f"{epoch}-")]
    assert len(places) > RETAINED / 2
    for place in places:
        following = recorded.retained[place + 1 :]
        assert recorded.resumed(id_of(recorded.retained[place]), len(following)) == following
    with recorded.stream(id_of(recorded.retained[-1])) as stream:
        assert json.loads(stream.next_event().data or "")["complete"] is True


def test_what_an_earlier_release_had_dropped_is_declared(recorded: Recorded) -> None:
    """FLT-28: the cursor that its reader began with, and `earliest`."""
    gap, *others = recorded.resumed(recorded.hello, 1 + RETAINED)
    facts = json.loads(dict(gap)["data"])
    assert (facts["reason"], facts["from"]) == ("history", recorded.hello)
    assert others == recorded.retained
    assert recorded.resumed("earliest", RETAINED) == recorded.retained


def test_the_log_of_an_earlier_release_goes_on(recorded: Recorded) -> None:
    """FLT-28: same epoch, ids that increase, own ids, and retention that drops entries of both forms."""
    cursor = id_of(recorded.retained[-1])
    with recorded.stream(cursor) as stream:
        new = [post(recorded.node.port, [{"topic": "t", "data": f"today {n}"}])[0] for n in range(RETAINED - 5)]
        post(recorded.node.port, [{"topic": "t", "data": "own", "id": "today's own"}])
        assert [block.id for block in stream.events(len(new) + 1)] == [*new, "today's own"]
    assert [wire_id[:6] for wire_id in new] == [cursor[:6]] * len(new)
    assert sorted({cursor, *new}) == [cursor, *new]
    assert [id_of(block) for block in recorded.resumed(cursor, len(new) + 1)] == [*new, "today's own"]
    last = post(recorded.node.port, [{"topic": "t", "data": "the last"}])
    assert [id_of(block) for block in recorded.resumed("today's own", 1)] == last
    wait_until(
        lambda: recorded.resumed("earliest", 1)[0] in recorded.retained[-4:], 5, "what is over the bound dropped"
    )
    assert relay_of(recorded.node).get("damaged", 0) == 0


@pytest.mark.parametrize("name", ["redis-before", "sqlite-before"])
def test_a_publisher_that_repeats_over_the_upgrade_publishes_once(name: str, tmp_path: Path) -> None:
    """FLT-28: its key counts on."""
    with today_over(name, tmp_path) as one, one.stream(id_of(one.retained[-1])) as stream:
        assert post(one.node.port, [KEYED], KEY) == ["keyed"]
        last = post(one.node.port, [{"topic": "t", "data": "the next"}])
        assert [block.id for block in stream.events(1)] == last


@pytest.mark.parametrize("name", ["sqlite-first", "sqlite-before"])
def test_a_publishers_own_id_of_an_earlier_release_is_found_in_a_file(name: str, tmp_path: Path) -> None:
    """FLT-28: everything behind its earliest occurrence."""
    with today_over(name, tmp_path) as one:
        for own in ("own-1", "batch 2"):
            place = next(place for place, block in enumerate(one.retained) if id_of(block) == own)
            following = one.retained[place + 1 :]
            assert one.resumed(own, len(following)) == following


def test_a_publishers_own_id_that_redis_keeps_in_a_form_of_the_past_is_unknown_and_that_is_declared(
    recorded_redis: Recorded,
) -> None:
    """FLT-28: the reader gets all that is retained behind a gap. With the release goes the key that its ids are in."""
    gap, *others = recorded_redis.resumed("own-1", 1 + RETAINED)
    assert (dict(gap)["event"], json.loads(dict(gap)["data"])["reason"]) == ("gap", "unknown")
    assert others == recorded_redis.retained
    assert recorded_redis.redis is not None
    lapses_ms = int(recorded_redis.redis.command("PTTL", IDS)[1:])
    assert 0 < lapses_ms <= HOUR_MS


EVENT = [["witness"], "message", None, None, False, "0"]
# Payloads of releases that are not written yet, none of which this one may take for an event of its own.
LATER = [
    [*EVENT, [52.5, 13.4], {"only_for": "some"}],
    [*EVENT, None],
    [*EVENT, [52.5, 13.4, 100.0]],
    EVENT[:5],
    [*EVENT[:4], "who", *EVENT[5:], "more"],
]


def test_events_of_a_later_release_are_counted_and_declared_and_no_tail_dies(tmp_path: Path, seed: int) -> None:
    """FLT-28: under load, on both nodes. What one does not understand may say who must not have the event."""
    rng = random.Random(seed)
    with over_redis(tmp_path) as site, Scene(*site.ports) as scene:
        connections = [relay_of(node)["tail_connections"] for node in site.nodes]
        for count, payload in enumerate(rng.sample(LATER, len(LATER)), 1):
            scene.wait_for(rng.randrange(10, 60))
            assert site.redis.command("XADD", STREAM, "*", "e", json.dumps(payload), "s", "60").endswith(b"-1")
            for node in site.nodes:  # a replay that comes by counts it too
                wait_until(lambda node=node, count=count: relay_of(node)["damaged"] >= count, 10, "it is counted")  # type: ignore[misc]
            assert site.ready(True)
        scene.wait_for(30)
        assert [relay_of(node)["tail_connections"] for node in site.nodes] == connections
    assert scene.history.problems(needless_gaps=True) == []
    for log in scene.history.seen.values():
        assert [json.loads(entry.id)["reason"] for entry in log if entry.gap] == ["damaged"] * len(LATER)


def test_what_a_later_release_notes_beside_an_event_keeps_nobody_from_it(recorded_redis: Recorded) -> None:
    """FLT-28: a field of the entry that is not known, as the name of the entry before was once: the event is whole."""
    server = recorded_redis.redis
    assert server is not None
    with recorded_redis.stream(id_of(recorded_redis.retained[-1])) as stream:
        for number in range(3):
            event = json.dumps([["t"], None, None, None, False, f"noted {number}"])
            position = str(time.time_ns() // 1000)
            assert server.command("HSET", FACTS, "last", position, "high", position) == b":0"
            server.command("XADD", STREAM, f"{position}-0", "e", event, "s", "60", "noted", "1", "v", "2")
            assert stream.events(1)[0].data == f"noted {number}"
        last = post(recorded_redis.node.port, [{"topic": "t", "data": "the next"}])
        assert stream.events(1)[0].id == last[0]
    assert relay_of(recorded_redis.node)["damaged"] == 0
