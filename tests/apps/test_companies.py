"""Companies over real sockets: streams, who may see what, flags, statistics."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.companies.application import Companies
from config.settings import Settings
from server.serving import policy_of
from tests.apps.asking import ask, headers_of
from tests.apps.companies import (
    FLAGS,
    HEALTH,
    OPERATOR,
    STATS,
    data,
    metric,
    of,
    opened,
    path_of,
    publish,
    until_stats,
    values,
)
from tests.conftest import StartNode, starting
from tests.faults.witnesses import Attempt
from tests.harness.clocks import WallClock
from tests.harness.databases import DATABASES, new_database
from tests.harness.postgres import PostgresServer
from tests.harness.process import ROOT, TOKEN_SECRET, Node, wait_until
from tests.harness.redis import RedisServer

SETTINGS = {"apps": "companies", "simulate": False, "jwt_secret": TOKEN_SECRET, "drain_seconds": 0}
Start = Callable[..., Node]
HOUR_SECONDS = 3_600
SHARED = pytest.mark.parametrize("start", ["postgresql"], indirect=True)  # SQLite is for a single node


@pytest.fixture(params=DATABASES)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Starts nodes over one database."""
    with starting(tmp_path, **SETTINGS, database=new_database(request, request.param, tmp_path)) as begin:
        yield begin


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with a key for tokens. Take companies of your own."""
    folder = tmp_path_factory.mktemp("companies")
    node = Node(folder, **SETTINGS | {"database": f"sqlite:{folder}/companies.db"}).start()
    yield node
    node.kill()


# --- the stream


def test_a_stream_has_its_company_s_events_and_goes_on_where_it_was(shared: Node) -> None:
    """C1: by parameter as by header; with `last`, from before."""
    with opened(shared, "go-on", of("go-on")) as stream:
        ids = publish(shared, "go-on", 0.1, 0.2, 0.3)
        first, *_ = events = stream.events(3)
        assert [(event.type, event.id) for event in events] == [("metric_updated", own) for own in ids]
        assert data(first) == metric("go-on", 0.1)
    assert stream.headers["content-type"] == "text/event-stream"
    assert stream.headers["cache-control"] == "no-store, no-transform"
    assert stream.headers["connection"] == "close"
    with opened(shared, "go-on", of("go-on"), f"&lastEventId={ids[0]}") as stream:
        assert values(stream, 2) == [0.2, 0.3]
    with opened(shared, "go-on", of("go-on"), Last_Event_ID=ids[1]) as stream:
        assert values(stream, 1) == [0.3]
    with opened(shared, "go-on", of("go-on"), "&last=2") as stream:
        assert values(stream, 2) == [0.2, 0.3]


@pytest.mark.parametrize(
    ("query", "claims", "status", "field"),
    [
        ("", of("a"), 400, "companyId"),
        ("?companyId=", of("a"), 400, "companyId"),
        ("?companyId=a%2Fb", of("a"), 400, "companyId"),
        ("?companyId=%7Bx%7D", of("a"), 400, "companyId"),
        ("?companyId=*", of("a"), 400, "companyId"),
        ("?companyId=a%FF", of("a"), 400, "companyId"),
        (f"?companyId={'a' * 129}", of("a"), 400, "companyId"),
        ("?companyId=a&last=0", of("a"), 400, "last"),
        ("?companyId=a&last=1001", of("a"), 400, "last"),
        ("?companyId=a", None, 401, None),
        ("?companyId=a", {"sub": "nobody's"}, 403, "companyId"),
        ("?companyId=a", of("A"), 403, "companyId"),
        ("?companyId=a", of("b"), 403, "companyId"),
        ("?companyId=a&companyId=b", of("b"), 403, "companyId"),
    ],
)
def test_a_stream_that_is_refused_says_why(
    shared: Node, query: str, claims: dict[str, Any] | None, status: int, field: str | None
) -> None:
    """C1, C4."""
    found, answer = ask(shared, "GET", f"/stream/updates{query}", claims=claims)
    assert (found, answer.get("field")) == (status, field)
    if status == 403:
        reason = "You can only stream events for your own company"
        assert answer == {
            "code": "forbidden",
            "field": "companyId",
            "reason": reason,
            "error": "Forbidden",
            "message": reason,
        }


def test_an_operator_and_development_mode_see_every_company(shared: Node, node: StartNode) -> None:
    """C4: the seed's own curl has no token."""
    with opened(shared, "any", OPERATOR) as stream:
        publish(shared, "any", 0.5)
        assert values(stream, 1) == [0.5]
    server = node(apps="companies", simulate=False)
    with opened(server, "test-company") as stream:
        publish(server, "test-company", 1)
        assert values(stream, 1) == [1]


