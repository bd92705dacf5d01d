"""The end of a job that was lost with the relay's log is told again."""

from __future__ import annotations

import json
import random
import time
import uuid
from pathlib import Path

import pytest

from tests.apps.jobbing import DONE, ROOT, WORKING, begun, report, states_to_the_end
from tests.faults.test_redis_faults import Site
from tests.harness.postgres import PostgresServer
from tests.harness.process import Node
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream


@pytest.mark.fault
def test_who_missed_the_end_of_a_job_is_told_of_it_when_the_log_is_another(
    postgres: PostgresServer, tmp_path: Path, seed: int
) -> None:
    """J3: a node is cut off, the end passes it by, and Redis comes back empty. Both of its readers get the end behind a
    gap, once; a job that goes on is told nothing."""
    rng = random.Random(seed)
    redis = RedisServer(tmp_path).start()
    database = postgres.url(f"jobs_lost_{uuid.uuid4().hex[:8]}")
    site = Site(tmp_path, redis, apps="jobs", simulate=False, database=database)
    try:
        first, second = site.start().nodes
        ended, another, going_on = begun(first), begun(first), begun(first)
        with (
            watching(first, ended) as here,
            watching(second, ended) as there,
            watching(second, another) as beside,
            watching(second, going_on) as patient,
        ):
            site.proxies[1].hold()
            assert report(first, going_on, WORKING) == 200
            assert report(first, ended, DONE) == report(first, another, DONE) == 200
            assert [state["status"] for state in states_to_the_end(here)] == ["pending", "completed"]
            time.sleep(rng.uniform(0, 1))  # for so long it is cut off
            redis.kill()
            site.proxies[1].reset()
            redis.start()
            site.proxies[1].heal()
            for stream in (there, beside):
                assert [state["status"] for state in states_to_the_end(stream)] == ["pending", "completed"]
                assert stream.raw.count(b"event: gap") == 1
            assert report(first, going_on, WORKING | {"progress": 50}) == 200
            assert progress_until(patient, 50) == [0, 50]
            assert b"\nringcast_jobs_retold_total 2.0\n" in second.get("/metrics")[2]
            assert b"\nringcast_jobs_retold_total 0.0\n" in first.get("/metrics")[2]
    finally:
        site.stop()
        redis.stop()


def progress_until(stream: Stream, last: int) -> list[int]:
    """How far the job was each time that something was told of it."""
    found: list[int] = []
    while last not in found:
        block = stream.next_event(20)
        assert block.type in ("hello", "gap", "message"), block.type
        if block.type == "message":
            found.append(json.loads(block.data or "")["progress"])
    return found


def watching(node: Node, job_id: str) -> Stream:
    return Stream(node.port, f"{ROOT}/{job_id}/events", seconds=30)
