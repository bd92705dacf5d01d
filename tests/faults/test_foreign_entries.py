"""Entries in the log that no node wrote: cut off, of another form, of another program, and of ten megabytes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.test_redis_faults import Site, over_redis, relay_of
from tests.faults.witnesses import TOPIC, Scene
from tests.harness.process import wait_until

STREAM = "{ringcast:main}:events"
FOREIGN = [
    ("e", '[["witness"],"message",null,nu', "s", "30"),  # the end is missing
    ("e", '{"version":99,"topics":["witness"],"data":"0"}', "s", "46"),  # of a release that is not written yet
    ("foreign", "1"),
    ("e", "x" * 10_000_000, "s", "10000000"),
]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with over_redis(tmp_path) as one:
        yield one


def test_foreign_entries_in_the_log_are_counted_and_declared_and_the_rest_is_whole(site: Site, seed: int) -> None:
    """FLT-26: under load, for readers of all kinds on both nodes. Each entry is one gap, nothing beside it is missing,
    and the nodes stay ready, on the connections that they have.
    """
    rng = random.Random(seed)
    with Scene(*site.ports) as scene:
        connections = [relay_of(node)["tail_connections"] for node in site.nodes]
        for count, fields in enumerate(rng.sample(FOREIGN, len(FOREIGN)), 1):
            scene.wait_for(rng.randrange(10, 80))
            assert site.redis.command("XADD", STREAM, "*", *fields).endswith(b"-1")
            for node in site.nodes:  # a replay that comes by counts it too
                wait_until(lambda node=node, count=count: relay_of(node)["damaged"] >= count, 10, "it is counted")  # type: ignore[misc]
            assert site.ready(True)
        scene.wait_for(30)
        assert [relay_of(node)["tail_connections"] for node in site.nodes] == connections
    # Nothing of the publisher's is missing in these gaps: what they declare is the entry that is nobody's.
    assert scene.history.problems(needless_gaps=True) == []
    for log in scene.history.seen.values():
        assert [json.loads(entry.id)["reason"] for entry in log if entry.gap] == ["damaged"] * len(FOREIGN)
        assert {entry.number for entry in log if not entry.gap} >= {
            number
            for number, outcome in scene.history.outcomes.items()
            if outcome == "ok" and scene.history.topics[number] == TOPIC
        }


@pytest.mark.parametrize("before", ["9" * 5_000, "9" * 20, "9" * 18, "-1", "1e9", ""])
def test_an_entry_that_lies_of_the_one_before_it_moves_nothing(site: Site, before: str, seed: int) -> None:
    """FLT-26: it is another topic's event, so that nobody misses anything; nor is a tail to die of it, or to believe
    that it has read what is yet to come.
    """
    event = json.dumps([["nobody"], "message", None, None, False, "0"])
    with Scene(*site.ports) as scene:
        connections = [relay_of(node)["tail_connections"] for node in site.nodes]
        scene.wait_for(random.Random(seed).randrange(10, 80))
        site.redis.command("XADD", STREAM, "*", "e", event, "s", "60", "p", before)
        scene.wait_for(50)
        assert [relay_of(node)["tail_connections"] for node in site.nodes] == connections
        assert site.ready(True)
    assert scene.history.problems() == []
