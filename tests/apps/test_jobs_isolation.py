"""Two owners of jobs: neither sees anything of the other's, by any endpoint, live, replayed, in lists or in errors, on
one node over each database, and on two nodes, where each owner is at his own.

What must not come is found by marks that only the hidden job has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apps.apart import PLACES, Apart, apart
from tests.apps.asking import ask, headers_of
from tests.apps.jobbing import DONE, OPERATOR, ROOT, WANTED, WORKING, begun, report, states
from tests.faults.witnesses import Attempt
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.stream import Block, Stream
from tests.threats.tokens import bearer, signed

MINE, OTHER = {"sub": "the-first-owner"}, {"sub": "the-second-owner"}
SECRET, SOURCE = "nothing for others", "secret-source"
# An issuer who grants readers of the console everything that is public.
CURIOUS = {"sub": "curious", "mercure": {"subscribe": ["*"]}}
NEVER = "0" * 24
# A body for everything that takes one: valid, so that nothing but the owner is in the way.
BODIES: dict[tuple[str, str], object] = {
    ("POST", ROOT): WANTED,
    ("POST", f"{ROOT}/claim"): {"worker": "w"},
    ("POST", f"{ROOT}/{{jobId}}/updates"): WORKING,
    ("POST", f"{ROOT}/{{jobId}}/release"): {"worker": "w"},
}
METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
OUTSIDE = {"X_Forwarded_For": "192.0.2.1"}  # this machine's own are operators

Operation = tuple[str, str]


@pytest.fixture(scope="module", params=PLACES)
def owners(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    """`here` is the node of `MINE`, `there` that of everybody else."""
    settings = {"apps": "jobs", "jwt_secret": TOKEN_SECRET, "simulate": False}
    often = {"jobs_per_minute": 100_000, "jobs_streams_per_minute": 100_000}
    with apart(request, request.param, tmp_path_factory.mktemp("jobs-isolation"), **settings, **often) as nodes:
        yield nodes


def secret_job(node: Node) -> str:
    """A job of `MINE` that everybody would like to know of."""
    return begun(node, MINE, topics=[SECRET], sources=[SOURCE], texts=[SECRET])


def check_hidden(job_id: str, text: str, what: object) -> None:
    """Nothing of the secret job is in an answer."""
    for mark in (job_id, SECRET, SOURCE, MINE["sub"]):
        assert mark not in text, (what, text)


def operations(node: Node) -> list[Operation]:
    """All that the application answers, its stream too, as its description has it."""
    paths = json.loads(node.get("/openapi.json")[2])["paths"]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods if method in METHODS]
    needed = {
        (method.upper(), path)
        for path, methods in paths.items()
        for method, operation in methods.items()
        if "requestBody" in operation
    }
    assert needed == BODIES.keys()
    assert ("GET", f"{ROOT}/{{jobId}}/events") in found
    return found


def answered(node: Node, method: str, path: str, body: object, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer. A stream would have no end."""
    text = None if body is None else json.dumps(body)
    status, found, answer = node.request(method, path, text, Content_Type="application/json", **headers)
    return status, {name: value for name, value in found.items() if name != "date"}, answer


def following(stream: Stream) -> list[Block]:
    """The changes that a stream brings, until it says that its job has ended; without the state at its beginning."""
    found: list[Block] = []
    while (block := stream.next_event(20)).type != "finished":
        if block.type == "message" and block.id is not None:
            found.append(block)
    return found


def told_apart(node: Node, method: str, path: str, job_id: str, **headers: str) -> int:
    """The status of both answers, of which nothing but the id may differ: about this job, and about one that never
    was."""
    body = BODIES.get((method, path))
    of_it, of_none = (answered(node, method, path.format(jobId=one), body, **headers) for one in (job_id, NEVER))
    what = (method, path, headers, of_it)
    assert of_it[0] == of_none[0], what
    assert of_it[1] == {name: text.replace(NEVER, job_id) for name, text in of_none[1].items()}, what
    assert of_it[2] == of_none[2].replace(NEVER.encode(), job_id.encode()), what
    check_hidden(job_id, of_it[2].decode().replace(job_id, ""), what)
    return of_it[0]