def test_the_policy_is_the_seed_s() -> None:
    """C3, C6: 24 h, 100 events and the oldest go, 15 minutes, a comment every 30 s; nothing for strangers."""
    policy = policy_of(Settings(relay="redis://127.0.0.1:6379/0"), "companies", Companies.policy)
    assert (policy.retain.seconds, policy.retain.events) == (86_400, 0)
    assert (policy.lag_events, policy.lag_policy, policy.idle_seconds) == (100, "gap", 900)
    assert (policy.heartbeat_seconds, policy.heartbeat_style, policy.anonymous) == (30, "comment", False)


def test_a_slow_reader_loses_the_oldest_and_others_nothing(node: StartNode) -> None:
    """C6: a hundred events behind at most, and the hole is declared."""
    server = node(**SETTINGS, send_buffer_bytes=16_384)
    slow, quick = opened(server, "slow", of("slow")), opened(server, "slow", of("slow"))
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    with slow, quick:
        sent = [float(number) for number in range(20_000)]
        for first in range(0, len(sent), 500):
            publish(server, "slow", *sent[first : first + 500])
            assert values(quick, 500) == sent[first : first + 500]
        blocks = []
        while not blocks or blocks[-1].type != "metric_updated" or data(blocks[-1])["value"] != sent[-1]:
            blocks.append(slow.next_event())
    kinds = [block.type for block in blocks]
    assert "gap" in kinds
    received = [data(block)["value"] for block in blocks if block.type == "metric_updated"]
    assert received == sorted(set(received))
    after = kinds[len(kinds) - kinds[::-1].index("gap") :]
    assert len(after) <= 100


def test_heartbeats_are_comments_and_an_idle_stream_ends(node: StartNode) -> None:
    """C6: with shorter times."""
    server = node(**SETTINGS, channels=json.dumps({"companies": {"heartbeat_seconds": 0.2, "idle_seconds": 3}}))
    with opened(server, "quiet", of("quiet")) as stream:
        assert stream.wait_end()[-1].type == "idle"
    lines = stream.raw.split(b"\n")
    assert lines.count(b":") >= 2
    assert b"event: heartbeat" not in lines


# --- statistics


def test_statistics_and_health_are_the_seed_s(start: Start) -> None:
    """C5: an operator sees all companies; who names none, nothing; without a token there is health without numbers."""
    node = start()
    with opened(node, "a", of("a")), opened(node, "a", of("a")), opened(node, "b", of("b")):
        publish(node, "a", 0.1)
        publish(node, "c", 0.1, 0.2)
        found = until_stats(node, OPERATOR, connections={"a": 2, "b": 1}, replay={"a": 1, "c": 2})
        assert found == {
            "connections": {
                "totalConnections": 3,
                "activeCompanies": 2,
                "connectionsByCompany": {"a": 2, "b": 1},
            },
            "replayCache": {"companies": 2, "totalEvents": 3, "eventsByCompany": {"a": 1, "c": 2}},
            "timestamp": found["timestamp"],
        }
        health = ask(node, "GET", HEALTH, claims=OPERATOR)[1]
        assert health == {
            "status": "ok",
            "streaming": {"enabled": True, "activeConnections": 3, "activeCompanies": 2},
            "timestamp": health["timestamp"],
        }
        for claims in (None, {"sub": "nobody's"}):
            status, health = ask(node, "GET", HEALTH, claims=claims)
            assert (status, health["status"], health["streaming"]) == (200, "ok", {"enabled": True})
    assert ask(node, "GET", STATS)[0] == 401
    status, answer = ask(node, "GET", STATS, claims={"sub": "nobody's"})
    reason = "the token names no company"
    assert (status, answer) == (403, {"code": "forbidden", "reason": reason, "error": "Forbidden", "message": reason})
    until_stats(node, OPERATOR, connections={})
    metrics = node.get("/metrics", **headers_of(OPERATOR))[2].decode()
    assert "ringcast_companies_streams 0.0" in metrics
    assert 'ringcast_companies_refused_total{reason="company"} 0.0' in metrics
    assert "ringcast_companies_simulated" not in metrics  # it is switched off


# --- flags


