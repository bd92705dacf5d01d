"""Publishing from other processes: over HTTP and straight into Redis."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ringcast import InvalidEvent, Publisher, PublishFailed, RedisPublisher, make_event, publish
from server.relay.protocol import KeyConflict
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream
from tests.threats.conftest import finish
from tests.threats.tokens import signed

EVENTS = "/channels/main/events"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def node(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    one = Node(tmp_path_factory.mktemp("node"), relay=redis.url, drain_seconds=0).start()
    yield one
    finish(one)


def test_an_event_published_over_http_arrives_with_all_its_fields(node: Node) -> None:
    with Publisher(node.url) as publisher, Stream(node.port, EVENTS + "?topic=items/1") as stream:
        assert stream.next_event().type == "hello"
        wire_id = publisher.publish("items/1", {"high": 1203, "name": "ü"}, type="price", retry_ms=7)
        event = stream.next_event()
        assert (event.id, event.type, json.loads(event.data)) == (wire_id, "price", {"high": 1203, "name": "ü"})
        ids = publisher.publish_many([make_event("items/1", str(number), id=f"own-{number}") for number in range(3)])
        assert ids == [stream.next_event().id for _ in range(3)] == ["own-0", "own-1", "own-2"]
        assert publisher.publish_many([]) == []


def test_an_event_with_a_place_reaches_who_selects_the_region(node: Node, redis: RedisServer) -> None:
    here, far = (52.52, 13.405), (-33.86, 151.2)
    region = EVENTS + "?lat=52.5&lon=13.4&radius=25"
    with (
        Publisher(node.url) as publisher,
        closing(RedisPublisher(redis.url, within_seconds=5)) as directly,
        Stream(node.port, region) as stream,
    ):
        assert stream.next_event().type == "hello"
        for number, way in enumerate((publisher, directly)):
            way.publish("t", "far", location=far)
            way.publish_many([make_event("t", f"here {number}", location=here)])
            assert stream.next_event().data == f"here {number}"
        with pytest.raises(InvalidEvent, match=r"location\.latitude"):
            publisher.publish("t", "x", location=(91.0, 0.0))


def test_one_call_is_enough_for_one_event(node: Node) -> None:
    assert publish(node.url, "t", "x")


def test_the_same_key_publishes_once(node: Node) -> None:
    with Publisher(node.url) as publisher:
        first = publisher.publish("t", "once", key="k-http")
        assert publisher.publish("t", "once", key="k-http") == first
        with pytest.raises(PublishFailed, match="Idempotency-Key"):
            publisher.publish("t", "another", key="k-http")


def test_what_is_no_event_is_an_error_before_anything_is_sent() -> None:
    with Publisher("http://127.0.0.1:1") as publisher:
        with pytest.raises(InvalidEvent, match="topic"):
            publisher.publish("", "x")
        with pytest.raises(TypeError):
            publisher.publish("t", object())


def test_a_refusal_is_final_and_says_why(tmp_path: Path) -> None:
    keyed = Node(tmp_path, jwt_secret=TOKEN_SECRET, drain_seconds=0).start()
    try:
        token = signed({"mercure": {"publish": ["only/this"]}})
        with Publisher(keyed.url, token=token) as publisher:
            assert publisher.publish("only/this", "x")
            with pytest.raises(PublishFailed, match="403"):
                publisher.publish("that", "x")
    finally:
        finish(keyed)


def test_a_node_that_is_away_is_tried_again_until_it_is_back(tmp_path: Path) -> None:
    away = Node(tmp_path, drain_seconds=0)
    notes: list[str] = []
    starting = threading.Timer(0.5, away.start)
    starting.start()
    try:
        with Publisher(away.url, note=notes.append) as publisher:
            assert publisher.publish("t", "x")
        assert notes
    finally:
        starting.join()
        finish(away)


def test_an_event_appended_in_redis_arrives_like_any_other(node: Node, redis: RedisServer) -> None:
    publisher = RedisPublisher(redis.url)
    with Stream(node.port, EVENTS + "?topic=jobs/7") as stream:
        assert stream.next_event().type == "hello"
        wire_id = publisher.publish("jobs/7", {"progress": 10}, type="job")
        event = stream.next_event()
        assert (event.id, event.type, json.loads(event.data)) == (wire_id, "job", {"progress": 10})
        ids = publisher.publish_many([make_event("jobs/7", str(number)) for number in range(3)])
        assert ids == [stream.next_event().id for _ in range(3)]
    assert publisher.publish_many([]) == []
    publisher.close()


def test_a_key_counts_in_redis_too(node: Node, redis: RedisServer) -> None:
    publisher = RedisPublisher(redis.url)
    first = publisher.publish("t", "once", key="k")
    assert publisher.publish("t", "once", key="k") == first
    with pytest.raises(KeyConflict):
        publisher.publish("t", "another", key="k")
    publisher.close()


def test_a_channel_that_no_node_has_opened_yet_is_begun(redis: RedisServer, node: Node) -> None:
    publisher = RedisPublisher(redis.url, channel="later", shards=1)
    wire_id = publisher.publish("t", "first")
    with Stream(node.port, "/channels/later/events", Last_Event_ID="earliest") as stream:
        assert stream.next_event().type == "hello"
        assert stream.next_event().id == wire_id
    publisher.close()


def test_a_channel_is_not_begun_by_one_who_does_not_know_its_shards(redis: RedisServer) -> None:
    publisher = RedisPublisher(redis.url, channel="unknown", within_seconds=0.3)
    with pytest.raises(PublishFailed, match="not open"):
        publisher.publish("t", "first")
    publisher.close()


def test_a_redis_that_is_away_is_tried_for_as_long_as_was_said(tmp_path: Path) -> None:
    server = RedisServer(tmp_path).start()
    publisher = RedisPublisher(server.url, within_seconds=1)
    server.stop()
    began = time.monotonic()
    with pytest.raises(PublishFailed, match="redis does not answer"):
        publisher.publish("t", "x")
    assert time.monotonic() - began < 5
    publisher.close()


def test_an_event_is_published_in_redis_once_so_many_replicas_have_it(redis: RedisServer, tmp_path: Path) -> None:
    """What a replica that stands still has not got is tried again under the same key, and is there once."""
    terms: dict[str, Any] = {"channel": "replicated", "shards": 1, "replicas": 1, "replicas_seconds": 0.3}
    with closing(RedisPublisher(redis.url, within_seconds=1, **terms)) as publisher:
        with pytest.raises(PublishFailed, match="too few replicas"):
            publisher.publish("t", "there is none", key="a")
        replica = RedisServer(tmp_path, replicaof=f"127.0.0.1 {redis.port}").start()
        try:
            wait_until(lambda: redis.command("WAIT", "1", "100") == b":1", 15, "the replica in sync")
            redis.command("SCRIPT", "FLUSH")
            publisher.publish("t", "there is none", key="a")
            assert replica.command("XLEN", "{ringcast:replicated}:events") == b":1"
            replica.signal(signal.SIGSTOP)
            with pytest.raises(PublishFailed, match="too few replicas"):
                publisher.publish("t", "it stands still", key="b")
            replica.signal(signal.SIGCONT)
            with closing(RedisPublisher(redis.url, **terms)) as patient:
                patient.publish("t", "it stands still", key="b")
            assert replica.command("XLEN", "{ringcast:replicated}:events") == b":2"
        finally:
            replica.stop()
