"""Two tenants of `monitors`: whatever one asks for, by whichever way, nothing of the other's comes.

What must not come is found by marks: names, addresses and ids that only the other's things have.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apps.monitoring import PASSWORD, SETTINGS, Answer, Tenant, ask, body_of, broadcast, following, register
from tests.harness.databases import DATABASES, new_database
from tests.harness.process import TOKEN_SECRET, Node
from tests.harness.stream import Stream
from tests.threats.tokens import bearer, signed

SECRET = "a secret of the worker"
SHOWN = {"X_Internal_Secret": SECRET}
MARK = "foreign"
URL = f"http://{MARK}.example/"
AUTH = "/api/v1/auth"
# A body for everything that takes one: valid, so that nothing but the tenant is in the way.
BODIES: dict[tuple[str, str], object] = {
    ("POST", "/api/v1/monitors"): {"name": "a", "url": "http://a.example/"},
    ("PATCH", "/api/v1/monitors/{monitor_id}"): {"name": "stolen"},
    ("POST", "/api/v1/alert-rules"): {"name": "a", "trigger_type": "down"},
    ("PATCH", "/api/v1/alert-rules/{rule_id}"): {"name": "stolen"},
    ("POST", f"{AUTH}/register"): {"email": "third@example.com", "password": PASSWORD},
    ("POST", f"{AUTH}/login"): {"email": "nobody@example.com", "password": PASSWORD},
    ("POST", f"{AUTH}/users"): {"email": "fourth@example.com", "password": PASSWORD},
    ("POST", "/internal/broadcast"): {"type": "monitor_check", "data": {"monitor_id": "m"}, "tenant_id": 1},
}
LAST = ("POST", f"{AUTH}/logout")  # after which the token is no good


class Foreign:
    """A tenant that has one of everything, an open incident too."""

    def __init__(self, node: Node) -> None:
        self.tenant = register(node, MARK)
        self.email = f"{MARK}-{self.tenant.email}"
        self.tenant.make(f"{AUTH}/users", {"email": self.email, "password": PASSWORD})
        self.user = self.tenant.get(f"{AUTH}/users")["users"][1]["id"]
        self.monitor = self.tenant.make("/api/v1/monitors", {"name": f"{MARK} shop", "url": URL})["id"]
        self.rule = self.tenant.rule(name=f"{MARK} rule", monitor_id=self.monitor)["id"]

    def say(self, node: Node) -> Answer:
        """One event of it."""
        return broadcast(node, self.tenant.number, {"monitor_id": self.monitor, "monitor_name": MARK}, **SHOWN)

    def arguments(self) -> dict[str, object]:
        """Its ids, as a path may name them."""
        return {"monitor_id": self.monitor, "rule_id": self.rule, "user_id": self.user, "incident_id": 1}

    def state(self) -> Any:
        """All that it sees of itself."""
        paths = ("/api/v1/monitors", "/api/v1/alert-rules", "/api/v1/incidents", "/api/v1/checks/latest")
        return [self.tenant.get(path) for path in (*paths, f"{AUTH}/users", f"/api/v1/monitors/{self.monitor}/checks")]

    def check_hidden(self, text: str, what: object) -> None:
        """Nothing of it is in an answer."""
        for mark in (MARK, self.monitor, self.rule, self.tenant.email):
            assert mark not in text, (what, text)


@pytest.fixture(scope="module", params=DATABASES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """With a key, so that the engine's own endpoints are closed too."""
    folder = tmp_path_factory.mktemp("monitors")
    own = {"jwt_secret": TOKEN_SECRET, "monitors_secret": SECRET}
    database = new_database(request, request.param, folder)
    node = Node(folder, **SETTINGS | own | {"database": database}).start()
    yield node
    node.kill()


@pytest.fixture(scope="module")
def foreign(server: Node) -> Foreign:
    return Foreign(server)


@pytest.fixture
def mine(server: Node) -> Tenant:
    return register(server, "mine")


@pytest.fixture(scope="module")
def somebody(server: Node) -> Tenant:
    """One for all tests that leave nothing behind."""
    return register(server, "mine")


def operations(node: Node) -> list[tuple[str, str]]:
    """All that the application answers, as its description has it."""
    found = [
        (method.upper(), path)
        for path, methods in ask(node, "GET", "/openapi.json").json["paths"].items()
        for method in methods
        if method in ("get", "post", "put", "patch", "delete") and "/stream/" not in path
    ]
    assert len(found) > 20
    return sorted(found, key=lambda one: one == LAST)


def test_no_endpoint_shows_or_changes_what_is_another_s(server: Node, foreign: Foreign, mine: Tenant) -> None:
    """M1, M5: each path and method that there is, with the other's ids wherever an id may be."""
    before = foreign.state()
    for method, path in operations(server):
        body = BODIES.get((method, path))
        assert body is not None or method in ("GET", "DELETE") or path.endswith(("refresh", "logout")), (method, path)
        answer = mine.ask(method, path.format(**foreign.arguments()), body)
        foreign.check_hidden(answer.text, (method, path))
        assert answer.status < 500
        if "{" in path:
            assert answer.status == 404, (method, path)
        elif method == "GET" and path != f"{AUTH}/options":
            filtered = mine.ask(method, f"{path}?monitor_id={foreign.monitor}")
            foreign.check_hidden(filtered.text.replace(foreign.monitor, "", 1), (method, path))
    assert foreign.state() == before


