"""Updates of jobs that Google Pub/Sub pushes, as services have it publish them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from tests.apps.jobbing import DONE, ROOT, WORKING, begun, states, states_to_the_end
from tests.bridges.google import AUDIENCE, EMAIL, SUBSCRIPTION, Accounts, envelope, token
from tests.faults.witnesses import Attempt
from tests.harness.process import Node

PATH = "/bridges/pubsub/jobs_pubsub"


@pytest.fixture
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node to which Google may push."""
    folder, accounts = tmp_path_factory.mktemp("jobs-push"), Accounts()
    node = Node(
        folder,
        apps="jobs",
        simulate=False,
        database=f"sqlite:{folder}/jobs.db",
        jobs_pubsub_subscription=SUBSCRIPTION,
        jobs_pubsub_delivery="push",
        pubsub_audience=AUDIENCE,
        pubsub_email=EMAIL,
        pubsub_jwks_url=accounts.url,
    ).start()
    yield node
    node.kill()
    accounts.close()


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
        assert [(state["status"], state["progress"]) for state in states_to_the_end(stream)] == [
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
