"""The task that follows the log dies of what it finds there: readiness tells of it, it is started again, and readers
have everything.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.faults.witnesses import Scene
from tests.harness.process import Node, wait_until
from tests.harness.redis import RedisServer

FOREIGN = "redis.call('XADD', redis.call('KEYS', ARGV[1])[1], '*', 'foreign', '1')"
MARKS = "{ringcast}:node:*"  # a stream for each node, in which its tail looks for the proof that it follows
DEATHS = 3  # the wait doubles each time: of the last one readiness has a second at least to tell
TOLD_SECONDS = 5.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
def node(redis: RedisServer, tmp_path: Path) -> Iterator[Node]:
    """One whose tail can be killed: the log may have tracebacks, but for each there is a death."""
    one = Node(tmp_path, relay=redis.url, drain_seconds=0, log_format="json")
    try:
        yield one.start()
        assert one.stop() == 0
    finally:
        if one.process is not None:
            one.kill()
    assert one.log().count("Traceback") == len(died(one))


def died(node: Node) -> list[dict[str, Any]]:
    """The log's lines about tasks that died."""
    lines = (json.loads(line) for line in node.log().splitlines())
    return [line for line in lines if line["event"] == "task_died"]


def deaths(node: Node) -> int:
    """How often the tail has died, by the metrics."""
    families = text_string_to_metric_families(node.get("/metrics")[2].decode())
    samples = [sample for family in families for sample in family.samples]
    return sum(
        int(sample.value)
        for sample in samples
        if (sample.name, sample.labels) == ("ringcast_tasks_died_total", {"task": "relay_tail"})
    )


def test_a_tail_that_dies_turns_readiness_red_and_is_started_again_and_nothing_is_lost(
    redis: RedisServer, node: Node, seed: int
) -> None:
    """FLT-26: of what is no mark in the stream of its marks. Each death is logged and counted; under load, for readers
    of all kinds, nothing is missing, repeated or declared.
    """
    rng = random.Random(seed)

    def poisoned(more: int) -> bool:
        """It has died so often; what came together with a mark has done no harm."""
        if deaths(node) < more:
            redis.command("EVAL", FOREIGN, "0", MARKS)
        return deaths(node) >= more

    with Scene(node.port) as scene:
        for count in range(1, DEATHS + 1):
            scene.wait_for(rng.randrange(10, 60))
            if count == DEATHS:
                scene.broken(node.port, seconds=TOLD_SECONDS)
            wait_until(lambda count=count: poisoned(count), 10, "its death")  # type: ignore[misc]
            wait_until(lambda: node.get("/ready")[0] == 200, TOLD_SECONDS, "its return")
        scene.healed(seconds=TOLD_SECONDS)
        scene.wait_for(30)
    assert scene.history.problems() == []
    assert not any(entry.gap for log in scene.history.seen.values() for entry in log)
    assert deaths(node) >= DEATHS
    assert {line["task"] for line in died(node)} == {"relay_tail"}
    assert len(died(node)) == deaths(node)
