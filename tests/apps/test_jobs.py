"""Jobs: from the start of one to the end of its stream, over real sockets."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from apps.jobs.application import Jobs
from tests.apps.asking import ask
from tests.apps.jobbing import DONE, OPERATOR, ROOT, WANTED, WORKING, begun, last_id, report, states, states_to_the_end
from tests.faults.witnesses import Attempt
from tests.harness.databases import DATABASES, new_database
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.threats.tokens import bearer, signed

ABANDONED_SECONDS = 2


@pytest.fixture(scope="module", params=DATABASES)
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node over one of the databases, which all tests here use."""
    folder = tmp_path_factory.mktemp("jobs")
    database = new_database(request, request.param, folder)
    settings: dict[str, Any] = {"jobs_abandoned_seconds": ABANDONED_SECONDS, "jobs_per_minute": 10_000}
    started = Node(folder, apps="jobs", simulate=False, database=database, **settings).start()
    yield started
    started.kill()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with a key, and with limits that are soon reached."""
    folder = tmp_path_factory.mktemp("jobs-guarded")
    settings: dict[str, Any] = {
        "jwt_secret": TOKEN_SECRET,
        "allowed_origins": "https://app.example.com",
        "jobs_per_minute": 3,
        "jobs_streams_per_minute": 3,
    }
    channels = '{"jobs": {"max_age_seconds": 3}}'
    database = f"sqlite:{folder}/jobs.db"
    started = Node(folder, apps="jobs", simulate=False, database=database, channels=channels, **settings).start()
    yield started
    started.kill()


def gets(node: Node, worker: str, job_id: str) -> bool:
    """True if the worker is given this job when it takes all that there are."""
    while (answer := ask(node, "POST", f"{ROOT}/claim", {"worker": worker}))[0] == 200:
        if answer[1]["jobId"] == job_id:
            return True
    assert answer[0] == 204
    return False


def test_a_job_is_watched_from_its_present_state_to_its_end(node: Node) -> None:
    """J1, J2, J3: unnamed messages in the seed's words; the stream ends with the job, and a reconnection is 204."""
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
    last = node.request("GET", f"{ROOT}/{job_id}/events", Last_Event_ID=last_id(stream))
    assert last[0] == 204


def test_who_comes_late_gets_the_present_state_at_once(node: Node) -> None:
    """J3: while the job runs, after its end, and after the node was killed and has forgotten its log."""
    job_id = begun(node)
    ask(node, "POST", f"{ROOT}/{job_id}/updates", WORKING)
    with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
        assert states(stream, 1)[0]["progress"] == 40
    ask(node, "POST", f"{ROOT}/{job_id}/updates", DONE)
    node.kill()
    node.start()
    with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
        # What was still to be sent when the node was killed comes behind the present state.
        come = [state["status"] for state in states_to_the_end(stream)]
        assert (come[0], come[-1]) == ("completed", "completed")


def test_a_reader_who_was_away_at_the_end_gets_it(node: Node) -> None:
    """J3: with the cursor from before the end there is a stream, and its last message is the end."""
    job_id = begun(node)
    with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
        states(stream, 1)
        ask(node, "POST", f"{ROOT}/{job_id}/updates", WORKING)
        states(stream, 1)
    ask(node, "POST", f"{ROOT}/{job_id}/updates", DONE)
    with Attempt(node.port, f"{ROOT}/{job_id}/events", Last_Event_ID=last_id(stream)) as again:
        assert states(again, 1)[0]["status"] == "completed"
        assert again.next_event(5).type == "finished"


def test_reports_that_are_no_news_or_come_too_late_change_nothing(node: Node) -> None:
    """J2: services report over ways that keep no order."""
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


@pytest.mark.parametrize("behind_seconds", [3, 86_400])
def test_an_end_that_seems_older_than_what_is_known_ends_the_stream(node: Node, behind_seconds: int) -> None:
    """J3, J4: a service's clock may be behind the node's, and another's ahead of it."""
    now = datetime.now(UTC)
    behind, ahead = ((now + timedelta(seconds=n)).isoformat() for n in (-behind_seconds, behind_seconds))
    for before in ([], [WORKING | {"timestamp": ahead}]):
        job_id = begun(node)
        with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
            for update in (*before, DONE | {"timestamp": behind}):
                status, answer = ask(node, "POST", f"{ROOT}/{job_id}/updates", update)
                assert (status, answer["status"]) == (200, update["status"])
            seen = states_to_the_end(stream)
        moments = [state["timestamp"] for state in seen]
        assert [state["status"] for state in seen] == ["pending", *(state["status"] for state in before), "completed"]
        assert moments == sorted(set(moments))


