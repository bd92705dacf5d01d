"""Jobs: from the start of one to the end of its stream, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.witnesses import Attempt
from tests.harness.postgres import PostgresServer
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream
from tests.threats.tokens import signed

ROOT = "/api/v1/jobs"
WANTED = {"topics": ["technology"], "sources": ["techcrunch", "ars-technica"]}
WORKING = {"status": "processing", "progress": 40, "stage": "processing-articles", "message": "2 of 5"}
DONE = {"status": "completed", "progress": 90, "stage": "done", "message": "ready", "data": {"words": 812}}
OPERATOR = {"sub": "service", "ringcast": {"operate": True}}
Start = Callable[..., Node]


@pytest.fixture(params=["sqlite", "postgresql"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Starts nodes over one database."""
    database = f"sqlite:{tmp_path}/jobs.db"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        database = server.url(f"jobs_{abs(hash(tmp_path)):x}")
    nodes: list[Node] = []

    def begin(**settings: object) -> Node:
        nodes.append(Node(tmp_path, apps="jobs", database=database, drain_seconds=0, **settings).start())
        return nodes[-1]

    yield begin
    for node in nodes:
        node.kill()


def ask(
    node: Node, method: str, path: str, body: object = None, claims: dict[str, Any] | None = None
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer."""
    headers = {"Content_Type": "application/json"}
    if claims is not None:
        headers["Authorization"] = f"Bearer {signed(claims)}"
    status, _, answer = node.request(method, path, json.dumps(body) if body is not None else "", **headers)
    return status, json.loads(answer) if answer else {}


def begun(node: Node, claims: dict[str, Any] | None = None) -> str:
    status, started = ask(node, "POST", ROOT, WANTED, claims)
    assert status == 201
    assert started["sseEndpoint"] == f"{ROOT}/{started['jobId']}/events"
    job_id: str = started["jobId"]
    return job_id


def states(stream: Stream, count: int) -> list[dict[str, Any]]:
    """So many states, each an unnamed message."""
    found = []
    while len(found) < count:
        block = stream.next_event(10)
        assert block.type in ("hello", "message"), block.type
        if block.type == "message":
            assert block.data is not None
            found.append(json.loads(block.data))
    return found


def test_a_job_is_watched_from_its_present_state_to_its_end(start: Start) -> None:
    """J1, J2, J3: unnamed messages in the seed's words; the stream ends with the job, and a reconnection is 204."""
    node = start()
    job_id = begun(node)
    with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
        (first,) = states(stream, 1)
        assert (first["jobId"], first["status"], first["progress"]) == (job_id, "pending", 0)
        assert ask(node, "POST", f"{ROOT}/{job_id}/updates", WORKING)[0] == 200
        assert ask(node, "POST", f"{ROOT}/{job_id}/updates", DONE)[0] == 200
        working, done = states(stream, 2)
        assert list(working) == ["jobId", "status", "progress", "stage", "message", "timestamp"]
        assert {name: working[name] for name in WORKING} == WORKING
        assert done == {"jobId": job_id, **DONE, "progress": 100, "timestamp": done["timestamp"]}
        cursor = stream.next_event(5)
        assert cursor.type == "finished"
    last = node.request("GET", f"{ROOT}/{job_id}/events", Last_Event_ID=_last_id(stream))
    assert last[0] == 204


def _last_id(stream: Stream) -> str:
    ids = [line.removeprefix(b"id: ").decode() for line in stream.raw.split(b"\n") if line.startswith(b"id: ")]
    return ids[-1]


def test_who_comes_late_gets_the_present_state_at_once(start: Start) -> None:
    """J3: while the job runs, after its end, and after the node was killed."""
    node = start()
    job_id = begun(node)
    ask(node, "POST", f"{ROOT}/{job_id}/updates", WORKING)
    with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
        assert states(stream, 1)[0]["progress"] == 40
    ask(node, "POST", f"{ROOT}/{job_id}/updates", DONE)
    node.kill()
    node.start()
    with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
        assert states(stream, 1)[0]["status"] == "completed"
        assert stream.next_event(5).type == "finished"


def test_a_reader_who_was_away_at_the_end_gets_it(start: Start) -> None:
    """J3: with the cursor from before the end there is a stream, and its last message is the end."""
    node = start()
    job_id = begun(node)
    with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
        states(stream, 1)
        ask(node, "POST", f"{ROOT}/{job_id}/updates", WORKING)
        states(stream, 1)
    ask(node, "POST", f"{ROOT}/{job_id}/updates", DONE)
    with Attempt(node.port, f"{ROOT}/{job_id}/events", Last_Event_ID=_last_id(stream)) as again:
        assert states(again, 1)[0]["status"] == "completed"
        assert again.next_event(5).type == "finished"


def test_reports_that_are_no_news_or_come_too_late_change_nothing(start: Start) -> None:
    """J2: services report over ways that keep no order."""
    node = start()
    job_id = begun(node)
    path = f"{ROOT}/{job_id}/updates"
    assert ask(node, "POST", path, WORKING)[0] == 200
    old = WORKING | {"progress": 10, "timestamp": "2020-01-01T00:00:00Z"}
    assert ask(node, "POST", path, old)[1]["progress"] == 40
    assert ask(node, "POST", path, {"status": "pending", "progress": 0})[0] == 409
    assert ask(node, "POST", path, DONE)[0] == 200
    status, answer = ask(node, "POST", path, WORKING | {"progress": 50})
    assert (status, answer["code"], answer["field"]) == (409, "conflict", "status")
    assert ask(node, "GET", f"{ROOT}/{job_id}")[1]["status"] == "completed"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (WORKING | {"progress": 101}, 422, "progress"),
        (WORKING | {"progress": "many"}, 422, "progress"),
        (WORKING | {"status": "paused"}, 422, "status"),
        (WORKING | {"timestamp": "yesterday"}, 422, "timestamp"),
        (WORKING | {"jobId": "another"}, 422, "jobId"),
        (WORKING | {"data": {"x": "y" * 20_000}}, 422, "data"),
        ({"progress": 1}, 422, "status"),
        (WORKING | {"progres": 1}, 422, "progres"),
    ],
)
def test_a_report_that_is_not_valid_names_the_field(
    shared_jobs: Node, body: dict[str, Any], status: int, field: str
) -> None:
    """J2."""
    job_id = begun(shared_jobs)
    found, answer = ask(shared_jobs, "POST", f"{ROOT}/{job_id}/updates", body)
    assert (found, answer["field"]) == (status, field)


