"""A cluster whose masters have replicas, and one of them dies."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from tests.faults.test_redis_shapes import LAST_SLOT, follows
from tests.faults.witnesses import Scene
from tests.harness.process import Node, free_port, wait_until
from tests.harness.redis import RedisServer
from tests.threats.conftest import finish_all

REROUTED_SECONDS = 10
THIRDS = (0, 5_461, 10_923, LAST_SLOT + 1)


def begun(folder: Path) -> RedisServer:
    options = {"cluster_enabled": "yes", "cluster_port": str(free_port()), "cluster_node_timeout": "1000"}
    return RedisServer(folder, appendonly="yes", appendfsync="always", **options).start()


def meets(one: RedisServer, other: RedisServer) -> None:
    words = ("CLUSTER", "MEET", "127.0.0.1", str(other.port), other.options["cluster_port"])
    assert one.command(*words) == b"+OK"


def is_whole(one: RedisServer, nodes: int) -> bool:
    facts = one.facts("CLUSTER", "INFO")
    return (facts["cluster_state"], facts["cluster_known_nodes"]) == ("ok", str(nodes))


def in_sync(replica: RedisServer) -> bool:
    return replica.facts("INFO", "replication").get("master_link_status") == "up"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Of a cluster of three masters the one that has the channel `main`, and its replica, which is in sync."""
    masters: list[RedisServer] = []
    everybody: list[RedisServer] = []
    try:
        for _ in range(3):
            masters.append(begun(tmp_path))
            everybody.append(masters[-1])
        for one, first, end in zip(masters, THIRDS, THIRDS[1:], strict=False):
            assert one.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(end - 1)) == b"+OK"
        everybody.append(replica := begun(tmp_path))
        for one in everybody[1:]:
            meets(masters[0], one)
        wait_until(lambda: all(is_whole(one, 4) for one in everybody), 30, "a cluster")
        slot = key_slot(b"{ringcast:main}")
        master = next(one for one, end in zip(masters, THIRDS[1:], strict=True) if slot < end)
        name = master._ask("CLUSTER", "MYID").decode()
        wait_until(lambda: replica.command("CLUSTER", "REPLICATE", name) == b"+OK", 15, "the replica's master")
        wait_until(lambda: in_sync(replica), 20, "the replica in sync")
        yield master, replica
    finally:
        for one in everybody:
            one.stop()


def test_nodes_follow_the_replica_that_a_cluster_promotes(
    pair: tuple[RedisServer, RedisServer], tmp_path: Path, seed: int
) -> None:
    """FLT-03: publishes go on within ten seconds of the promotion, what the replica had not got is declared, and the
    old master comes back as a replica."""
    master, replica = pair
    rng = random.Random(seed)
    relay = f"redis+cluster://127.0.0.1:{replica.port}"
    nodes = [Node(tmp_path, relay=relay, drain_seconds=0).start() for _ in range(2)]
    try:
        with Scene(*[node.port for node in nodes]) as scene:
            scene.wait_for(rng.randrange(20, 80))
            master.kill()
            scene.broken(*[node.port for node in nodes])
            wait_until(lambda: not follows(replica), 20, "a promotion")
            scene.healed()
            promoted = time.monotonic()
            scene.wait_for(5, 30)
            assert time.monotonic() - promoted < REROUTED_SECONDS
            time.sleep(rng.uniform(0, 1))  # for so long the old master is away
            master.start()
            wait_until(lambda: follows(master), 20, "the old master follows")
            wait_until(lambda: all(node.get("/ready")[0] == 200 for node in nodes), 20, "both nodes")
            scene.wait_for(30)
        assert scene.history.problems(needless_gaps=True) == []
    finally:
        finish_all(nodes)