def test_a_service_is_heard_to_whom_a_worker_with_a_fast_clock_left_a_job(node: Node) -> None:
    """J4: what the worker before said, by its clock, does not make the next one's reports old."""
    job_id, hour = begun(node), timedelta(hours=1)
    assert gets(node, "fast", job_id)
    said = [(datetime.now(UTC) + hour * n).isoformat() for n in (-1, 0, 1)]
    assert report(node, job_id, WORKING | {"worker": "fast", "timestamp": said[1]}) == 200
    assert ask(node, "POST", f"{ROOT}/{job_id}/release", {"worker": "fast"})[0] == 204
    assert gets(node, "slow", job_id)
    for progress in (50, 60):
        update = WORKING | {"worker": "slow", "timestamp": said[0], "progress": progress}
        assert ask(node, "POST", f"{ROOT}/{job_id}/updates", update)[1]["progress"] == progress


@pytest.mark.parametrize(
    "more",
    [
        {"progress": 33.3},
        {"progress": 40},
        {"data": ["a"]},
        {"data": "text"},
        {"data": False},
        {"data": {"a": [1, None]}},
    ],
)
def test_a_report_in_the_seeds_words_is_told_as_it_was_said(node: Node, more: dict[str, Any]) -> None:
    """J2: `progress: number`, `data?: any`; on the stream, from the database, and on the stream of who comes late."""
    job_id = begun(node)
    said = WORKING | more
    with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
        states(stream, 1)
        assert report(node, job_id, said) == 200
        live = states(stream, 1)[0]
    with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
        late = states(stream, 1)[0]
    for state in (live, late, ask(node, "GET", f"{ROOT}/{job_id}")[1]):
        found = {name: state[name] for name in said}
        assert json.dumps(found) == json.dumps(said)  # also that 40 is not 40.0, and false not 0


def test_a_timestamp_without_a_zone_is_taken_for_utc(node: Node) -> None:
    """J2"""
    job_id = begun(node)
    said = datetime.now(UTC).replace(tzinfo=None).isoformat()
    status, answer = ask(node, "POST", f"{ROOT}/{job_id}/updates", WORKING | {"timestamp": said})
    assert status == 200
    assert answer["timestamp"] == said[:23] + "Z"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (WORKING | {"progress": 101}, 422, "progress"),
        (WORKING | {"progress": 100.01}, 422, "progress"),
        (WORKING | {"progress": "many"}, 422, "progress"),
        (WORKING | {"status": "paused"}, 422, "status"),
        (WORKING | {"timestamp": "yesterday"}, 422, "timestamp"),
        (WORKING | {"timestamp": "9999-12-31T23:59:59-05:00"}, 422, "timestamp"),
        (WORKING | {"timestamp": "0001-01-01T00:00:00+05:00"}, 422, "timestamp"),
        (WORKING | {"jobId": "another"}, 422, "jobId"),
        (WORKING | {"data": {"x": "y" * 20_000}}, 422, "data"),
        (WORKING | {"data": ["y" * 20_000]}, 422, "data"),
        ({"progress": 1}, 422, "status"),
        (WORKING | {"progres": 1}, 422, "progres"),
        (WORKING | {"message": "a\u0000b"}, 422, "message"),
        (WORKING | {"worker": "nobody"}, 409, "worker"),
    ],
)
def test_a_report_that_is_not_valid_names_the_field(node: Node, body: dict[str, Any], status: int, field: str) -> None:
    """J2."""
    job_id = begun(node)
    found, answer = ask(node, "POST", f"{ROOT}/{job_id}/updates", body)
    assert (found, answer["field"]) == (status, field)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"topics": []},
        {"topics": ["x"]},
        {"topics": ["x"], "texts": ["y" * 20_001]},
        WANTED | {"sources": ["x"] * 21},
        WANTED | {"sources": ["x" * 501]},
        WANTED | {"topics": [""]},
    ],
)
def test_a_job_that_is_none_is_refused(node: Node, body: dict[str, Any]) -> None:
    """J1."""
    assert ask(node, "POST", ROOT, body)[0] == 422


