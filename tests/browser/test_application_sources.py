"""The applications, read by the clients that were written for the systems they replace: a native EventSource each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.apps import facilities, jobbing, monitoring, pricing
from tests.apps.companies import metric, of, publish
from tests.browser.conftest import OpenPage
from tests.browser.listener import CLOSED, OPEN
from tests.browser.older_clients import Client
from tests.conftest import StartNode
from tests.harness.nats import NatsServer
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.threats.tokens import signed

COMPANIES: dict[str, Any] = {"apps": "companies", "simulate": False, "jwt_secret": TOKEN_SECRET}
JOBS: dict[str, Any] = {"apps": "jobs", "simulate": False}
StartLasting = Callable[..., Node]


@pytest.fixture
def lasting(node: StartNode, tmp_path: Path) -> StartLasting:
    """A factory of servers that lose nothing when they are killed, and whose clients come back soon."""

    def start(**settings: Any) -> Node:
        kept: dict[str, Any] = {"relay": f"sqlite:{tmp_path}/log.db", "database": f"sqlite:{tmp_path}/applications.db"}
        return node(**kept, retry_min_ms=100, retry_max_ms=200, **settings)

    return start


@contextmanager
def killed(server: Node) -> Iterator[Node]:
    """Kill a server, and start it again behind what is done meanwhile: with a server on the same log and database,
    where none of its clients looks."""
    server.kill()
    settings: dict[str, Any] = server.settings
    beside = Node(server.folder, **settings).start()
    try:
        yield beside
    finally:
        beside.kill()
    server.start()


def test_a_facility_s_changes_reach_the_clients_of_one_and_of_a_region(node: StartNode, page: OpenPage) -> None:
    """F1, F2, F3."""
    server = node(**facilities.SETTINGS)
    one, region = Client(page(server), "facility"), Client(page(server), "region")
    for client in (one, region):
        client.wait_state(OPEN)
    facilities.change(server, capacity_status="high", avg_wait_minutes=15)
    assert one.wait_for("Capacity updated:") == [["high"]]
    assert one.wait_for("Wait time updated:") == [[15]]
    changed = {"capacity_status": "high", "avg_wait_minutes": 15}
    assert region.wait_for("updateMapMarker") == [["fac_001", changed]]


def test_a_facility_s_client_with_a_backoff_of_its_own_comes_back(lasting: StartLasting, page: OpenPage) -> None:
    """F1: the document's own way to reconnect, which closes the EventSource and takes a new one."""
    server = lasting(**facilities.SETTINGS)
    client = Client(page(server), "facility that reconnects")
    client.wait_for("SSE connected")
    server.stop()
    server.start()
    client.wait_for("SSE connected", count=2)
    facilities.change(server, capacity_status="full")
    [[event]] = client.wait_for("handleCapacityUpdate")
    body = json.loads(event)
    assert body["id"] and body["timestamp"].endswith("Z")
    assert {"facility_id": "fac_001", "event_type": "capacity_update"}.items() <= body.items()
    assert body["location"] == {"latitude": 6.5244, "longitude": 3.3792}
    assert body["changed_fields"] == {"capacity_status": "full"}


def test_prices_of_the_items_wanted_reach_the_hook_and_again_behind_a_restart(
    lasting: StartLasting, page: OpenPage
) -> None:
    """P1, P2, P6: nulls allowed; its errors, its count of reconnects and its backoff are its own."""
    api = pricing.Api()
    try:
        for item in pricing.NAMES:
            api.trade(item, high=100)
        server = lasting(**pricing.SETTINGS, prices_upstream=api.url, heartbeat_seconds=0.2)
        wait_until(lambda: pricing.ask(server, "/current")[1]["total"] == len(pricing.NAMES))
        client = Client(page(server), "prices")
        client.wait_for("state", 0, True)
        api.trade(11832, high=300)
        api.trade(4151, high=200)
        [[update]] = client.wait_for("onUpdate")
        assert sorted(update) == ["high", "high_time", "item_id", "low", "low_time", "timestamp"]
        assert (update["item_id"], update["high"], update["low"], update["low_time"]) == (4151, 200, None, None)
        server.stop()
        client.wait_for("state", 0, False)
        server.start()
        client.wait_for("state", 0, True, count=2)
        api.trade(2, low=90)
        assert client.wait_for("onUpdate", count=2)[-1][0]["low"] == 90
        assert client.page.run("state[3]") >= 1
    finally:
        api.close()


