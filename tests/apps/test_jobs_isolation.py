"""Two owners of jobs: neither sees anything of the other's, by any endpoint, live, replayed, in lists or in errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apps.asking import ask
from tests.apps.jobbing import DONE, OPERATOR, ROOT, WORKING, begun, last_id, report, states, states_to_the_end
from tests.faults.witnesses import Attempt
from tests.harness.process import TOKEN_SECRET, Node
from tests.threats.tokens import bearer, signed

MINE, OTHER = {"sub": "mine"}, {"sub": "other"}
SECRET = "nothing for others"
# An issuer who grants readers of the console everything that is public.
CURIOUS = {"sub": "curious", "mercure": {"subscribe": ["*"]}}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("jobs-isolation")
    database = f"sqlite:{folder}/jobs.db"
    started = Node(folder, apps="jobs", database=database, jwt_secret=TOKEN_SECRET, simulate=False).start()
    yield started
    started.kill()


def secret_job(node: Node) -> str:
    """A job of `MINE` that everybody would like to know of."""
    return begun(node, MINE, topics=[SECRET], sources=["secret-source"], texts=[SECRET])


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "/events", None),
        ("POST", "/updates", WORKING),
        ("POST", "/release", {"worker": "w"}),
    ],
)
@pytest.mark.parametrize("ended", [False, True], ids=["running", "ended"])
def test_to_others_a_job_is_as_one_that_never_was(
    node: Node, method: str, path: str, body: object, ended: bool
) -> None:
    """J6: the same status and the same words, while it runs and afterwards; without a token none of it."""
    job_id = secret_job(node)
    if ended:
        assert report(node, job_id, DONE, OPERATOR) == 200
    for claims in (OTHER, CURIOUS, {"sub": ""}, {}):
        status, answer = ask(node, method, f"{ROOT}/{job_id}{path}", body, claims)
        never, of_none = ask(node, method, f"{ROOT}/{'0' * 24}{path}", body, claims)
        assert status == never == (404 if method == "GET" else 403)
        assert answer == json.loads(json.dumps(of_none).replace("0" * 24, job_id))
    assert ask(node, method, f"{ROOT}/{job_id}{path}", body)[0] == 401


def test_lists_hold_ones_own_jobs_whatever_is_asked_for(node: Node) -> None:
    """J6: a subject is not a pattern, and who has none has no jobs."""
    job_id = secret_job(node)
    for query in ("", "?status=pending", "?limit=500", "?offset=0&owner=mine"):
        for claims in (OTHER, CURIOUS, {"sub": "%"}, {"sub": "MINE"}, {"sub": "mine\u2009"}, {}):
            status, answer = ask(node, "GET", f"{ROOT}{query}", None, claims)
            assert job_id not in json.dumps(answer)
            assert status == 200 or "\u2009" in json.dumps(claims, ensure_ascii=False)
        assert job_id in json.dumps(ask(node, "GET", f"{ROOT}{query}", None, MINE)[1])
    assert ask(node, "POST", f"{ROOT}/claim", {"worker": "w"}, OTHER)[0] == 403


def test_a_stream_brings_ones_own_job_alone_live_and_replayed(node: Node) -> None:
    """J6: two owners' jobs change at the same time."""
    secret, own = secret_job(node), begun(node, OTHER)
    bearing = bearer(signed(OTHER))
    with Attempt(node.port, f"{ROOT}/{own}/events", Authorization=bearing) as stream:
        states(stream, 1)
        for progress in range(5):
            for job_id in (secret, own):
                update = WORKING | {"progress": 50 + progress, "message": SECRET if job_id == secret else "own"}
                assert report(node, job_id, update, OPERATOR) == 200
        assert {state["jobId"] for state in states(stream, 5)} == {own}
    for job_id in (secret, own):
        assert report(node, job_id, DONE | {"message": SECRET if job_id == secret else "own"}, OPERATOR) == 200
    for cursor in (last_id(stream), "earliest"):
        with Attempt(node.port, f"{ROOT}/{own}/events", Authorization=bearing, Last_Event_ID=cursor) as again:
            assert {state["jobId"] for state in states_to_the_end(again)} == {own}
        assert SECRET.encode() not in again.raw
    assert SECRET.encode() not in stream.raw


@pytest.mark.parametrize(
    "query", ["", "?topic=*", "?topic=jobs/{id}", "?topic=jobs/SECRET&last=10", "?last_event_id=earliest"]
)
def test_the_general_endpoint_of_the_channel_gives_nothing_away(node: Node, query: str) -> None:
    """J6: also to a reader whom an issuer lets into that channel, but grants no topics; and to one who has no part in
    it."""
    secret = secret_job(node)
    assert report(node, secret, WORKING | {"message": SECRET}, OPERATOR) == 200
    path = f"/channels/jobs/events{query.replace('SECRET', secret)}"
    for claims in (OTHER, MINE, CURIOUS, {}):
        status, _, body = node.request("GET", path, Authorization=bearer(signed(claims)))
        assert status in (400, 403, 404), body
    let_in: dict[str, Any] = {"sub": "let in", "ringcast": {"jobs": {"subscribe": ["news"], "publish": ["news"]}}}
    with Attempt(node.port, path, Authorization=bearer(signed(let_in))) as stream:
        assert stream.next_event(5).type == "hello"
        assert report(node, secret, WORKING | {"progress": 77, "message": SECRET}, OPERATOR) == 200
        event = {"topic": "news", "data": "public"}
        headers = {"Content_Type": "application/json", "Authorization": bearer(signed(let_in))}
        if query in ("", "?topic=*", "?last_event_id=earliest"):
            assert node.request("POST", "/channels/jobs/events", json.dumps(event), **headers)[0] == 200
            while stream.next_event(5).data != "public":
                pass
    assert SECRET.encode() not in stream.raw
    assert secret.encode() not in stream.raw


def test_statistics_and_health_name_no_job(node: Node) -> None:
    """J6."""
    secret = secret_job(node)
    with Attempt(node.port, f"{ROOT}/{secret}/events", Authorization=bearer(signed(MINE))) as stream:
        states(stream, 1)
        for path in ("/health", "/ready", "/metrics", "/stats", "/stats?scope=cluster", "/openapi.json"):
            text = node.get(path)[2].decode()
            assert secret not in text
            assert SECRET not in text
        # Who watches a job is for operators to know.
        assert "watchers" not in ask(node, "GET", f"{ROOT}/{secret}", None, MINE)[1]
        assert list(ask(node, "GET", f"{ROOT}/{secret}", None, OPERATOR)[1]["watchers"].values()) == [1]
