"""A node over Redis runs out of file descriptors: what it has it keeps, Redis included, and newcomers wait."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.test_redis_faults import Site, over_redis, relay_of, stats
from tests.faults.witnesses import Scene
from tests.harness.process import Node, wait_until
from tests.threats.crowd import Crowd
from tests.threats.process_facts import cpu_share
from tests.threats.test_file_limits import exhaust
from tests.threats.wire import request

EVENTS = "/channels/main/events"
OPEN = request("GET", EVENTS + "?topic=quiet", Accept="text/event-stream")
NEWCOMERS = 500
RECOVERED_SECONDS = 2
# A question to /ready that lacks its end. While the node is out of descriptors, one of those that have not said all for
# a second is let go every 0.2 seconds; so many are more than can go before they are asked to the end.
HALF_A_QUESTION = request("GET", "/ready").removesuffix(b"\r\n")
QUESTIONS = 10
WHY = os.strerror(errno.EMFILE)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with over_redis(tmp_path, heartbeat_seconds=1) as one:
        yield one


def welcome(crowd: Crowd) -> int:
    return sum(b"event: hello" in member.received for member in crowd.members)


def held_at_the_door(node: Node) -> int:
    return int(json.loads(node.get("/stats")[2])["door"]["waiting"])


def refusal(received: bytes) -> str:
    """Why newcomers have to wait, as an answer of `/ready` has it."""
    head, _, body = received.partition(b"\r\n\r\n")
    return str(json.loads(body)["checks"]["accepting"]) if body and head.startswith(b"HTTP/1.1 503") else ""


def warm(node: Node) -> bool:
    """It has ticked and probed: its pool holds the connections that it will need again."""
    return float(stats(node)["process"]["uptime_seconds"]) > 3


def set_free(node: Node) -> None:
    """The node may open as many files as it wants."""
    _, hard = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (hard, hard))


def test_a_node_without_descriptors_keeps_its_streams_and_redis_and_takes_newcomers_when_it_can(
    site: Site, seed: int
) -> None:
    """FLT-16: CPU below 10 % and a line a second in the log, while hundreds are at the door, and `/ready` says why;
    once there are descriptors again all of them are in within two seconds. The other node notices nothing.
    """
    rng = random.Random(seed)
    full, other = site.nodes
    with Scene(*site.ports, every=0.05) as scene:
        scene.wait_for(rng.randrange(5, 15))
        wait_until(lambda: warm(full), 10, "the connections to Redis that a node holds")
        connections = relay_of(full)["tail_connections"]
        spare = rng.randrange(20, 60)
        probes = Crowd(full.port, QUESTIONS, HALF_A_QUESTION)
        wait_until(lambda: held_at_the_door(full) >= QUESTIONS, 5, "the questions at the door")
        exhaust(full, spare)
        with Crowd(full.port, NEWCOMERS, OPEN) as crowd:
            crowd.wait(lambda: welcome(crowd) >= spare - 5, 5, "as many as there is room for")
            probes.send_each(b"\r\n")
            probes.wait(lambda: any(refusal(member.received) == WHY for member in probes.members), 5, "the reason")
            probes.close()
            before, began = len(full.log().splitlines()), time.monotonic()
            assert cpu_share(full.pid, 3) < 0.1
            said = full.log().splitlines()[before:]
            assert len(said) <= time.monotonic() - began + 1, said
            scene.wait_for(rng.randrange(5, 15))
            assert other.get("/ready")[0] == 200
            set_free(full)
            scene.healed()
            crowd.wait(lambda: welcome(crowd) == NEWCOMERS, RECOVERED_SECONDS, "all newcomers in")
        site.wait_ready(True)
        assert relay_of(full)["ok"] is True
        assert relay_of(full)["tail_connections"] == connections
        scene.wait_for(10)
    assert scene.history.problems() == []
    assert [one.connections for one in scene.subscribers] == [1] * len(scene.subscribers)


def test_a_node_that_loses_redis_while_it_has_no_descriptor_is_back_when_it_has(site: Site, seed: int) -> None:
    """FLT-16: newcomers take each descriptor that comes free, also the one that Redis would need. Streams stay, and
    nothing is lost.
    """
    rng = random.Random(seed)
    full, _ = site.nodes
    with Scene(*site.ports, every=0.01) as scene:
        scene.wait_for(rng.randrange(10, 50))
        exhaust(full, 0)
        with Crowd(full.port, NEWCOMERS, OPEN):
            site.proxies[0].reset()
            scene.wait_for_tries(rng.randrange(10, 50))
            set_free(full)
            scene.healed()
            site.wait_ready(True)
        scene.wait_for(30)
    assert scene.history.problems() == []
