"""The REST endpoints of `monitors` on SQLite and PostgreSQL: what a tenant has, and that nobody else sees any of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from apps.monitors.handlers import CHANGES_AT_ONCE
from tests.apps.monitoring import SETTINGS, Tenant, ask, body_of, following, register
from tests.harness.databases import DATABASES, new_database
from tests.harness.process import Node, wait_until

MONITORS, RULES, INCIDENTS = "/api/v1/monitors", "/api/v1/alert-rules", "/api/v1/incidents"
NOBODYS = "0" * 24
KINDS = ("alert_rule_created", "alert_rule_updated", "alert_rule_deleted")
OWN = {"monitors_per_tenant": 5, "monitors_min_interval_seconds": 5, "monitors_host_per_minute": 20}
WANTED = {"name": "Shop", "url": "http://127.0.0.1:8080/a?b#c", "interval_seconds": 30}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """With SQLite."""
    node = Node(tmp_path_factory.mktemp("monitors"), **SETTINGS | OWN).start()
    yield node
    node.kill()


@pytest.fixture(scope="module", params=DATABASES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """With either database."""
    if request.param == "sqlite":
        yield request.getfixturevalue("local")
        return
    folder = tmp_path_factory.mktemp("monitors")
    node = Node(folder, **SETTINGS | OWN | {"database": new_database(request, request.param, folder)}).start()
    yield node
    node.kill()


@pytest.fixture
def tenant(server: Node) -> Tenant:
    """A new one."""
    return register(server)


@pytest.fixture(scope="module")
def somebody(local: Node) -> Tenant:
    """One for all tests that leave nothing behind."""
    return register(local)


# --- monitors


def test_a_monitor_is_made_looked_at_changed_and_deleted_and_each_step_is_told(tenant: Tenant) -> None:
    """M5: and said by an event, in the order of the changes."""
    with tenant.stream() as stream:
        stream.next_event()
        answer = tenant.ask("POST", MONITORS, WANTED)
        made = answer.json
        path = f"{MONITORS}/{made['id']}"
        assert (answer.status, answer.headers["location"]) == (201, path)
        assert made | {"created_at": 0, "updated_at": 0} == {
            "id": made["id"], "name": "Shop", "url": "http://127.0.0.1:8080/a?b", "interval_seconds": 30,
            "timeout_seconds": 10.0, "expected_status": None, "check_ssl": True, "enabled": True, "status": "unknown",
            "last_check": None, "created_at": 0, "updated_at": 0,
        }  # fmt: skip
        assert tenant.get(path) == made
        assert tenant.get(MONITORS) == {"monitors": [made], "total": 1, "limit": 50, "offset": 0}
        changed = tenant.ask("PATCH", path, {"name": "New", "expected_status": 204, "enabled": False})
        assert changed.status == 200
        assert changed.json["updated_at"] > made["updated_at"]
        assert (changed.json["name"], changed.json["expected_status"], changed.json["status"]) == ("New", 204, "paused")
        assert tenant.ask("PATCH", path, {"expected_status": None}).json["expected_status"] is None
        assert tenant.ask("DELETE", path).status == 204
        assert tenant.ask("GET", path).status == 404
        assert tenant.ask("DELETE", path).status == 404
        told = [body_of(block) for block in following(stream, 4)]
    assert [one["type"] for one in told] == ["monitor_created", "monitor_updated", "monitor_updated", "monitor_deleted"]
    assert {one["tenant_id"] for one in told} == {tenant.number}
    assert {one["data"]["monitor_id"] for one in told} == {made["id"]}
    assert told[1]["data"]["name"] == "New"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"), ({"name": "x" * 201}, "name"), ({"name": "a\u0000b"}, "name"), ({"name": 5}, "name"),
        ({"name": "a\u202eb"}, "name"), ({"url": ""}, "url"), ({"url": "ftp://a.example/"}, "url"),
        ({"url": "http://u:p@a.example/"}, "url"), ({"url": "http://a.example:22/"}, "url"),
        ({"url": "http://169.254.169.254/"}, "url"), ({"url": "http://[::ffff:7f00:1]/"}, "url"),
        ({"url": "http://a.example/" + "ä" * 1_000}, "url"), ({"url": "http://" + "a." * 200 + "example/"}, "url"),
        ({"interval_seconds": 4}, "interval_seconds"), ({"interval_seconds": 86_401}, "interval_seconds"),
        ({"interval_seconds": "60"}, "interval_seconds"), ({"interval_seconds": 60.5}, "interval_seconds"),
        ({"interval_seconds": True}, "interval_seconds"), ({"interval_seconds": None}, "interval_seconds"),
        ({"timeout_seconds": 0.5}, "timeout_seconds"), ({"timeout_seconds": 11}, "timeout_seconds"),
        ({"expected_status": 99}, "expected_status"), ({"expected_status": 600}, "expected_status"),
        ({"check_ssl": "yes"}, "check_ssl"), ({"enabled": 1}, "enabled"), ({"tenant_id": 1}, "tenant_id"),
    ],
)  # fmt: skip
def test_a_monitor_that_is_not_valid_is_refused_by_its_field(somebody: Tenant, change: Any, field: str) -> None:
    """When it is made and when it is changed."""
    answer = somebody.ask("POST", MONITORS, WANTED | change)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (422, "invalid", field)
    monitor = somebody.make(MONITORS, WANTED)
    answer = somebody.ask("PATCH", f"{MONITORS}/{monitor['id']}", change)
    assert (answer.status, answer.json["field"]) == (422, field)
    assert somebody.get(f"{MONITORS}/{monitor['id']}") == monitor
    assert somebody.ask("DELETE", f"{MONITORS}/{monitor['id']}").status == 204


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [("{", 400, "bad_request"), ("[]", 422, "invalid"), ("{}", 422, "invalid"), ("\\xff", 400, "bad_request")],
)
def test_a_body_that_is_none(somebody: Tenant, body: str, status: int, code: str) -> None:
    answer = somebody.ask("POST", MONITORS, body)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert somebody.ask("POST", MONITORS, "a=b", Content_Type="application/x-www-form-urlencoded").status == 415
    assert somebody.ask("POST", MONITORS, json.dumps({"name": "x" * 70_000})).status == 413


def test_nothing_to_change_is_said(tenant: Tenant) -> None:
    monitor = tenant.make(MONITORS, WANTED)
    assert tenant.ask("PATCH", f"{MONITORS}/{monitor['id']}", {}).status == 422


@pytest.mark.parametrize("wrong", [NOBODYS, "x", "%00", "A" * 24, "..", "a" * 5_000, "%F0%9F%98%80"])
def test_what_is_not_there_is_404(somebody: Tenant, wrong: str) -> None:
    for path in (f"{MONITORS}/{wrong}", f"{MONITORS}/{wrong}/checks", f"{RULES}/{wrong}", f"{INCIDENTS}/{wrong}"):
        answer = somebody.ask("GET", path)
        assert (answer.status, answer.json["code"]) == (404, "not_found"), path
    for path in (f"{MONITORS}/{wrong}", f"{RULES}/{wrong}"):
        assert somebody.ask("DELETE", path).status == 404
        assert somebody.ask("PATCH", path, {"name": "a"}).status == 404


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "offset=-1", "offset=1000001", "limit=1.5"])
def test_a_page_that_is_not_one(somebody: Tenant, query: str) -> None:
    for path in (MONITORS, RULES, INCIDENTS, "/api/v1/checks/latest", "/api/v1/auth/users"):
        answer = somebody.ask("GET", f"{path}?{query}")
        assert (answer.status, answer.json["field"]) == (400, query.partition("=")[0]), path


def test_lists_come_in_pages(tenant: Tenant) -> None:
    made = [tenant.make(MONITORS, WANTED | {"name": f"m{number}"})["id"] for number in range(5)]
    pages = [tenant.get(f"{MONITORS}?limit=2&offset={offset}") for offset in (0, 2, 4)]
    assert [one["id"] for page in pages for one in page["monitors"]] == made
    assert {page["total"] for page in pages} == {5}


def test_a_tenant_has_so_many_monitors_and_rules_and_no_more(tenant: Tenant) -> None:
    for _ in range(5):
        tenant.make(MONITORS, WANTED)
        tenant.rule()
    for path, body in ((MONITORS, WANTED), (RULES, {"name": "a", "trigger_type": "down"})):
        answer = tenant.ask("POST", path, body)
        assert (answer.status, answer.json["code"]) == (409, "conflict")


def test_nobody_has_one_host_asked_too_often(tenant: Tenant) -> None:
    """S48: 20 checks a minute of one host, whatever its paths and spellings."""
    first = tenant.make(MONITORS, WANTED | {"interval_seconds": 5, "url": "http://shop.example/a"})
    tenant.make(MONITORS, WANTED | {"interval_seconds": 10, "url": "http://other.example/"})
    second = WANTED | {"interval_seconds": 6, "url": "http://SHOP.example.:8080/b"}
    answer = tenant.ask("POST", MONITORS, second)
    assert (answer.status, answer.json["field"]) == (409, "interval_seconds")
    made = tenant.make(MONITORS, second | {"interval_seconds": 60})
    path = f"{MONITORS}/{made['id']}"
    assert tenant.ask("PATCH", path, {"interval_seconds": 6}).status == 409
    assert tenant.get(path)["interval_seconds"] == 60
    tenant.ask("PATCH", f"{MONITORS}/{first['id']}", {"enabled": False})
    assert tenant.ask("PATCH", path, {"interval_seconds": 6}).status == 200


def test_a_tenant_changes_things_at_a_rate(local: Node) -> None:
    """M6: each change is an event in the log of all tenants. Another tenant's rate is its own."""
    mine, other = register(local), register(local)
    statuses = [mine.ask("DELETE", f"{MONITORS}/{NOBODYS}").status]
    while statuses[-1] == 404:
        assert len(statuses) < 2_000
        statuses.append(mine.ask("DELETE", f"{RULES}/{NOBODYS}").status)
    assert statuses[-1] == 429
    assert len(statuses) > CHANGES_AT_ONCE
    # Several times: one more may be due at any moment. What gets through is none, and makes nothing.
    wait_until(lambda: mine.ask("POST", MONITORS, {}).status == 429, what="a refusal of a new monitor")
    assert mine.get(MONITORS)["total"] == 0
    assert other.ask("POST", MONITORS, WANTED).status == 201