def test_what_is_not_there_is_404_on_streams_too(node: Node) -> None:
    """J1."""
    for path in (f"{ROOT}/none", f"{ROOT}/none/events"):
        assert ask(node, "GET", path)[0] == 404
    assert ask(node, "POST", f"{ROOT}/none/updates", WORKING)[0] == 404


def test_an_owner_may_start_so_many_a_minute(guarded: Node) -> None:
    """J6: and no other owner is held up by that."""
    assert [ask(guarded, "POST", ROOT, WANTED, {"sub": "busy"})[0] for _ in range(4)] == [201, 201, 201, 429]
    assert ask(guarded, "POST", ROOT, WANTED, {"sub": "other"})[0] == 201


def test_an_owner_may_open_so_many_streams_a_minute_and_no_eventsource_is_stranded(guarded: Node) -> None:
    """J6: also of jobs that are not there, for each takes a look; no other owner is held up."""
    token, other = bearer(signed({"sub": "listener"})), {"sub": "another"}

    def answers(accept: str) -> list[tuple[int, dict[str, str], bytes]]:
        """More than two minutes' worth, for one may begin meanwhile."""
        path = f"{ROOT}/none/events"
        return [guarded.request("GET", path, Authorization=token, Accept=accept) for _ in range(7)]

    plain = answers("application/json")
    assert [status for status, _, _ in plain[:3]] == [404, 404, 404]
    status, headers, body = next(answer for answer in plain if answer[0] != 404)
    assert (status, json.loads(body)["code"]) == (429, "rate_limited")
    assert 2 <= int(headers["retry-after"]) <= 10
    status, headers, body = next(answer for answer in answers("text/event-stream") if answer[0] != 404)
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    retry = re.match(rb"retry: (\d+)\nevent: rate_limited\ndata: .*\"reconnect\":true}\n\n$", body)
    assert retry is not None
    assert 2_000 <= int(retry[1]) <= 10_000
    with Attempt(guarded.port, f"{ROOT}/{begun(guarded, other)}/events", Authorization=bearer(signed(other))) as stream:
        states(stream, 1)
    assert re.search(rb"ringcast_jobs_streams_refused_total [1-9]", guarded.get("/metrics")[2])


def test_a_job_is_worked_on_by_one_and_goes_to_another_if_that_one_dies(node: Node) -> None:
    """J2."""
    job_id = begun(node)
    assert gets(node, "one", job_id)
    assert not gets(node, "two", job_id)
    assert report(node, job_id, WORKING) == 200
    wait_until(lambda: gets(node, "two", job_id))
    assert report(node, job_id, DONE | {"worker": "two"}) == 200


def test_a_job_that_is_given_back_goes_to_another_at_once(node: Node) -> None:
    """J2: and what the worker before says of it is refused from then on, until it has the job again."""
    texts = ["One. Two.", "Three."]
    job_id = begun(node, topics=["numbers"], texts=texts)
    release = f"{ROOT}/{job_id}/release"
    assert gets(node, "one", job_id)
    assert ask(node, "GET", f"{ROOT}/{job_id}")[1]["texts"] == 2  # they are long, and whoever gave them has them
    assert report(node, job_id, WORKING | {"worker": "one"}) == 200
    assert ask(node, "POST", release, {"worker": "two"})[0] == 409
    assert ask(node, "POST", release, {"worker": "one"})[0] == 204
    assert report(node, job_id, WORKING | {"worker": "one", "progress": 60}) == 409
    assert gets(node, "two", job_id)
    assert ask(node, "GET", f"{ROOT}/{job_id}")[1]["progress"] == 40
    assert report(node, job_id, DONE | {"worker": "one"}) == 409
    assert report(node, job_id, DONE | {"worker": "two"}) == 200
    assert ask(node, "POST", release, {"worker": "two"})[0] == 409
    assert ask(node, "POST", f"{ROOT}/none/release", {"worker": "two"})[0] == 404
    wait_until(lambda: ask(node, "GET", ROOT)[1]["workers"] >= 2)


