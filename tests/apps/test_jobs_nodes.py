"""Jobs on several nodes over one Redis: who watches what, updates that services publish, and a failover."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apps.jobbing import DONE, ROOT, WORKING, begun, job, last_id, report, states, states_to_the_end
from tests.faults.test_clocks import fail_over, has_all_of
from tests.faults.test_redis_faults import Site
from tests.faults.witnesses import Attempt
from tests.harness.postgres import PostgresServer
from tests.harness.process import Node, wait_until
from tests.harness.redis import RedisServer


@pytest.fixture(scope="module")
def pair(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, RedisServer]]:
    """Two nodes, each with a proxy of its own to a Redis, and a replica of that."""
    folder = tmp_path_factory.mktemp("jobs-nodes")
    redis = RedisServer(folder).start()
    site = Site(folder, redis, apps="jobs", simulate=False, database=postgres.url("jobs_nodes"))
    replica = RedisServer(folder, replicaof=f"127.0.0.1 {redis.port}").start()
    try:
        site.start()
        yield site, replica
    finally:
        site.stop()
        redis.stop()
        replica.stop()


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
def test_a_jobs_stream_goes_on_behind_a_failover(pair: tuple[Site, RedisServer]) -> None:
    """J7: the master dies and its replica is promoted; streams stay or resume, and miss no state. The last test here:
    the nodes are at the replica afterwards."""
    site, replica = pair
    first, second = site.nodes
    job_id = begun(first)
    with Attempt(second.port, f"{ROOT}/{job_id}/events", seconds=30) as stream:
        states(stream, 1)
        assert report(first, job_id, WORKING) == 200
        assert states(stream, 1)[0]["progress"] == 40
        wait_until(lambda: has_all_of(replica, site.redis), 15, "the replica in sync")
        fail_over(site, replica)
        site.redis.kill()
        assert report(first, job_id, WORKING | {"progress": 60}) == 200
        assert states(stream, 1)[0]["progress"] == 60
        wait_until(lambda: watchers(first, job_id) == [1])  # the new master knows it, too
        assert report(second, job_id, DONE) == 200
        assert states_to_the_end(stream)[-1]["status"] == "completed"
    status, _, _ = second.request("GET", f"{ROOT}/{job_id}/events", Last_Event_ID=last_id(stream))
    assert status == 204
    wait_until(lambda: publish(replica, "nobody", WORKING) == 1, 20, "the bridge listens at the new master")
