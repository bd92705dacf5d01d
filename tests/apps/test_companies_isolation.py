"""Two companies: neither sees anything of the other's, live, replayed, in statistics, in errors, at the general
endpoint; on one node over each database, and on two nodes, where each company is at its own.

What must not come is found by marks: the ids of companies, each of one test alone, and a value that no other has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apps.apart import PLACES, Apart, apart
from tests.apps.asking import ask, headers_of
from tests.apps.companies import (
    FLAGS,
    GENERAL,
    HEALTH,
    OPERATOR,
    STATS,
    of,
    opened,
    publish,
    until_stats,
    values,
)
from tests.faults.witnesses import Attempt
from tests.harness.process import TOKEN_SECRET, Node, wait_until

SETTINGS = {"apps": "companies", "simulate": False, "jwt_secret": TOKEN_SECRET}
SECRET = 0.73310421
NEVER = "never-was-there"
OUTSIDE = {"X_Forwarded_For": "192.0.2.1"}  # this machine's own are operators
METHODS = ("get", "head", "post", "put", "patch", "delete", "options")


@pytest.fixture(scope="module", params=PLACES)
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    """`here` is the node of the company whose things are hidden, `there` that of the other. Take companies of your
    own."""
    with apart(request, request.param, tmp_path_factory.mktemp("companies-isolation"), **SETTINGS) as nodes:
        yield nodes


def check_hidden(company: str, text: str, what: object) -> None:
    """Nothing of the company is in an answer."""
    for mark in (company, str(SECRET)):
        assert mark not in text, (what, text)


def operations(node: Node) -> list[tuple[str, str]]:
    """All that the application answers, its stream too, as its description has it; each path with `{companyId}`, by
    which the other's can be asked for, also where nothing is described that could name one."""
    paths = json.loads(node.get("/openapi.json")[2])["paths"]
    found = [
        (method.upper(), path if "{companyId}" in path else f"{path}?companyId={{companyId}}")
        for path, methods in paths.items()
        for method in methods
        if method in METHODS
    ]
    assert {(method, path.partition("?")[0]) for method, path in found} >= {
        ("GET", "/stream/updates"), ("GET", STATS), ("GET", HEALTH), ("GET", FLAGS), ("PUT", f"{FLAGS}/{{companyId}}"),
    }  # fmt: skip
    return found