def test_a_worker_that_says_the_same_again_keeps_its_job(node: Node) -> None:
    """J2: no news for the streams, and a sign that it is at work."""
    job_id = begun(node)
    assert gets(node, "one", job_id)
    assert report(node, job_id, WORKING | {"worker": "one"}) == 200
    said = time.monotonic()
    while time.monotonic() < said + 1.5 * ABANDONED_SECONDS:
        assert report(node, job_id, WORKING | {"worker": "one"}) == 200
        assert not gets(node, "two", job_id)
    wait_until(lambda: gets(node, "two", job_id))
    assert report(node, job_id, DONE | {"worker": "two"}) == 200
    with Attempt(node.port, f"{ROOT}/{job_id}/events", Last_Event_ID="earliest") as stream:
        seen = {state["timestamp"] for state in states_to_the_end(stream) if state["status"] == "processing"}
    assert len(seen) == 1


def test_what_others_publish_on_the_channel_is_no_jobs_state(node: Node) -> None:
    """J3: whoever may publish there may publish anything, and it must not become the beginning of a stream."""
    job_id = begun(node)
    topic = f"jobs/{job_id}"
    lines = json.dumps({"jobId": job_id, "status": "completed"}, indent=1)
    events = [
        {"topic": topic, "data": '{"jobId": "' + job_id + '", "status": "completed"}'},
        {"topic": topic, "data": lines, "private": True},
        {"topic": topic, "data": '{"jobId": "another", "status": "completed"}', "private": True},
        {"topic": topic, "data": "no JSON", "private": True},
    ]
    with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
        states(stream, 1)
        for event in events:
            assert ask(node, "POST", "/channels/jobs/events", event)[0] == 200
        assert [stream.next_event(5).data for _ in events] == [event["data"] for event in events]
        assert report(node, job_id, WORKING) == 200
        assert states(stream, 1)[0]["progress"] == 40
    with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
        assert states(stream, 1)[0]["progress"] == 40


def test_the_service_is_well_and_other_origins_may_use_it(guarded: Node) -> None:
    """J6: `GET /health`; CORS for the pages of an allowed origin, and for no other."""
    assert ask(guarded, "GET", "/health")[1]["status"] == "ok"
    for origin, allowed in (("https://app.example.com", "https://app.example.com"), ("https://evil.example", None)):
        wanted = {"Origin": origin, "Access_Control_Request_Method": "POST"}
        _, headers, _ = guarded.request("OPTIONS", ROOT, **wanted, Access_Control_Request_Headers="authorization")
        assert headers.get("access-control-allow-origin") == allowed


def test_a_stream_lasts_an_hour_at_most_and_the_next_goes_on(guarded: Node) -> None:
    """J7: here three seconds; its reader comes back with its cursor and misses nothing."""
    assert Jobs.policy["max_age_seconds"] <= 3_600
    owner = {"sub": "patient"}
    job_id = begun(guarded, owner)
    path, token = f"{ROOT}/{job_id}/events", bearer(signed(owner))
    with Attempt(guarded.port, path, Authorization=token) as stream:
        states(stream, 1)
        assert report(guarded, job_id, WORKING, OPERATOR) == 200
        assert states(stream, 1)[0]["progress"] == 40
        while stream.next_event(5).type != "max_age":
            pass
    assert report(guarded, job_id, WORKING | {"progress": 70}, OPERATOR) == 200
    with Attempt(guarded.port, path, Authorization=token, Last_Event_ID=last_id(stream)) as stream:
        assert states(stream, 1)[0]["progress"] == 70


def test_a_job_that_nobody_does_is_given_up_and_one_that_has_ended_is_forgotten(tmp_path: Path) -> None:
    """J3: its stream ends, and nothing is kept for ever."""
    database = f"sqlite:{tmp_path}/jobs.db"
    node = Node(tmp_path, apps="jobs", simulate=False, database=database, jobs_keep_seconds=1).start()
    try:
        job_id = begun(node)
        with Attempt(node.port, f"{ROOT}/{job_id}/events") as stream:
            assert states_to_the_end(stream)[-1]["message"].startswith("given up")
        wait_until(lambda: ask(node, "GET", f"{ROOT}/{job_id}")[0] == 404)
    finally:
        node.kill()