def test_a_tenant_s_events_reach_its_client_and_none_is_lost_over_a_restart(
    lasting: StartLasting, page: OpenPage
) -> None:
    """M1, M4, E6: with the token in the address; the browser brings its last id by itself."""
    server = lasting(**monitoring.SETTINGS)
    mine, other = monitoring.register(server), monitoring.register(server)
    client = Client(page(server), "monitors", token=mine.token)
    client.wait_state(OPEN)

    def tell(node: Node, *numbers: int) -> None:
        for number in numbers:
            for tenant in (other, mine):
                assert monitoring.broadcast(node, tenant.number, {"monitor_id": str(number)}).status == 200

    tell(server, 1, 2)
    client.wait_for("monitor_check", count=2)
    with killed(server) as beside:
        tell(beside, 3, 4)
    client.wait_for("monitor_check", count=4)
    tell(server, 5)
    opened = {"monitor_id": "5", "alert_rule_id": "1", "rule_name": "Down", "trigger_value": "2", "status": "open"}
    resolved = {"monitor_id": "5", "alert_rule_id": "1", "rule_name": "Down", "status": "resolved"}
    monitoring.broadcast(server, mine.number, opened, "incident_created")
    monitoring.broadcast(server, mine.number, resolved, "incident_resolved")
    client.wait_for("incident_resolved")
    assert client.told == [
        *[["monitor_check", said("monitor_check", {"monitor_id": str(n)}, mine.number)] for n in range(1, 6)],
        ["incident_created", said("incident_created", opened, mine.number)],
        ["incident_resolved", said("incident_resolved", resolved, mine.number)],
    ]


def said(kind: str, data: dict[str, str], tenant: int) -> dict[str, Any]:
    """The body of an event of monitors."""
    return {"type": kind, "data": data, "tenant_id": tenant}


def progress_of(client: Client) -> list[Any]:
    """The job's states, once each: who comes back is told the present one again."""
    return list(dict.fromkeys(update["status"] for [update] in client.of("Job update:")))


def closed_for_good(client: Client) -> None:
    """The end was told, then there was one more request, which told the browser to stop: it has no timer any more."""
    client.wait_state(CLOSED)
    assert client.told[-2:] == [["SSE connection error:"]] * 2
    assert progress_of(client)[-1] == "completed"


def test_a_job_s_client_sees_its_progress_and_stops_with_its_end(node: StartNode, page: OpenPage) -> None:
    """J1, J2, J3: unnamed messages; behind the last the browser does not come back for ever."""
    server = node(**JOBS, retry_min_ms=100, retry_max_ms=200)
    client = Client(page(server), "job")
    client.run("job's progress")
    client.wait_for("Job update:")
    job_id = client.page.run("jobId")
    for update in (jobbing.WORKING, jobbing.DONE):
        assert jobbing.report(server, job_id, update) == 200
    closed_for_good(client)
    assert progress_of(client) == ["pending", "processing", "completed"]
    assert client.of("updateProgressBar")[-1] == [100]
    assert client.of("updateStatusMessage")[-1] == ["ready"]


def test_a_job_s_client_that_comes_after_the_end_is_told_of_it_and_stops(node: StartNode, page: OpenPage) -> None:
    """J3: it has no cursor, and gets one with the end."""
    server = node(**JOBS, retry_min_ms=100, retry_max_ms=200)
    client = Client(page(server), "job")
    assert jobbing.report(server, client.page.run("jobId"), jobbing.DONE) == 200
    client.run("job's progress")
    closed_for_good(client)
    assert progress_of(client) == ["completed"]