# --- alert rules


def test_a_rule_is_made_looked_at_changed_and_deleted_and_each_step_is_told(tenant: Tenant) -> None:
    monitor = tenant.make(MONITORS, WANTED)
    with tenant.stream() as stream:
        stream.next_event()
        wanted = {"name": "Slow", "trigger_type": "slow_response", "threshold_value": 500, "breaches": 2, "window": 4}
        made = tenant.make(RULES, wanted | {"monitor_id": monitor["id"]})
        path = f"{RULES}/{made['id']}"
        assert made | {"created_at": 0} == {
            "id": made["id"], "name": "Slow", "monitor_id": monitor["id"], "trigger_type": "slow_response",
            "threshold_value": 500, "breaches": 2, "window": 4, "recoveries": 2, "enabled": True, "created_at": 0,
        }  # fmt: skip
        everybodys = tenant.rule()
        assert tenant.get(path) == made
        assert [rule["id"] for rule in tenant.get(RULES)["alert_rules"]] == [made["id"], everybodys["id"]]
        found = tenant.get(f"{RULES}?monitor_id={NOBODYS}")["alert_rules"]
        assert [rule["id"] for rule in found] == [everybodys["id"]]
        assert tenant.ask("PATCH", path, {"threshold_value": 700, "enabled": False}).json["threshold_value"] == 700
        assert tenant.ask("DELETE", path).status == 204
        assert tenant.ask("GET", path).status == 404
        told = [block.type for block in following(stream, 4, KINDS)]
    assert told == ["alert_rule_created", "alert_rule_created", "alert_rule_updated", "alert_rule_deleted"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"trigger_type": "other"}, "trigger_type"), ({"threshold_value": 5}, "threshold_value"),
        ({"trigger_type": "slow_response"}, "threshold_value"), ({"threshold_value": -1}, "threshold_value"),
        ({"breaches": 0}, "breaches"), ({"breaches": 51}, "breaches"), ({"breaches": 4, "window": 3}, "window"),
        ({"recoveries": 0}, "recoveries"), ({"monitor_id": "x"}, "monitor_id"), ({"monitor_id": NOBODYS}, "monitor_id"),
        ({"name": ""}, "name"), ({"more": 1}, "more"), ({"breaches": "3"}, "breaches"), ({"breaches": [1]}, "breaches"),
    ],
)  # fmt: skip
def test_a_rule_that_is_not_valid_is_refused_by_its_field(somebody: Tenant, change: Any, field: str) -> None:
    answer = somebody.ask("POST", RULES, {"name": "Down", "trigger_type": "down"} | change)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (422, "invalid", field)


def test_a_change_that_does_not_go_together_changes_nothing(tenant: Tenant) -> None:
    rule = tenant.rule()
    for change, field in (({"threshold_value": 5}, "threshold_value"), ({"breaches": 4}, "window")):
        answer = tenant.ask("PATCH", f"{RULES}/{rule['id']}", change)
        assert (answer.status, answer.json["field"]) == (422, field)
    assert tenant.get(f"{RULES}/{rule['id']}") == rule


def test_the_api_is_described(server: Node) -> None:
    paths = ask(server, "GET", "/openapi.json").json["paths"]
    for path in (MONITORS, RULES, INCIDENTS, "/api/v1/auth/login", "/api/v1/stream/events", "/internal/broadcast"):
        assert path in paths
