"""Updates of jobs that Google Pub/Sub pushes, as services have it publish them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps.jobbing import DONE, ROOT, WANTED, WORKING, begun, job, states, states_to_the_end
from tests.bridges.conftest import state
from tests.bridges.google import AUDIENCE, EMAIL, SUBSCRIPTION, Accounts, envelope, token
from tests.conftest import StartNode
from tests.faults.witnesses import Attempt
from tests.harness.postgres import PostgresServer
from tests.harness.process import Node, wait_until

PATH = "/bridges/pubsub/jobs_pubsub"


@pytest.fixture
def accounts() -> Iterator[Accounts]:
    opened = Accounts()
    yield opened
    opened.close()


def pushing(node: StartNode, accounts: Accounts, database: str) -> Node:
    """A node to which Google may push."""
    wanted: dict[str, object] = {
        "apps": "jobs",
        "simulate": False,
        "database": database,
        "jobs_pubsub_subscription": SUBSCRIPTION,
        "jobs_pubsub_delivery": "push",
        "pubsub_audience": AUDIENCE,
        "pubsub_email": EMAIL,
        "pubsub_jwks_url": accounts.url,
    }
    started = node(**wanted)
    wait_until(lambda: state(started, "jobs_pubsub") == "ok", what="the issuer's keys")
    return started


@pytest.fixture
def pushed(node: StartNode, accounts: Accounts, tmp_path: Path) -> Node:
    """One on SQLite."""
    return pushing(node, accounts, f"sqlite:{tmp_path}/jobs.db")


def push(node: Node, message_id: str, update: object, signature: str, **attributes: str) -> int:
    """The status of the answer to a push."""
    data = base64.b64encode(json.dumps(update).encode()).decode()
    body = json.dumps(envelope(message_id, data=data, attributes=attributes))
    headers = {"Content_Type": "application/json", "Authorization": f"Bearer {signature}"}
    return node.request("POST", PATH, body, **headers)[0]


def test_what_is_pushed_reaches_the_jobs_streams_once(pushed: Node) -> None:
    """J4: the job in the data or in the attributes; twice is once; who is not Google's pusher is refused."""
    job_id, good = begun(pushed), token()
    with Attempt(pushed.port, f"{ROOT}/{job_id}/events") as stream:
        states(stream, 1)
        assert push(pushed, "1", WORKING | {"jobId": job_id}, token(aud="https://elsewhere.example")) in (401, 403)
        moment = {"timestamp": "2030-01-01T00:00:00Z"}
        for _ in range(2):
            assert push(pushed, "1", WORKING | {"jobId": job_id} | moment, good) == 204
        older = WORKING | {"progress": 10, "timestamp": "2020-01-01T00:00:00Z"}
        assert push(pushed, "2", older, good, jobId=job_id) == 204
        assert push(pushed, "3", DONE | {"jobId": "nobody"}, good) == 204  # it would come again for ever
        assert push(pushed, "4", DONE | {"timestamp": "2030-01-01T00:00:01Z"}, good, jobId=job_id) == 204
        assert [(found["status"], found["progress"]) for found in states_to_the_end(stream)] == [
            ("processing", 40),
            ("completed", 100),
        ]
    assert b"ringcast_jobs_refused_total 1.0" in pushed.get("/metrics")[2]


def test_what_a_service_means_is_taken_whatever_its_clock_and_its_own_fields(pushed: Node) -> None:
    """J2, J4: a message that is acknowledged and not taken would be lost, and its job's readers would wait for ever."""
    job_id, good = begun(pushed), token()
    more = {"progress": 33.3, "data": ["a"], "traceId": "0af7", "timestamp": "2030-01-01T00:00:00"}
    with Attempt(pushed.port, f"{ROOT}/{job_id}/events") as stream:
        states(stream, 1)
        assert push(pushed, "1", WORKING | more, good, jobId=job_id) == 204
        assert push(pushed, "2", DONE | {"timestamp": "2020-01-01T00:00:00Z"}, good, jobId=job_id) == 204
        working, done = states_to_the_end(stream)
    assert (working["progress"], working["data"], done["status"]) == (33.3, ["a"], "completed")
    assert "traceId" not in working
    assert working["timestamp"] < done["timestamp"]
    assert b"ringcast_jobs_refused_total 0.0" in pushed.get("/metrics")[2]


def checks(node: Node) -> dict[str, str]:
    """What /ready says."""
    found: dict[str, str] = json.loads(node.get("/ready")[2])["checks"]
    return found


def test_while_the_database_is_read_only_nothing_is_acknowledged_and_everybody_is_to_come_later(
    postgres: PostgresServer, node: StartNode, accounts: Accounts
) -> None:
    """As behind a failover to a standby. What would be acknowledged would be lost, and the job pending for ever."""
    one, good = pushing(node, accounts, postgres.url("jobs_standby")), token()
    job_id = begun(one)
    with Attempt(one.port, f"{ROOT}/{job_id}/events") as stream:
        states(stream, 1)
        postgres.set_read_only("jobs_standby")
        try:
            assert push(one, "1", DONE, good, jobId=job_id) == 503
            told = json.dumps(WORKING)
            for path, body in ((f"{ROOT}/{job_id}/updates", told), (ROOT, json.dumps(WANTED))):
                status, headers, _ = one.request("POST", path, body, Content_Type="application/json")
                assert status == 503
                assert int(headers["retry-after"]) >= 1
            wait_until(lambda: "25006" in checks(one)["outbox"], what="readiness to say so")
            assert job(one, job_id)["status"] == "pending"
        finally:
            postgres.set_writable("jobs_standby")
        assert push(one, "1", DONE, good, jobId=job_id) == 204
        assert [found["status"] for found in states_to_the_end(stream)] == ["completed"]
    wait_until(lambda: checks(one)["outbox"] == "ok", what="readiness")


def test_while_the_jobs_are_being_restored_reports_are_for_later(
    postgres: PostgresServer, node: StartNode, accounts: Accounts
) -> None:
    """A table that is missing is no message's fault."""
    one, good = pushing(node, accounts, postgres.url("jobs_restored")), token()
    job_id = begun(one)
    postgres.tell("ALTER TABLE jobs RENAME TO elsewhere", database="jobs_restored")
    assert push(one, "1", DONE, good, jobId=job_id) == 503
    postgres.tell("ALTER TABLE elsewhere RENAME TO jobs", database="jobs_restored")
    assert push(one, "1", DONE, good, jobId=job_id) == 204
    assert job(one, job_id)["status"] == "completed"