def test_clients_of_a_job_that_ended_stop_behind_a_kill_9_of_the_server(lasting: StartLasting, page: OpenPage) -> None:
    """J3: one that comes for the first time then, and one that was away while the job ended."""
    server = lasting(**JOBS)
    there = Client(page(server), "job")
    there.run("job's progress")
    there.wait_for("Job update:")
    job_id = there.page.run("jobId")
    with killed(server) as beside:
        assert jobbing.report(beside, job_id, jobbing.DONE) == 200
    late = Client(page(server), "job's progress", sseEndpoint=f"{jobbing.ROOT}/{job_id}/events")
    closed_for_good(late)
    assert progress_of(late) == ["completed"]
    there.wait_state(CLOSED)
    assert progress_of(there) == ["pending", "completed"]


def test_messages_from_nats_reach_a_company_s_widgets_under_their_names(
    node: StartNode, page: OpenPage, tmp_path: Path
) -> None:
    """C1, C2, C4: with a token in the address, and nothing of another company."""
    nats = NatsServer(tmp_path).start()
    try:
        server = node(**COMPANIES, nats_url=nats.url)
        client = Client(page(server), "company's widgets", token=signed(of("a")))
        client.wait_for("SSE connected")
        wait_until(lambda: "companies" in nats_bridges(server), 20, "the bridge")
        kinds = {
            "metrics.calculated": "metric_updated",
            "metrics.sroi_calculated": "sroi_updated",
            "q2q.completed": "vis_updated",
            "journey.flag_updated": "journey_flag_updated",
        }
        for subject in kinds:
            for company in ("b", "a"):
                nats.publish(subject, json.dumps({"companyId": company, "value": 1}))
        found = client.wait_for("state", 0, count=4)
        data = {"companyId": "a", "value": 1}
        assert sorted(state["type"] for [state] in found) == sorted(kinds.values())
        assert all(state["data"] == data for [state] in found)
    finally:
        nats.stop()


def nats_bridges(server: Node) -> list[str]:
    """Those that listen."""
    operator = signed({"sub": "ops", "ringcast": {"operate": True}})
    bridges = json.loads(server.get("/stats", Authorization=f"Bearer {operator}")[2])["bridges"]
    return [name for name, facts in bridges.items() if facts["active"]]


def test_a_company_s_client_misses_nothing_over_a_restart_nor_while_it_is_closed(
    lasting: StartLasting, page: OpenPage
) -> None:
    """C1, C3, C4, E6: with a cookie, so the document's address is enough. It brings the id that it kept in the address,
    and the browser brings a later one, which counts.
    """
    server = lasting(**COMPANIES)
    tab = page(server)
    tab.run(f"document.cookie = 'mercureAuthorization={signed(of('a'))}; path=/stream'")
    try:
        client = Client(tab, "company")
        client.wait_state(OPEN)
        publish(server, "a", 1, 2)
        client.wait_for("updateDashboardWidget", count=2)
        with killed(server) as beside:
            publish(beside, "b", 0)
            publish(beside, "a", 3, 4)
        client.wait_for("updateDashboardWidget", count=4)
        publish(server, "a", 5)
        assert client.wait_for("updateDashboardWidget", count=5) == [[metric("a", value)] for value in range(1, 6)]
        tab.run("eventSource.close()")
        publish(server, "a", 6, 7)
        client = Client(page(server), "company")
        client.wait_for("updateDashboardWidget", count=2)
        with killed(server) as beside:
            publish(beside, "a", 8)
        client.wait_for("updateDashboardWidget", count=3)
        publish(server, "a", 9)
        assert client.wait_for("Metric updated:", count=4) == [[metric("a", value)] for value in range(6, 10)]
        assert len(client.of("updateDashboardWidget")) == 4
    finally:
        tab.call("Network.clearBrowserCookies")  # they know no ports: other servers would get it too


def test_a_company_s_client_with_another_s_token_is_closed_and_hears_nothing(node: StartNode, page: OpenPage) -> None:
    """C4: 403 ends an EventSource."""
    server = node(**COMPANIES)
    client = Client(page(server), "company's widgets", token=signed(of("b")))
    client.wait_for("SSE error")
    assert client.told == [["SSE error"], ["state", 1, False]]