def test_a_company_is_switched_off_and_on(start: Start) -> None:
    """C4: its streams end, new ones are refused with a reason; others stay; a start changes nothing."""
    node = start()
    flag = f"{FLAGS}/a"
    assert ask(node, "GET", flag, claims=OPERATOR)[0] == 404
    with opened(node, "a", of("a")) as ours, opened(node, "b", of("b")) as others:
        status, answer = ask(node, "PUT", flag, {"streaming": False}, OPERATOR)
        assert (status, answer["companyId"], answer["streaming"]) == (200, "a", False)
        assert [block.type for block in ours.wait_end() if block.data][-1] == "finished"
        publish(node, "b", 0.1)
        assert values(others, 1) == [0.1]
    assert node.stop() == 0
    node.start()
    status, answer = ask(node, "GET", path_of("a"), claims=of("a"))
    assert (status, answer["field"]) == (403, "companyId")
    assert answer["reason"] == "Streaming is switched off for this company"
    assert (answer["error"], answer["message"]) == ("Forbidden", answer["reason"])
    assert ask(node, "GET", HEALTH, claims=of("a"))[1]["streaming"]["enabled"] is False
    assert ask(node, "GET", f"{FLAGS}?limit=1", claims=OPERATOR)[1]["companies"] == [answer_of(node, flag)]
    ask(node, "PUT", flag, {"streaming": True}, OPERATOR)
    wait_until(lambda: ask(node, "GET", HEALTH, claims=of("a"))[1]["streaming"]["enabled"])
    with opened(node, "a", of("a")) as stream:
        publish(node, "a", 0.2)
        assert values(stream, 1) == [0.2]


def answer_of(node: Node, flag: str) -> dict[str, Any]:
    status, answer = ask(node, "GET", flag, claims=OPERATOR)
    assert (status, answer["streaming"]) == (200, False)
    return answer


def test_a_company_that_is_switched_on_again_at_once_is_asked_to_come_back(shared: Node) -> None:
    """C4: so that an EventSource does not give up."""
    flag = f"{FLAGS}/hasty"
    with opened(shared, "hasty", of("hasty")) as stream:
        ask(shared, "PUT", flag, {"streaming": False}, OPERATOR)
        stream.wait_end()
    ask(shared, "PUT", flag, {"streaming": True}, OPERATOR)
    wait_until(lambda: ask(shared, "GET", HEALTH, claims=of("hasty"))[1]["streaming"]["enabled"])
    with Attempt(shared.port, path_of("hasty"), **headers_of(of("hasty"))) as again:
        assert again.status == 200
        [farewell] = again.wait_end()
        assert (farewell.type, data(farewell)["reconnect"]) == ("unavailable", True)


def documented() -> str:
    """The statement that docs/apps/companies.md gives for the flag of company `a`."""
    text = (ROOT / "docs" / "apps" / "companies.md").read_text()
    [statement] = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    return str(statement)


def run(request: pytest.FixtureRequest, node: Node, statement: str) -> None:
    """Run it in the node's database, of which no node is told."""
    kind, _, place = str(node.settings["database"]).partition(":")
    if kind == "sqlite":
        with contextlib.closing(sqlite3.connect(place)) as database, database:
            database.execute(statement)
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    server.tell(statement, database=place.rpartition("/")[2])


def test_the_statement_of_the_docs_switches_a_company_off_with_a_flag_and_without(
    request: pytest.FixtureRequest, start: Start
) -> None:
    """C4."""
    node = start()
    with opened(node, "a", of("a")) as stream:
        run(request, node, documented())
        assert [block.type for block in stream.wait_end(20) if block.data][-1] == "finished"
    assert ask(node, "GET", path_of("a"), claims=of("a"))[0] == 403
    ask(node, "PUT", f"{FLAGS}/a", {"streaming": True}, OPERATOR)
    wait_until(lambda: enabled_for(node)["a"])
    run(request, node, documented())
    wait_until(lambda: not enabled_for(node)["a"], 20)
    assert ask(node, "GET", path_of("a"), claims=of("a"))[0] == 403


def test_companies_may_have_to_be_switched_on_and_that_in_the_database(
    request: pytest.FixtureRequest, start: Start
) -> None:
    """C4: with another default, by a statement that no node is told of."""
    server = start(companies_streaming=False)
    assert ask(server, "GET", path_of("a"), claims=of("a"))[0] == 403
    assert enabled_for(server) == {"nobody": False, "of none": False, "operator": False, "a": False}
    run(request, server, documented().replace("false", "true"))
    wait_until(lambda: enabled_for(server)["a"], 20)
    assert enabled_for(server) == {"nobody": False, "of none": False, "operator": False, "a": True}
    opened(server, "a", of("a")).close()
    assert ask(server, "GET", path_of("b"), claims=of("b"))[0] == 403
    assert ask(server, "GET", f"{FLAGS}/a", claims=OPERATOR)[1]["changed"] == "1970-01-01T00:00:00.000Z"


