"""The disk of Redis is full."""

from __future__ import annotations

import json
import random
import resource
import time
from pathlib import Path

from tests.faults.test_redis_faults import KEPT, Site, gap_reasons, over_redis
from tests.faults.witnesses import Scene
from tests.harness.process import Node, wait_until
from tests.harness.redis import RedisServer

REASON = "redis cannot write to its disk"
RECOVERED_SECONDS = 15


def fill(redis: RedisServer) -> None:
    """From now on its files cannot grow."""
    largest = max(path.stat().st_size for path in (redis.folder / "appendonlydir").iterdir())
    limit(redis, largest)


def limit(redis: RedisServer, size: int) -> None:
    assert redis.process is not None
    _, most = resource.prlimit(redis.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(redis.process.pid, resource.RLIMIT_FSIZE, (size, most))


def reason(node: Node) -> str:
    """What `/ready` says of the relay."""
    return str(json.loads(node.get("/ready")[2])["checks"]["relay"])


def everybody_is_back(one: Site, scene: Scene) -> None:
    wait_until(lambda: all(reason(node) == "ok" for node in one.nodes), RECOVERED_SECONDS, "both nodes")
    scene.wait_for(30)


def test_a_full_disk_refuses_publishes_and_says_why_until_there_is_room(tmp_path: Path, seed: int) -> None:
    """With appendfsync everysec Redis goes on: readers stay, nothing that was acknowledged is lost, no restart."""
    rng = random.Random(seed)
    with over_redis(tmp_path, KEPT | {"appendfsync": "everysec"}) as one, Scene(*one.ports) as scene:
        scene.wait_for(rng.randrange(10, 50))
        fill(one.redis)
        wait_until(lambda: all(reason(node) == REASON for node in one.nodes), 15, "the reason")
        time.sleep(rng.uniform(0, 1))  # for so long it is full
        limit(one.redis, resource.RLIM_INFINITY)
        everybody_is_back(one, scene)
    assert scene.history.problems() == []
    assert gap_reasons(scene) == set()
    assert [subscriber.connections for subscriber in scene.subscribers] == [1] * len(scene.subscribers)


def test_a_redis_that_ends_itself_at_a_full_disk_has_lost_nothing(tmp_path: Path, seed: int) -> None:
    """With appendfsync always it acknowledges nothing that it could not write; started again it goes on."""
    rng = random.Random(seed)
    with over_redis(tmp_path, KEPT) as one, Scene(*one.ports) as scene:
        scene.wait_for(rng.randrange(10, 50))
        fill(one.redis)
        assert one.redis.process is not None
        assert one.redis.process.wait(15) == 1
        one.wait_ready(False)
        one.redis.start()
        everybody_is_back(one, scene)
    assert scene.history.problems() == []
    assert gap_reasons(scene) == set()