@pytest.mark.parametrize("body", [{}, {"topics": []}, WANTED | {"sources": ["x"] * 21}, WANTED | {"topics": [""]}])
def test_a_job_that_is_none_is_refused(shared_jobs: Node, body: dict[str, Any]) -> None:
    """J1."""
    assert ask(shared_jobs, "POST", ROOT, body)[0] == 422


def test_what_is_not_there_is_404_on_streams_too(shared_jobs: Node) -> None:
    """J1."""
    for path in (f"{ROOT}/none", f"{ROOT}/none/events"):
        assert ask(shared_jobs, "GET", path)[0] == 404
    assert ask(shared_jobs, "POST", f"{ROOT}/none/updates", WORKING)[0] == 404


@pytest.fixture(scope="module")
def shared_jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("jobs")
    node = Node(folder, apps="jobs", database=f"sqlite:{folder}/jobs.db", jobs_per_minute=10_000).start()
    yield node
    node.kill()


def test_only_its_owner_sees_a_job(start: Start) -> None:
    """J6: to others it is not there; a service reports, an owner does not."""
    node = start(jwt_secret=TOKEN_SECRET)
    mine, other = {"sub": "mine"}, {"sub": "other"}
    job_id = begun(node, mine)
    assert ask(node, "POST", ROOT, WANTED)[0] == 401
    for path in (f"{ROOT}/{job_id}", f"{ROOT}/{job_id}/events"):
        assert ask(node, "GET", path)[0] == 401
        assert ask(node, "GET", path, claims=other)[0] == 404
    assert ask(node, "GET", ROOT, claims=other)[1]["jobs"] == []
    assert [job["jobId"] for job in ask(node, "GET", ROOT, claims=mine)[1]["jobs"]] == [job_id]
    assert ask(node, "POST", f"{ROOT}/{job_id}/updates", WORKING, mine)[0] == 403
    headers = {"Authorization": f"Bearer {signed(mine)}"}
    with Attempt(node.port, f"{ROOT}/{job_id}/events", **headers) as stream:
        states(stream, 1)
        assert ask(node, "POST", f"{ROOT}/{job_id}/updates", WORKING, OPERATOR)[0] == 200
        assert states(stream, 1)[0]["progress"] == 40
    # The general endpoint of the channel gives it away neither.
    status, _, _ = node.request("GET", "/channels/jobs/events", Authorization=f"Bearer {signed(other)}")
    assert status == 404


def test_an_owner_may_start_so_many_a_minute(start: Start) -> None:
    """J6."""
    node = start(jobs_per_minute=3)
    assert [ask(node, "POST", ROOT, WANTED)[0] for _ in range(4)] == [201, 201, 201, 429]


def test_a_job_is_worked_on_by_one_and_goes_to_another_if_that_one_dies(start: Start) -> None:
    node = start(jobs_abandoned_seconds=0.5)
    job_id = begun(node)
    claim = f"{ROOT}/claim"
    assert ask(node, "POST", claim, {"worker": "one"})[1]["jobId"] == job_id
    assert ask(node, "POST", claim, {"worker": "two"})[0] == 204
    ask(node, "POST", f"{ROOT}/{job_id}/updates", WORKING)
    answers: list[tuple[int, Any]] = []

    def claimed() -> bool:
        answers.append(ask(node, "POST", claim, {"worker": "two"}))
        return answers[-1][0] != 204

    wait_until(claimed)
    status, answer = answers[-1]
    assert (status, answer["jobId"]) == (200, job_id)


def test_two_nodes_over_one_redis_and_one_database_are_one(start: Start, tmp_path: Path) -> None:
    """J5, J7: started here, reported there, watched on both."""
    redis = RedisServer(tmp_path).start()
    try:
        first, second = start(relay=redis.url), start(relay=redis.url)
        job_id = begun(first)
        with (
            Attempt(first.port, f"{ROOT}/{job_id}/events") as here,
            Attempt(second.port, f"{ROOT}/{job_id}/events") as there,
        ):
            assert states(here, 1) == states(there, 1)
            assert ask(second, "POST", f"{ROOT}/{job_id}/updates", DONE)[0] == 200
            assert states(here, 1) == states(there, 1)
            assert here.next_event(5).type == there.next_event(5).type == "finished"
    finally:
        redis.stop()