@pytest.mark.parametrize("ended", [False, True], ids=["running", "ended"])
def test_to_others_a_job_is_as_one_that_never_was(owners: Apart, ended: bool) -> None:
    """J6: by every path and method, described or not, the same status, headers and bytes but for the id, while it runs
    and afterwards; without a token none of it; and nobody has changed anything."""
    job_id = secret_job(owners.here)
    if ended:
        assert report(owners.here, job_id, DONE | {"message": SECRET}, OPERATOR) == 200
    before = ask(owners.here, "GET", f"{ROOT}/{job_id}", None, OPERATOR)
    of_jobs = [one for one in operations(owners.there) if "{" in one[1]]
    assert len(of_jobs) == 4
    for node in owners.nodes:
        for method, path in of_jobs:
            refused = 404 if method == "GET" else 403
            for claims, wanted in (
                (OTHER, refused),
                (CURIOUS, refused),
                ({"sub": ""}, refused),
                ({}, refused),
                (None, 401),
            ):
                for accepted in ("text/event-stream", "*/*"):
                    assert told_apart(node, method, path, job_id, Accept=accepted, **headers_of(claims)) == wanted
        for path in sorted({path for _, path in of_jobs}):
            for method in METHODS:
                told_apart(node, method.upper(), path, job_id, **headers_of(OTHER))
    assert ask(owners.here, "GET", f"{ROOT}/{job_id}", None, OPERATOR) == before


def test_no_other_operation_shows_or_takes_what_is_another_s(owners: Apart) -> None:
    """J6: a subject is not a pattern, who has none has no jobs, and a job that waits is not taken."""
    job_id = secret_job(owners.here)
    before = ask(owners.here, "GET", f"{ROOT}/{job_id}", None, OPERATOR)
    first = MINE["sub"]
    queries = ("", "?status=pending", "?limit=500", f"?offset=0&owner={first}", f"?jobId={job_id}")
    for method, path in operations(owners.there):
        if "{" in path:
            continue
        for claims in (OTHER, CURIOUS, {"sub": "%"}, {"sub": first.upper()}, {"sub": f"{first}\u2009"}, {}):
            for query in queries:
                body = BODIES.get((method, path))
                status, _, answer = answered(owners.there, method, path + query, body, **headers_of(claims))
                check_hidden(job_id, answer.decode(), (method, path, query, claims))
                assert status == 403 or path != f"{ROOT}/claim"
    for query in queries:
        assert job_id in json.dumps(ask(owners.there, "GET", f"{ROOT}{query}", None, MINE)[1])
    assert ask(owners.here, "GET", f"{ROOT}/{job_id}", None, OPERATOR) == before


def test_a_stream_brings_ones_own_job_alone_live_and_replayed(owners: Apart) -> None:
    """J6: two owners' jobs change at the same time; whatever cursor comes along, also the other's."""
    secret, own = secret_job(owners.here), begun(owners.there, OTHER)
    shown = headers_of(OTHER)
    with (
        Attempt(owners.here.port, f"{ROOT}/{secret}/events", **headers_of(MINE)) as hidden,
        Attempt(owners.there.port, f"{ROOT}/{own}/events", **shown) as stream,
    ):
        states(hidden, 1)
        states(stream, 1)
        for update in [WORKING | {"progress": 50 + number} for number in range(5)] + [DONE]:
            for job_id, said in ((secret, SECRET), (own, "own")):
                assert report(owners.here, job_id, update | {"message": said}, OPERATOR) == 200
        theirs, live = following(hidden), following(stream)
    assert {json.loads(block.data or "")["jobId"] for block in live} == {own}
    assert (len(theirs), len(live)) == (6, 6)
    check_hidden(secret, stream.raw.decode(), "live")
    for cursor, count in (
        ("earliest", 6), (live[0].id, 5), (theirs[0].id, 6), (theirs[3].id, 3), (theirs[5].id, 1),
    ):  # fmt: skip
        for node in owners.nodes:
            with Attempt(node.port, f"{ROOT}/{own}/events", Last_Event_ID=cursor or "", **shown) as again:
                assert [block.id for block in following(again)] == [block.id for block in live[6 - count :]]
            check_hidden(secret, again.raw.decode(), ("replayed", cursor))
            of_it, of_none = (
                node.get(f"{ROOT}/{job_id}/events", Accept="text/event-stream", Last_Event_ID=cursor or "", **shown)
                for job_id in (secret, NEVER)
            )
            assert (of_it[0], of_it[2]) == (404, of_none[2].replace(NEVER.encode(), secret.encode()))