def answered(node: Node, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer, without the time that it tells. A stream would have no end."""
    body = json.dumps({"streaming": True}) if method == "PUT" else None
    status, found, answer = node.request(method, path, body, Content_Type="application/json", **headers)
    text = json.loads(answer) if answer.startswith(b"{") else {}
    answer = answer.replace(str(text.get("timestamp", "-")).encode(), b"-")
    return status, {name: value for name, value in found.items() if name != "date"}, answer


def test_two_companies_see_nothing_of_each_other_live_and_in_figures(places: Apart) -> None:
    """C4, C5: at the same time, each at its own node, with events that come by either."""
    here, there = places
    one, two = of("one"), of("two")
    with opened(here, "one", one) as ours, opened(there, "two", two) as theirs:
        publish(there, "one", 0.1)
        publish(here, "two", SECRET, SECRET)
        publish(here, "one", 0.3)
        assert values(ours, 2) == [0.1, 0.3]
        assert values(theirs, 2) == [SECRET, SECRET]
        check_hidden("two", ours.raw.decode(), "live")
        for node in places.nodes:
            found = until_stats(node, one, connections={"one": 1}, replay={"one": 2})
            assert (found["connections"]["totalConnections"], found["connections"]["activeCompanies"]) == (1, 1)
            assert (found["replayCache"]["totalEvents"], found["replayCache"]["companies"]) == (2, 1)
            health = ask(node, "GET", HEALTH, claims=one)[1]["streaming"]
            assert health == {"enabled": True, "activeConnections": 1, "activeCompanies": 1}


def test_a_replay_brings_one_s_own_whosever_the_cursor_is(places: Apart) -> None:
    """C1, C4: on either node, and what comes then is one's own too."""
    here, there = places
    [first] = publish(here, "replayed", 0.1)
    foreign = publish(there, "foreign", SECRET, SECRET)
    [last] = publish(there, "replayed", 0.2)
    came = [0.1, 0.2]
    for node in places.nodes:
        for query, count in (
            ("&lastEventId=earliest", 0), (f"&lastEventId={first}", 1), (f"&lastEventId={foreign[0]}", 1),
            (f"&lastEventId={foreign[1]}", 1), (f"&lastEventId={last}", 2), ("&last=1000", 0),
        ):  # fmt: skip
            with opened(node, "replayed", of("replayed"), query) as stream:
                assert values(stream, len(came) - count) == came[count:]
                publish(here, "foreign", SECRET)
                came.append(came[-1] + 1)
                publish(there, "replayed", came[-1])
                assert values(stream, 1) == came[-1:]
                check_hidden("foreign", stream.raw.decode(), query)


def test_the_general_endpoint_gives_nothing_away(places: Apart) -> None:
    """C4: to a company's token the channel is not there; with a grant for a topic it has this topic alone."""
    here, there = places
    assert ask(there, "GET", GENERAL)[0] == 401
    assert ask(there, "GET", GENERAL, claims=of("general"))[0] == 404
    granted = of("general") | {"ringcast": {"companies": {"subscribe": ["companies/general"]}}}
    came = [0.2]
    publish(here, "general", *came)
    for query in ("", "&topic=*", "&topic=companies/another&topic=companies/general"):
        publish(here, "another", SECRET)
        with Attempt(there.port, f"{GENERAL}?lastEventId=earliest{query}", **headers_of(granted)) as stream:
            assert values(stream, len(came)) == came
            publish(here, "another", SECRET)
            came.append(came[-1] + 1)
            publish(here, "general", came[-1])
            assert values(stream, 1) == came[-1:]
            check_hidden("another", stream.raw.decode(), query)
    body = {"topic": "companies/another", "data": "{}"}
    assert ask(there, "POST", GENERAL, body, granted)[0] == 403


def test_a_stranger_at_the_general_endpoint_is_no_stream_of_a_company(places: Apart) -> None:
    """C5: who may select a topic but not read it does not count."""
    granted = of("near") | {"ringcast": {"companies": {"subscribe": ["companies/near"]}}}
    with Attempt(places.there.port, f"{GENERAL}?topic=companies/far", **headers_of(granted)) as stream:
        assert stream.next_event().type == "hello"
        with opened(places.here, "near", of("near")):
            for node in places.nodes:
                wait_until(lambda node=node: counted(node).get("near") == 1, 20, "the stream is known everywhere")
                assert counted(node).get("far") is None


def counted(node: Node) -> dict[str, int]:
    """Streams by company, as an operator sees them."""
    found: dict[str, int] = ask(node, "GET", STATS, claims=OPERATOR)[1]["connections"]["connectionsByCompany"]
    return found


@pytest.mark.parametrize("company", ["busy", "switched-off"])
def test_no_operation_tells_another_company_from_one_that_never_was(places: Apart, company: str) -> None:
    """C4, C5: each path and method that there is: the same status, headers and bytes, whether it has streams, events
    and a flag or not; and its flag is what it was."""
    here, there = places
    flag = ask(here, "PUT", f"{FLAGS}/{company}", {"streaming": company == "busy"}, OPERATOR)[1]
    publish(here, company, SECRET)
    known = {"enabled": company == "busy"}
    wait_until(lambda: known.items() <= ask(there, "GET", HEALTH, claims=of(company))[1]["streaming"].items())
    strangers: list[dict[str, Any] | None] = [
        of("stranger"), of(company.upper()), of("*"), of(f"{company}2"), {"sub": company}, {"tenant": company}, None,
    ]  # fmt: skip
    paths = sorted({path for _, path in operations(there)})
    for node in places.nodes:
        for claims in strangers:
            shown = headers_of(claims) | {"Accept": "text/event-stream", "Last_Event_ID": "earliest"}
            for method, path in operations(there):
                of_it, of_none = (answered(node, method, path.format(companyId=it), **shown) for it in (company, NEVER))
                assert of_it == of_none, (method, path, claims)
                check_hidden(company, of_it[2].decode(), (method, path, claims))
                if path.startswith(("/stream/updates", FLAGS)):
                    assert of_it[0] == (401 if claims is None else 403), (method, path, claims)
        for path in paths:
            for method in map(str.upper, METHODS):
                of_it, of_none = (
                    answered(node, method, path.format(companyId=it), **headers_of(of("stranger")))
                    for it in (company, NEVER)
                )
                assert of_it == of_none, (method, path)
    for method, path in operations(there):
        if path.startswith(FLAGS):  # nor is one's own flag for oneself
            assert answered(there, method, path.format(companyId=company), **headers_of(of(company)))[0] == 403
    assert ask(there, "GET", f"{FLAGS}/{company}", claims=OPERATOR)[1] == flag
    assert ask(there, "GET", f"{FLAGS}/{NEVER}", claims=OPERATOR)[0] == 404


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/metrics", "/stats", "/stats?scope=cluster", "/channels", "/openapi.json"]
)
def test_figures_of_the_server_name_no_company(places: Apart, path: str) -> None:
    """C4: neither on the node that streams to it nor on another, to whomever."""
    here, there = places
    with opened(here, "watched", of("watched")):
        publish(there, "watched", SECRET)
        wait_until(lambda: counted(there).get("watched") == 1, 20, "the other node knows of the stream")
        for node in places.nodes:
            for claims in (of("stranger"), None):
                for where in ({}, OUTSIDE):
                    status, _, body = node.get(path, **headers_of(claims), **where)
                    check_hidden("watched", body.decode(), (path, claims, where))
                    if where and path.startswith(("/metrics", "/stats")):
                        assert status in (401, 403, 404)
