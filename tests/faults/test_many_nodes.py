"""Two nodes over one Redis: what one knows the other knows, and clients go from one to the other."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.cluster import PRESENCE_SECONDS, REGISTER_SECONDS
from tests.faults.witnesses import Attempt
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.redis import RedisServer
from tests.threats.conftest import finish_all
from tests.threats.tokens import bearer, signed

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
    finish_all(started)


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


def test_a_client_whose_node_was_killed_goes_on_at_another_without_a_gap(nodes: Nodes, seed: int) -> None:
    """FLT-09."""
    first, second = random.Random(seed).sample(nodes(2), 2)
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
    nodes: Nodes, redis: RedisServer, seed: int
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
        time.sleep(random.Random(seed).uniform(0, 3))  # for so long it stays away
        redis.start()
        wait_until(lambda: first.get("/ready")[0] == second.get("/ready")[0] == 200, 20, "ready again")
        publish(first, "after")
        assert stream.next_event(5).data == "after"


def cluster(node: Node) -> dict[str, Any]:
    """The cluster as this node tells of it."""
    facts: dict[str, Any] = json.loads(node.get("/stats?scope=cluster")[2])
    return facts


def test_statistics_of_the_cluster_are_the_sum_of_its_nodes(nodes: Nodes) -> None:
    first, second = nodes(2)
    with Attempt(first.port, EVENTS) as one, Attempt(second.port, EVENTS) as other:
        assert one.next_event(5).type == other.next_event(5).type == "hello"
        wait_until(lambda: cluster(first)["total"]["connections"] == 2, 15, "two connections in the sum")
        facts = cluster(first)
        assert facts["total"]["nodes"] == 2
        assert facts["total"]["by_channel"] == {"main": 2}
        assert [node["connections"] for node in facts["nodes"]] == [1, 1]
    second.stop()
    wait_until(lambda: cluster(first)["total"]["nodes"] == 1, 5, "a node that stopped is gone")
    assert first.get("/stats?scope=galaxy")[0] == 400


def of_tenant(name: str) -> dict[str, str]:
    """The headers of somebody who may read what there is for a tenant."""
    return {"Authorization": bearer(signed({"mercure": {"subscribe": ["*"]}, "tenant": name}))}


def held(node: Node) -> tuple[dict[str, int], dict[str, int]]:
    """How many connections each tenant has in the cluster, and each in a channel."""
    total = cluster(node)["total"]
    return total["by_tenant"], total["by_channel_and_tenant"]


def test_statistics_of_the_cluster_count_the_connections_of_each_tenant(nodes: Nodes) -> None:
    """E11, E12: wherever they are, and as they come and go."""
    first, second = nodes(2, jwt_secret=TOKEN_SECRET)
    with (
        Attempt(second.port, EVENTS, **of_tenant("acme")) as stays,
        Attempt(second.port, EVENTS, **of_tenant("globex")) as other,
    ):
        with Attempt(first.port, EVENTS, **of_tenant("acme")) as leaves:
            assert {stream.next_event(5).type for stream in (stays, other, leaves)} == {"hello"}
            everybody = {"acme": 2, "globex": 1}, {"main acme": 2, "main globex": 1}
            for node in (first, second):
                wait_until(lambda node=node: held(node) == everybody, 15, "all three")  # type: ignore[misc]
        rest = {"acme": 1, "globex": 1}, {"main acme": 1, "main globex": 1}
        wait_until(lambda: held(second) == rest, 15, "the two that stayed")


def test_a_node_that_was_killed_is_forgotten_when_its_time_is_up(nodes: Nodes, seed: int) -> None:
    """E11: nobody tells the others that it is gone. What it held is in the sum until then, and not after."""
    first, second = nodes(2, jwt_secret=TOKEN_SECRET)
    with (
        Attempt(first.port, EVENTS, **of_tenant("acme")) as stays,
        Attempt(second.port, EVENTS, **of_tenant("globex")) as goes,
    ):
        assert stays.next_event(5).type == goes.next_event(5).type == "hello"
        wait_until(lambda: held(first)[0] == {"acme": 1, "globex": 1}, 15, "both")
        time.sleep(random.Random(seed).uniform(0, REGISTER_SECONDS))  # for so long it has not said that it is there
        second.kill()
        killed = time.monotonic()
        assert held(first)[0] == {"acme": 1, "globex": 1}
        wait_until(lambda: cluster(first)["total"]["nodes"] == 1, PRESENCE_SECONDS + 2, "the dead node forgotten")
        assert time.monotonic() - killed > PRESENCE_SECONDS - 2 * REGISTER_SECONDS
        assert held(first) == ({"acme": 1}, {"main acme": 1})


# What is revoked, what a token must carry for that, what a stream must ask for, and how it is refused afterwards.
REVOCABLE = [("token", "jti", "", 401), ("subject", "sub", "", 401), ("tenant", "tenant", "", 401)]
REVOCABLE += [("topic", "", "?topic={}&topic=t", 403)]


@pytest.mark.parametrize(("kind", "claim", "query", "status"), REVOCABLE, ids=[each[0] for each in REVOCABLE])
def test_a_revocation_on_one_node_ends_streams_on_all_within_five_seconds(
    nodes: Nodes, kind: str, claim: str, query: str, status: int
) -> None:
    """Contract, Freshness of rights."""
    first, second = nodes(2, jwt_secret=TOKEN_SECRET)
    rights = {"mercure": {"subscribe": ["*"], "publish": ["*"]}}
    revoked = f"Bearer {signed(rights | ({claim: 'x'} if claim else {}))}"
    other = f"Bearer {signed(rights | ({claim: 'y'} if claim else {}))}"
    operator = f"Bearer {signed({'ringcast': {'operate': True}})}"
    here = EVENTS + query.format("x")
    with (
        Attempt(first.port, here, Authorization=revoked) as ends_too,
        Attempt(second.port, here, Authorization=revoked) as ends,
        Attempt(second.port, EVENTS + query.format("y"), Authorization=other) as stays,
    ):
        assert {stream.next_event(5).type for stream in (ends_too, ends, stays)} == {"hello"}
        body = json.dumps({kind: "x", "seconds": 60})
        assert first.request("POST", "/revocations", body, Authorization=revoked, **JSON)[0] == 404
        assert first.request("POST", "/revocations", body, Authorization=operator, **JSON)[0] == 200
        assert ends_too.next_event(5).type == ends.next_event(5).type == "revoked"
        publish(first, "goes on", Authorization=other)
        assert stays.next_event(5).data == "goes on"
    for node in (first, second):
        assert node.get(here, Authorization=revoked)[0] == status
    (late,) = nodes(1, jwt_secret=TOKEN_SECRET)
    assert late.get(here, Authorization=revoked)[0] == status


def test_a_revoked_topic_is_open_again_when_the_revocation_is_over(nodes: Nodes) -> None:
    """On every node, and by the time of the notice: nobody has to say so."""
    first, second = nodes(2)
    assert first.request("POST", "/revocations", json.dumps({"topic": "x", "seconds": 2}), **JSON)[0] == 200
    wait_until(lambda: second.get(EVENTS + "?topic=x")[0] == 403, 5, "the revocation on the other node")
    for node in (first, second):
        wait_until(lambda node=node: opens(node, "x"), 10, "its end")  # type: ignore[misc]


def opens(node: Node, topic: str) -> bool:
    """Whether a stream of this topic opens."""
    with Attempt(node.port, f"{EVENTS}?topic={topic}") as stream:
        return stream.status == 200


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
        ({"topic": "*"}, "topic"),
        ({"topic": ""}, "topic"),
        ({"topic": "a\nb"}, "topic"),
        ({"topic": "x" * 4097}, "topic"),
        ({"topic": ["x"]}, "topic"),
        ({"topic": "x", "token": "y"}, None),
    ],
)
def test_a_revocation_that_is_not_understood_revokes_nothing(nodes: Nodes, body: Any, field: str | None) -> None:
    (node,) = nodes(1)
    status, _, answer = node.request("POST", "/revocations", json.dumps(body), **JSON)
    assert status == 400
    assert json.loads(answer).get("field") == field