@pytest.mark.parametrize(
    "query", ["", "?topic=*", "?topic=jobs/{id}&topic=news", "?topic=jobs/SECRET&topic=news&last=10",
              "?last_event_id=earliest"],
)  # fmt: skip
def test_the_general_endpoint_of_the_channel_gives_nothing_away(owners: Apart, query: str) -> None:
    """J6: also to a reader whom an issuer lets into that channel, but grants no topics; and to one who has no part in
    it."""
    here, there = owners
    secret = secret_job(here)
    assert report(here, secret, WORKING | {"message": SECRET}, OPERATOR) == 200
    path = f"/channels/jobs/events{query.replace('SECRET', secret)}"
    for claims in (OTHER, MINE, CURIOUS, {}):
        status, _, body = there.get(path, **headers_of(claims))
        assert status in (400, 403, 404), body
        check_hidden(secret, body.decode().replace(secret, ""), path)
    let_in: dict[str, Any] = {"sub": "let in", "ringcast": {"jobs": {"subscribe": ["news"], "publish": ["news"]}}}
    with (
        Attempt(there.port, path, **headers_of(let_in)) as stream,
        Attempt(there.port, f"{ROOT}/{secret}/events", **headers_of(MINE)) as hidden,
    ):
        assert stream.next_event(5).type == "hello"
        assert report(here, secret, WORKING | {"progress": 77, "message": SECRET}, OPERATOR) == 200
        while states(hidden, 1)[0]["progress"] != 77:
            pass  # it is on this node now
        event = {"topic": "news", "data": "public"}
        assert ask(there, "POST", "/channels/jobs/events", event, let_in)[0] == 200
        while stream.next_event(5).data != "public":
            pass
    check_hidden(secret, stream.raw.decode(), path)


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/metrics", "/stats", "/stats?scope=cluster", "/channels", "/openapi.json"]
)
def test_statistics_and_health_name_no_job(owners: Apart, path: str) -> None:
    """J6: neither on the node that streams it nor on another, to whomever."""
    secret = secret_job(owners.here)
    with Attempt(owners.here.port, f"{ROOT}/{secret}/events", **headers_of(MINE)) as stream:
        states(stream, 1)
        wait_until(lambda: watchers(owners.there, secret) == [1], 20, "the other node knows of the stream")
        for node in owners.nodes:
            for claims in (OTHER, CURIOUS, None):
                for where in ({}, OUTSIDE):
                    status, _, body = node.get(path, **headers_of(claims), **where)
                    check_hidden(secret, body.decode(), (path, claims, where))
                    if where and path.startswith(("/metrics", "/stats")):
                        assert status in (401, 403, 404)
            # Who watches a job is for operators to know.
            assert "watchers" not in ask(node, "GET", f"{ROOT}/{secret}", None, MINE)[1]


def watchers(node: Node, job_id: str) -> list[int]:
    """How many streams of a job an operator sees, by node."""
    return list(ask(node, "GET", f"{ROOT}/{job_id}", None, OPERATOR)[1]["watchers"].values())


def test_at_the_public_endpoint_a_job_has_no_events(owners: Apart) -> None:
    """J6: its topic is of another channel."""
    secret = secret_job(owners.here)
    for claims in (OTHER, CURIOUS):
        wanted = f"/.well-known/mercure?topic=jobs/{secret}&topic=news"
        granted = claims | {"mercure": {"subscribe": ["*"], "publish": ["*"]}}
        with Attempt(owners.there.port, wanted, **headers_of(granted), Last_Event_ID="earliest") as stream:
            assert stream.status == 200
            assert report(owners.here, secret, WORKING | {"message": SECRET}, OPERATOR) == 200
            form = {"Content_Type": "application/x-www-form-urlencoded", "Authorization": bearer(signed(granted))}
            assert owners.there.request("POST", "/.well-known/mercure", "topic=news&data=public", **form)[0] == 200
            while stream.next_event(5).data != "public":
                pass
        check_hidden(secret, stream.raw.decode(), wanted)