def enabled_for(node: Node) -> dict[str, bool]:
    """C5: what the health says of streaming, by who asks."""
    callers = {"nobody": None, "of none": {"sub": "nobody's"}, "operator": OPERATOR, "a": of("a")}
    return {name: ask(node, "GET", HEALTH, claims=who)[1]["streaming"]["enabled"] for name, who in callers.items()}


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("a", {}, 422, "streaming"),
        ("a", {"streaming": "no"}, 422, "streaming"),
        ("a", {"streaming": True, "more": 1}, 422, "more"),
        ("a%2Fb", {"streaming": True}, 404, "companyId"),
        ("a" * 129, {"streaming": True}, 404, "companyId"),
    ],
)
def test_a_flag_that_is_none_is_refused(shared: Node, path: str, body: object, status: int, field: str) -> None:
    """C4."""
    found, answer = ask(shared, "PUT", f"{FLAGS}/{path}", body, OPERATOR)
    assert (found, answer["field"]) == (status, field)
    assert ask(shared, "GET", f"{FLAGS}?limit=0", claims=OPERATOR)[1]["field"] == "limit"


# --- two nodes


@SHARED
def test_two_nodes_are_one(start: Start, tmp_path: Path) -> None:
    """C3, C4, C5: published here, read there, replayed on either; numbers add up; a flag reaches both."""
    redis = RedisServer(tmp_path).start()
    try:
        first, second = start(relay=redis.url), start(relay=redis.url)
        with opened(first, "a", of("a")) as here, opened(second, "a", of("a")) as there:
            with opened(second, "b", of("b")):
                ids = publish(first, "a", 0.1) + publish(second, "a", 0.2)
                publish(second, "b", 0.3)
                assert values(here, 2) == values(there, 2) == [0.1, 0.2]
                for node in (first, second):
                    until_stats(node, OPERATOR, connections={"a": 2, "b": 1}, replay={"a": 2, "b": 1})
                    until_stats(node, of("b"), connections={"b": 1}, replay={"b": 1})
            with opened(second, "a", of("a"), f"&lastEventId={ids[0]}") as stream:
                assert values(stream, 1) == [0.2]
            ask(first, "PUT", f"{FLAGS}/a", {"streaming": False}, OPERATOR)
            for stream in (here, there):
                assert [block.type for block in stream.wait_end() if block.data][-1] == "finished"
            assert ask(second, "GET", path_of("a"), claims=of("a"))[0] == 403
        with opened(first, "b", of("b")):
            until_stats(second, OPERATOR, connections={"b": 1})
            assert first.stop() == 0
        until_stats(second, OPERATOR, connections={})
        third = start(relay=redis.url)  # what was there before it counts too
        until_stats(third, OPERATOR, connections={}, replay={"a": 2, "b": 1})
    finally:
        redis.stop()


@SHARED
def test_a_day_is_replayed_and_what_is_older_is_a_declared_gap_on_every_node(start: Start, tmp_path: Path) -> None:
    """C3, C5: 24 h by the clock of Redis, which the log is kept in."""
    clock = WallClock(tmp_path)
    with clock.worn():
        redis = RedisServer(tmp_path).start()
    try:
        nodes = [start(relay=redis.url) for _ in range(2)]
        [before] = publish(nodes[0], "a", 0.1)
        [older] = publish(nodes[1], "a", 0.2)
        clock.set(2 * HOUR_SECONDS)
        kept = publish(nodes[1], "a", 0.3)
        clock.set(25 * HOUR_SECONDS)
        kept += publish(nodes[0], "a", 0.4)
        wait_until(lambda: redis.command("XLEN", "{ringcast:companies}:events") == b":2", 20, "the older events gone")
        nodes.append(start(relay=redis.url))  # it has nothing in memory
        for node in nodes:
            until_stats(node, OPERATOR, replay={"a": 2})
            with opened(node, "a", of("a"), f"&lastEventId={before}") as stream:
                gap = stream.next_event()
                assert (gap.type, data(gap)["reason"], data(gap)["from"]) == ("gap", "history", before)
                assert [block.id for block in stream.events(2)] == kept
            for cursor, count in ((older, 2), (kept[0], 1)):
                with opened(node, "a", of("a"), f"&lastEventId={cursor}") as stream:
                    assert [block.id for block in stream.events(count)] == kept[-count:]
    finally:
        redis.stop()
