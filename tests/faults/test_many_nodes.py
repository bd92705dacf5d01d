"""Two nodes over one Redis: what one knows the other knows, and clients go from one to the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.witnesses import Attempt
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.redis import RedisServer
from tests.threats.conftest import finish
from tests.threats.tokens import signed

EVENTS = "/channels/main/events"
JSON = {"Content_Type": "application/json"}
Nodes = Callable[..., list[Node]]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, appendonly="yes", appendfsync="always").start()
    yield server
    server.stop()


@pytest.fixture
def nodes(redis: RedisServer, tmp_path: Path) -> Iterator[Nodes]:
    """Starts nodes that share the Redis."""
    started: list[Node] = []

    def start(count: int, **settings: object) -> list[Node]:
        several = [Node(tmp_path, relay=redis.url, **({"drain_seconds": 0} | settings)) for _ in range(count)]
        started.extend(several)
        return [node.start() for node in several]

    yield start
    for node in started:
        finish(node)


def publish(node: Node, data: str, **headers: str) -> str:
    """Publish one event; its id."""
    body = json.dumps({"topic": "t", "data": data})
    status, _, answer = node.request("POST", EVENTS, body, **(JSON | headers))
    assert status == 200, answer
    wire_id: str = json.loads(answer)["ids"][0]
    return wire_id


def test_an_event_published_on_one_node_reaches_the_readers_of_the_other(nodes: Nodes) -> None:
    first, second = nodes(2)
    with Attempt(second.port, EVENTS) as stream:
        assert stream.next_event(5).type == "hello"
        wire_id = publish(first, "over there")
        event = stream.next_event(5)
        assert (event.id, event.data) == (wire_id, "over there")


def test_a_cursor_of_one_node_is_good_on_the_other_at_once(nodes: Nodes) -> None:
    first, second = nodes(2)
    for number in range(20):
        wire_id = publish(first, str(number))
        with Attempt(second.port, EVENTS, Last_Event_ID=wire_id) as stream:
            hello = stream.next_event(5)
            assert json.loads(hello.data)["complete"] is True
            publish(first, f"after {number}")
            assert stream.next_event(5).data == f"after {number}"


def test_a_client_whose_node_was_killed_goes_on_at_another_without_a_gap(nodes: Nodes) -> None:
    """FLT-09."""
    first, second = nodes(2)
    with Attempt(first.port, EVENTS) as stream:
        assert stream.next_event(5).type == "hello"
        publish(first, "1")
        cursor = stream.next_event(5).id
    first.kill()
    publish(second, "2")
    with Attempt(second.port, EVENTS, Last_Event_ID=cursor) as stream:
        assert json.loads(stream.next_event(5).data)["complete"] is True
        assert stream.next_event(5).data == "2"


def test_while_redis_is_away_readers_stay_publishes_are_refused_and_then_all_goes_on(
    nodes: Nodes, redis: RedisServer
) -> None:
    first, second = nodes(2, heartbeat_seconds=0.5)
    with Attempt(second.port, EVENTS) as stream:
        assert stream.next_event(5).type == "hello"
        publish(first, "before")
        assert stream.next_event(5).data == "before"
        redis.kill()
        wait_until(lambda: first.get("/ready")[0] == second.get("/ready")[0] == 503, 10, "not ready")
        status, headers, _ = first.request("POST", EVENTS, json.dumps({"topic": "t", "data": "no"}), **JSON)
        assert status == 503 and int(headers["retry-after"]) > 0
        redis.start()
        wait_until(lambda: first.get("/ready")[0] == second.get("/ready")[0] == 200, 20, "ready again")
        publish(first, "after")
        assert stream.next_event(5).data == "after"


def test_statistics_of_the_cluster_are_the_sum_of_its_nodes(nodes: Nodes) -> None:
    first, second = nodes(2)

    def cluster() -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(first.get("/stats?scope=cluster")[2])
        return facts

    with Attempt(first.port, EVENTS) as one, Attempt(second.port, EVENTS) as other:
        assert one.next_event(5).type == other.next_event(5).type == "hello"
        wait_until(lambda: cluster()["total"]["connections"] == 2, 15, "two connections in the sum")
        facts = cluster()
        assert facts["total"]["nodes"] == 2
        assert facts["total"]["by_channel"] == {"main": 2}
        assert [node["connections"] for node in facts["nodes"]] == [1, 1]
    second.stop()
    wait_until(lambda: cluster()["total"]["nodes"] == 1, 5, "a node that stopped is gone")
    assert first.get("/stats?scope=galaxy")[0] == 400


@pytest.mark.parametrize(("kind", "claim"), [("token", "jti"), ("subject", "sub"), ("tenant", "tenant")])
def test_a_revocation_on_one_node_ends_streams_on_all_within_five_seconds(nodes: Nodes, kind: str, claim: str) -> None:
    """Contract, Freshness of rights."""
    first, second = nodes(2, jwt_secret=TOKEN_SECRET)
    rights = {"mercure": {"subscribe": ["*"], "publish": ["*"]}}
    revoked = f"Bearer {signed(rights | {claim: 'x'})}"
    other = f"Bearer {signed(rights | {claim: 'y'})}"
    operator = f"Bearer {signed({'ringcast': {'operate': True}})}"
    with (
        Attempt(second.port, EVENTS, Authorization=revoked) as ends,
        Attempt(second.port, EVENTS, Authorization=other) as stays,
    ):
        assert ends.next_event(5).type == stays.next_event(5).type == "hello"
        body = json.dumps({kind: "x", "seconds": 60})
        assert first.request("POST", "/revocations", body, Authorization=revoked, **JSON)[0] == 404
        assert first.request("POST", "/revocations", body, Authorization=operator, **JSON)[0] == 200
        assert ends.next_event(5).type == "revoked"
        publish(first, "goes on", Authorization=other)
        assert stays.next_event(5).data == "goes on"
    for node in (first, second):
        assert node.get(EVENTS, Authorization=revoked)[0] == 401
    (late,) = nodes(1, jwt_secret=TOKEN_SECRET)
    assert late.get(EVENTS, Authorization=revoked)[0] == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"subject": "x", "tenant": "y"}, None),
        ({}, None),
        ({"subject": 1}, "subject"),
        ({"subject": ""}, "subject"),
        ({"subject": "x", "seconds": 0}, "seconds"),
        ({"subject": "x", "seconds": True}, "seconds"),
        ({"who": "x"}, None),
    ],
)
def test_a_revocation_that_is_not_understood_revokes_nothing(nodes: Nodes, body: Any, field: str | None) -> None:
    (node,) = nodes(1)
    status, _, answer = node.request("POST", "/revocations", json.dumps(body), **JSON)
    assert status == 400
    assert json.loads(answer).get("field") == field
