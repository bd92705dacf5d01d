"""Jobs on several nodes over one Redis: who watches what, updates that services publish, and a failover."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.apps.job_witnesses import Reporting
from tests.apps.jobbing import DONE, ROOT, WORKING, begun, job, states
from tests.faults.test_clocks import fail_over, has_all_of
from tests.faults.test_redis_faults import Site
from tests.faults.witnesses import Attempt, Scene
from tests.harness.postgres import PostgresServer
from tests.harness.process import Node, wait_until
from tests.harness.redis import RedisServer


@contextmanager
def paired(postgres: PostgresServer, folder: Path) -> Iterator[tuple[Site, RedisServer]]:
    """Two nodes, each with a proxy of its own to a Redis, and a replica of that."""
    redis = RedisServer(folder).start()
    database = postgres.url(f"jobs_nodes_{uuid.uuid4().hex[:8]}")
    site = Site(folder, redis, apps="jobs", simulate=False, database=database, jobs_streams_per_minute=100_000)
    replica = RedisServer(folder, replicaof=f"127.0.0.1 {redis.port}").start()
    try:
        site.start()
        yield site, replica
    finally:
        site.stop()
        redis.stop()
        replica.stop()


@pytest.fixture(scope="module")
def pair(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, RedisServer]]:
    """For tests after which all is as before."""
    with paired(postgres, tmp_path_factory.mktemp("jobs-nodes")) as made:
        yield made


def watchers(node: Node, job_id: str) -> list[int]:
    """How many streams of a job there are, by node."""
    return sorted(job(node, job_id)["watchers"].values())


def test_nodes_know_of_each_others_streams_until_these_end(pair: tuple[Site, RedisServer]) -> None:
    """J5: registered in Redis with expiry; what is here is known at once."""
    (first, second), redis = pair[0].nodes, pair[0].redis
    one, other = begun(first), begun(first)
    with Attempt(first.port, f"{ROOT}/{one}/events"), Attempt(second.port, f"{ROOT}/{one}/events") as there:
        with Attempt(second.port, f"{ROOT}/{one}/events"):
            wait_until(lambda: watchers(first, one) == watchers(second, one) == [1, 2])
            assert watchers(first, other) == []
            registered = [int(redis.command("TTL", name)[1:]) for name in registrations(redis)]
            assert len(registered) == 2
            assert all(1 <= seconds <= 15 for seconds in registered)
        wait_until(lambda: watchers(first, one) == [1, 1])
        there.close()
        wait_until(lambda: watchers(first, one) == [1])


def registrations(redis: RedisServer) -> list[str]:
    """The names of the nodes' registrations."""
    script = "return table.concat(redis.call('KEYS', '*:jobs:streams:*'), ' ')"
    return redis._ask("EVAL", script, "0").decode().split()


def test_what_services_publish_in_redis_reaches_the_streams_of_all_nodes_once(pair: tuple[Site, RedisServer]) -> None:
    """J4: as the seed has it; what is no update is refused, counted and told of, and stops nothing."""
    (first, second), redis = pair[0].nodes, pair[0].redis
    wait_until(lambda: any(bridge(node)["active"] for node in (first, second)), 15, "somebody listens")
    job_id = begun(first)
    before = [bridge(node) for node in (first, second)]
    with (
        Attempt(first.port, f"{ROOT}/{job_id}/events") as here,
        Attempt(second.port, f"{ROOT}/{job_id}/events") as there,
    ):
        assert states(here, 1) == states(there, 1)
        bad: list[tuple[str, Any]] = [
            (job_id, "no JSON"),
            (job_id, WORKING | {"progress": 1_000}),
            (job_id, WORKING | {"jobId": "another"}),
            ("nobody", WORKING),
        ]
        for name, update in (*bad, (job_id, WORKING | {"jobId": job_id}), (job_id, DONE), (job_id, WORKING)):
            assert publish(redis, name, update) == 1
        assert states(here, 2) == states(there, 2)
        assert here.next_event(5).type == there.next_event(5).type == "finished"

    def came(name: str) -> int:
        return sum(bridge(node)[name] - old[name] for node, old in zip((first, second), before, strict=True))

    # A message is counted when it comes, and as refused when it has been looked at.
    wait_until(lambda: came("received") >= 7 and came("unmappable") >= 5, what="the last message, refused")
    assert (came("received"), came("unmappable")) == (7, 5)
    refused = [line for node in (first, second) for line in node.log().split("\n") if '"unmappable"' in line]
    assert refused
    assert not any("no JSON" in line.replace("is not JSON", "") or job_id in line for line in refused)
    assert any(b"ringcast_jobs_refused_total 5.0" in node.get("/metrics")[2] for node in (first, second))


def publish(redis: RedisServer, job_id: str, update: object) -> int:
    """How many heard it."""
    text = update if isinstance(update, str) else json.dumps(update)
    return int(redis.command("PUBLISH", f"job:{job_id}:updates", text)[1:])


def bridge(node: Node) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(node.get("/stats")[2])["bridges"]["jobs_redis"]
    return facts


@pytest.mark.fault
def test_jobs_streams_go_on_behind_a_failover(
    postgres: PostgresServer, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J7: the master dies and its replica is promoted, while a service reports; streams stay or resume, and miss no
    state."""
    rng = random.Random(seed)
    monkeypatch.setattr(Scene, "seed", seed)
    with paired(postgres, tmp_path) as (site, replica):
        first, second = site.nodes
        wait_until(lambda: has_all_of(replica, site.redis), 15, "the replica in sync")
        with Reporting(*site.ports, every=0.01) as scene:
            scene.wait_for(rng.randrange(20, 60))
            time.sleep(rng.uniform(0, 0.2))
            fail_over(site, replica)
            time.sleep(rng.uniform(0, 0.5))
            site.redis.kill()
            scene.wait_for(rng.randrange(20, 60))
            another = begun(first)
            with Attempt(second.port, f"{ROOT}/{another}/events"):
                wait_until(lambda: watchers(first, another) == [1])  # the new master knows it, too
        assert scene.history.problems() == []
        assert scene.inexact() == []
        for watcher in scene.subscribers:
            for node in site.nodes:
                assert node.request("GET", watcher.path, Last_Event_ID=watcher.cursor or "")[0] == 204
        wait_until(lambda: publish(replica, "nobody", WORKING) == 1, 20, "the bridge listens at the new master")
