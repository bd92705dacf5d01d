"""The password of Redis is changed under running nodes."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.test_redis_faults import Site, gap_reasons
from tests.faults.witnesses import Attempt, Scene
from tests.harness.process import Node, wait_until
from tests.harness.redis import RedisServer

EVENTS = "/channels/main/events"
USER = "ringcast"
OLD, NEW = "the old password", "the new password"
HEARTBEAT_SECONDS = 0.5
RECOVERED_SECONDS = 30


def set_password(redis: RedisServer, *passwords: str) -> None:
    """From now on these are good for whoever connects; who is connected stays."""
    rights = ("on", "resetpass", *[f">{password}" for password in passwords], "~*", "&*", "+@all")
    assert redis.command("ACL", "SETUSER", USER, *rights) == b"+OK"


def end_connections(redis: RedisServer) -> None:
    assert redis.command("CLIENT", "KILL", "USER", USER).startswith(b":")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    set_password(server, OLD)
    yield server
    server.stop()


@pytest.fixture
def site(tmp_path: Path, redis: RedisServer) -> Iterator[Site]:
    one = Site(tmp_path, redis, redis_username=USER, redis_password=OLD, heartbeat_seconds=HEARTBEAT_SECONDS)
    try:
        yield one.start()
    finally:
        one.stop()


def reason(node: Node) -> str:
    """What `/ready` says of the relay."""
    return str(json.loads(node.get("/ready")[2])["checks"]["relay"])


def test_nodes_with_a_password_that_is_no_longer_good_say_so_and_are_back_when_it_is(
    site: Site, redis: RedisServer, seed: int
) -> None:
    """FLT-27: readers stay with heartbeats, publishes are refused, the log is not flooded and holds no password; back
    within thirty seconds after it is good again, with nothing lost.
    """
    rng = random.Random(seed)
    with Scene(*site.ports) as scene, Attempt(site.ports[0], EVENTS + "?topic=quiet") as quiet:
        assert quiet.next_event(5).type == "hello"
        scene.wait_for(rng.randrange(10, 60))
        set_password(redis, NEW)
        end_connections(redis)
        scene.broken(*site.ports)
        site.wait_ready(False)
        for node in site.nodes:
            wait_until(lambda node=node: "password" in reason(node), 5, "the reason")
            refused = node.request("POST", EVENTS, '{"topic": "t", "data": "x"}', Content_Type="application/json")
            assert refused[0] in (503, 504)
        lines, began = site.nodes[0].log().count("\n"), time.monotonic()
        wrong_seconds = rng.uniform(3, 6)
        while time.monotonic() < began + wrong_seconds:
            assert quiet.next_block(HEARTBEAT_SECONDS + 1) is not None
        assert site.nodes[0].log().count("\n") - lines <= 2 * (time.monotonic() - began) + 2
        set_password(redis, OLD)
        scene.healed(RECOVERED_SECONDS)
        site.wait_ready(True, seconds=RECOVERED_SECONDS)
        scene.wait_for(30)
    assert scene.history.problems() == []
    assert gap_reasons(scene) == set()
    assert all(subscriber.connections == 1 for subscriber in scene.subscribers)
    for node in site.nodes:
        assert OLD not in node.log()


def test_a_password_is_changed_without_a_pause_by_one_that_is_good_beside_it(
    site: Site, redis: RedisServer, seed: int
) -> None:
    """FLT-27: both are good, the nodes are restarted with the new one in turn, and the old one is taken away."""
    rng = random.Random(seed)
    with Scene(*site.ports) as scene:
        set_password(redis, OLD, NEW)
        for node in rng.sample(site.nodes, len(site.nodes)):
            scene.wait_for(rng.randrange(10, 60))
            assert node.stop() == 0
            node.settings["redis_password"] = NEW
            node.start()
            site.wait_ready(True)
        set_password(redis, NEW)
        end_connections(redis)
        site.wait_ready(True)
        scene.wait_for(30)
    assert scene.history.problems() == []
    assert gap_reasons(scene) == set()
