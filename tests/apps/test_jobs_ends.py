"""Where the end of a job stands in the log: written down with it, so that nobody is sent away too early or too late."""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps.jobbing import DONE, ROOT, WORKING, begun, last_id, report, states, states_to_the_end
from tests.faults.test_redis_faults import Site
from tests.faults.witnesses import Attempt
from tests.harness.databases import DATABASES, new_database
from tests.harness.postgres import PostgresServer
from tests.harness.process import Node, wait_until
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream


@pytest.fixture(params=DATABASES)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    """A node whose log outlives it, over one of the databases."""
    database = new_database(request, request.param, tmp_path)
    relay = f"sqlite:{tmp_path}/log.db"
    started = Node(tmp_path, apps="jobs", simulate=False, database=database, relay=relay).start()
    yield started
    started.kill()


LONG_SECONDS = 6.0  # longer than anything that a node could take for long enough


def path(job_id: str) -> str:
    return f"{ROOT}/{job_id}/events"


def test_a_node_that_has_begun_since_knows_who_has_seen_the_end(node: Node) -> None:
    """J3: it was delivered nothing of the job. Who has all gets 204, who lacks the end gets it, at once."""
    job_id = begun(node)
    with Attempt(node.port, path(job_id)) as stream:
        states(stream, 1)
        assert report(node, job_id, WORKING) == 200
        states(stream, 1)
        before = last_id(stream)
        assert report(node, job_id, DONE) == 200
        states_to_the_end(stream)
        after = last_id(stream)
    node.stop()
    node.start()
    assert node.request("GET", path(job_id), Last_Event_ID=after)[0] == 204
    with Stream(node.port, path(job_id), Last_Event_ID=before) as stream:
        assert [state["status"] for state in states_to_the_end(stream)] == ["completed"]
    assert node.request("GET", path(job_id), Last_Event_ID=after)[0] == 204
    assert b"\nringcast_jobs_retold_total 0.0\n" in node.get("/metrics")[2]


def test_the_end_of_a_job_from_before_that_was_written_down_is_told_once_more(tmp_path: Path) -> None:
    """J3: a database of an earlier version has no word of where the end stands, nor was it delivered here."""
    database = tmp_path / "jobs.db"
    settings = {"apps": "jobs", "simulate": False, "database": f"sqlite:{database}", "relay": f"sqlite:{tmp_path}/log"}
    node = Node(tmp_path, **settings).start()
    job_id = begun(node)
    assert report(node, job_id, DONE) == 200
    with Attempt(node.port, path(job_id)) as stream:
        states_to_the_end(stream)
    wait_until(lambda: waiting_seconds(node) == 0, what="the outbox has deleted its row")
    node.stop()
    with sqlite3.connect(database) as connection:
        assert connection.execute("UPDATE jobs SET told = NULL WHERE told IS NOT NULL").rowcount == 1
    connection.close()
    node.start()
    try:
        with Attempt(node.port, path(job_id)) as stream:
            assert [state["status"] for state in states_to_the_end(stream)] == ["completed", "completed"]
        assert node.request("GET", path(job_id), Last_Event_ID=last_id(stream))[0] == 204
        assert b"\nringcast_jobs_retold_total 1.0\n" in node.get("/metrics")[2]
    finally:
        node.kill()


@pytest.mark.fault
def test_who_resumes_before_the_end_is_in_the_log_gets_it_before_the_stream_ends(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """J3: the node that writes to the log cannot reach it. Streams on the other, with the newest cursor and without,
    stay open until it can, however long that takes, and end with the end."""
    redis = RedisServer(tmp_path).start()
    database = postgres.url(f"jobs_ends_{uuid.uuid4().hex[:8]}")
    site = Site(tmp_path, redis, apps="jobs", simulate=False, database=database)
    try:
        first, second = site.start().nodes
        job_id = begun(first)
        with Stream(second.port, path(job_id), seconds=30) as stream:
            states(stream, 1)
            assert report(first, job_id, WORKING) == 200
            states(stream, 1)
            site.proxies[0].hold()
            assert report(first, job_id, DONE) == 200
            resumed = Stream(second.port, path(job_id), seconds=30, Last_Event_ID=last_id(stream))
            fresh = Stream(second.port, path(job_id), seconds=30)
            with resumed, fresh:
                assert states(fresh, 1)[0]["status"] == "completed"
                wait_until(lambda: waiting_seconds(first) > LONG_SECONDS, 30, "the end waits")
                site.proxies[0].heal()
                for one in (stream, resumed, fresh):
                    assert [state["status"] for state in states_to_the_end(one)] == ["completed"]
    finally:
        site.stop()
        redis.stop()


def waiting_seconds(node: Node) -> float:
    """How long the oldest event waits for its log."""
    found = re.search(rb"^ringcast_outbox_oldest_seconds (.+)$", node.get("/metrics")[2], re.MULTILINE)
    assert found is not None
    return float(found[1])