def test_what_is_another_s_and_what_is_nobody_s_are_told_apart_by_nothing(
    server: Node, foreign: Foreign, mine: Tenant
) -> None:
    """M5: errors tell nobody what there is."""
    nobodys = {"monitor_id": "0" * 24, "rule_id": "0" * 24, "user_id": 10**9, "incident_id": 10**9}
    for method, path in operations(server):
        if "{" in path:
            body = BODIES.get((method, path))
            answers = [mine.ask(method, path.format(**ids), body) for ids in (foreign.arguments(), nobodys)]
            assert answers[0].status == answers[1].status == 404
            assert answers[0].json == answers[1].json
    rule = {"name": "a", "trigger_type": "down"}
    refused = [
        mine.ask("POST", "/api/v1/alert-rules", rule | {"monitor_id": one}) for one in (foreign.monitor, "0" * 24)
    ]
    assert refused[0].status == 422
    assert refused[0].json == refused[1].json


def test_a_tenant_s_events_are_its_own_live_and_replayed(server: Node, foreign: Foreign, mine: Tenant) -> None:
    """M1, S31: whatever cursor comes along; changes, too."""
    with mine.stream() as stream, foreign.tenant.stream() as others:
        start = stream.next_event().id
        others.next_event()
        for number in range(10):
            assert foreign.say(server).status == 200
            assert broadcast(server, mine.number, {"monitor_id": f"m{number}"}, **SHOWN).status == 200
        foreign.tenant.rule(name=f"{MARK} too")
        made = mine.rule(name="last")
        live = following(stream, 11)
        theirs = following(others, 10)
    assert [body_of(block)["data"].get("monitor_id") for block in live[:10]] == [f"m{number}" for number in range(10)]
    assert body_of(live[10])["data"]["alert_rule_id"] == made["id"]
    assert {body_of(block)["tenant_id"] for block in theirs} == {foreign.tenant.number}
    cursors = (
        ("", start, 11),
        ("", theirs[0].id, 11),
        ("", theirs[5].id, 6),
        ("", "earliest", 11),
        ("&last=5", None, 5),
    )
    for query, cursor, count in cursors:
        with mine.stream(query=query, Last_Event_ID=cursor) as stream:
            replayed = following(stream, count)
        assert {body_of(block)["tenant_id"] for block in replayed} == {mine.number}
        foreign.check_hidden(stream.raw.decode(), (query, cursor))
        assert [block.id for block in replayed] == [block.id for block in live[-count:]]


@pytest.mark.parametrize(
    "path",
    [
        "/channels/monitors/events", "/channels/monitors/events?topic={topic}", "/channels/monitors/events?topic=*",
        "/channels/monitors/events?topic=tenants/{{number}}&last=100", "/.well-known/mercure?topic={topic}",
    ],
)  # fmt: skip
def test_the_general_endpoints_stream_nothing_of_a_tenant_to_another(
    server: Node, foreign: Foreign, somebody: Tenant, path: str
) -> None:
    """M1: to a tenant's token the channel is not there, and to nobody's either."""
    foreign.say(server)
    wanted = path.format(topic=f"tenants/{foreign.tenant.number}")
    shown: dict[str, Any] = {"Authorization": bearer(somebody.token)}
    for headers in (shown, {}):
        with Stream(server.port, wanted, Accept="*/*", Last_Event_ID="earliest", **headers) as stream:
            if stream.status == 200:  # another channel's: there it holds nothing
                assert "/channels/monitors/" not in wanted
            else:
                assert stream.status in (401, 403, 404)
                foreign.check_hidden(stream.body().decode(), wanted)


def test_who_may_read_the_channel_still_sees_only_what_was_granted(
    server: Node, foreign: Foreign, mine: Tenant
) -> None:
    """M1: events are private to their topic, on the general endpoint as on the tenant's own."""
    granted = {"ringcast": {"monitors": {"subscribe": [f"tenants/{mine.number}"]}}}
    header: dict[str, Any] = {"Authorization": bearer(signed(granted))}
    foreign.say(server)
    answer = broadcast(server, mine.number, {"monitor_id": "m"}, **SHOWN)
    for topic in ("", "&topic=*", f"&topic=tenants/{foreign.tenant.number}&topic=tenants/{mine.number}"):
        with Stream(server.port, f"/channels/monitors/events?last=100{topic}", **header) as stream:
            [block] = following(stream, 1)
            assert block.id == answer.json["id"]
            foreign.check_hidden(stream.raw.decode(), topic)


@pytest.mark.parametrize("path", ["/stats", "/metrics", "/ready", "/health", "/channels", "/openapi.json"])
def test_figures_tell_a_tenant_nothing_of_another(server: Node, foreign: Foreign, somebody: Tenant, path: str) -> None:
    """M1: how many streams and monitors there are is everybody's own, or the operator's."""
    with foreign.tenant.stream() as stream:
        stream.next_event()
        answer = somebody.ask("GET", path, X_Forwarded_For="192.0.2.1")  # this machine's own are the operator's
        foreign.check_hidden(answer.text, path)
        if path in ("/stats", "/metrics"):
            assert answer.status in (401, 403, 404)
        summary = somebody.get("/api/v1/monitors/summary")
    assert (summary["monitors"], summary["open_incidents"], summary["streams"]) == (0, 0, 0)
    assert json.dumps(foreign.tenant.get("/api/v1/monitors/summary")) != json.dumps(summary)
