"""The worker of `monitors` as a process (M3): it checks real sites, and what it finds reaches the streams."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.apps.monitoring import Ground, Site, Worker, body_of, following, register
from tests.conftest import starting
from tests.harness.databases import DATABASES, new_database
from tests.harness.local_site import LocalSite
from tests.harness.process import Node, free_port
from tests.harness.stream import Block
from tests.nginx.certificate import make_certificate

CHECKS = ("monitor_check",)
INCIDENTS = ("incident_created", "incident_resolved")


class Workshop:
    """A node with a worker for all tests that need no other; each has its own site. On `closed` nobody listens."""

    def __init__(self, node: Node, sites: list[Site], closed: int) -> None:
        self.node = node
        self._sites = sites
        self.closed = closed

    def site(self) -> Site:
        return self._sites.pop()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder, closed = tmp_path_factory.mktemp("workshop"), free_port()
    with starting(folder) as start, Ground(start, folder) as ground:
        sites = [Site() for _ in range(2)]
        ports = ",".join(str(port) for port in (closed, *(site.port for site in sites)))
        made = Workshop(ground.node(monitors_ports=ports), list(sites), closed)
        ground.worker(made.node)
        yield made
        for site in sites:
            site.close()


def data_of(block: Block) -> Any:
    return body_of(block)["data"]


# --- checks and incidents


@pytest.mark.parametrize("kind", DATABASES)
def test_a_site_is_checked_and_its_incidents_open_and_are_resolved(
    ground: Ground, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """M3, M5: from the site to the stream, and to the polling endpoints beside it."""
    started = ground.node(database=new_database(request, kind, tmp_path))
    mine, other = register(started), register(started)
    monitor = mine.monitor(ground.site.url("/health"), timeout_seconds=2)
    rule = mine.rule(breaches=2, monitor_id=monitor["id"])
    paused = mine.monitor(ground.site.url("/paused"), enabled=False)
    foreign = other.monitor(ground.site.url("/foreign"))
    with mine.stream() as stream, other.stream() as others:
        ground.worker(started)
        first = following(stream, 1, CHECKS)[0]
        assert data_of(first) | {"response_time_ms": 0, "checked_at": ""} == {
            "monitor_id": monitor["id"], "monitor_name": "Shop", "success": True, "status_code": 200,
            "response_time_ms": 0, "checked_at": "",
        }  # fmt: skip
        ground.site.status = 503
        [created] = following(stream, 1, INCIDENTS)
        assert body_of(created) == {
            "type": "incident_created",
            "data": {
                "monitor_id": monitor["id"], "alert_rule_id": rule["id"], "rule_name": "Down",
                "trigger_value": "Monitor is down: HTTP status 503", "status": "open",
            },
            "tenant_id": mine.number,
        }  # fmt: skip
        [incident] = mine.get("/api/v1/incidents?status=open")["incidents"]
        assert (incident["monitor_name"], incident["rule_name"]) == ("Shop", "Down")
        assert mine.get("/api/v1/monitors/summary") | {"streams": 0, "unknown": 0} == {
            "monitors": 2, "up": 0, "down": 1, "unknown": 0, "paused": 1, "open_incidents": 1, "streams": 0,
        }  # fmt: skip
        ground.site.status = 302  # a redirect is an answer: it is not followed
        [resolved] = following(stream, 1, INCIDENTS)
        assert data_of(resolved) == {
            "monitor_id": monitor["id"], "alert_rule_id": rule["id"], "rule_name": "Down", "status": "resolved",
        }  # fmt: skip
        assert data_of(following(others, 1, CHECKS)[0])["monitor_id"] == foreign["id"]
    assert "/paused" not in ground.site.paths
    assert ground.site.agents == {"Ringcast"}
    history = mine.get(f"/api/v1/monitors/{monitor['id']}/checks")["checks"]
    assert {True, False} == {check["success"] for check in history}
    assert history == sorted(history, key=lambda check: -check["id"])
    latest = mine.get("/api/v1/checks/latest")["checks"]
    assert [check["monitor_id"] for check in latest] == [monitor["id"]]
    assert mine.get(f"/api/v1/monitors/{paused['id']}")["status"] == "paused"
    assert mine.get("/api/v1/incidents?status=open")["incidents"] == []
    assert monitor["id"] not in json.dumps([other.get("/api/v1/checks/latest"), other.get("/api/v1/incidents")])


def test_what_a_check_finds_wrong_is_said(workshop: Workshop) -> None:
    """M3: silence, refusal, another status, and what strangers must not ask."""
    tenant, site, closed = register(workshop.node), workshop.site(), workshop.closed
    site.delay_seconds = 1.5
    wanted: dict[str, dict[str, Any]] = {
        "silent": {"url": site.url(), "timeout_seconds": 1},
        "refused": {"url": f"http://127.0.0.1:{closed}/"},
        "other": {"url": site.url("/other"), "expected_status": 204},
        "nowhere": {"url": f"http://nowhere.invalid:{site.port}/"},
        "mapped": {"url": f"http://localhost.:{site.port}/late"},
    }
    with tenant.stream() as stream:
        for name, fields in wanted.items():
            tenant.monitor(name=name, interval_seconds=60, **fields)
        found = {data["monitor_name"]: data for data in map(data_of, following(stream, 5, CHECKS))}
    assert {name: data.get("error_message") for name, data in found.items()} == {
        "silent": "no whole answer within 1 s",
        "refused": "the connection was refused",
        "other": "HTTP status 200, expected 204",
        "nowhere": "the name does not lead to a public address",
        "mapped": None,
    }
    assert found["other"]["response_time_ms"] >= 1_400
    assert "status_code" not in found["refused"]


def test_a_certificate_is_looked_at(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """M3: validity and expiry; an own authority by the variable that OpenSSL has for it."""
    made = make_certificate(tmp_path)
    with closing(SecureSite(made.chain, made.key)) as secure:
        started = ground.node(monitors_ports=secure.port)
        tenant = register(started)
        tenant.rule(trigger_type="ssl_expiry", threshold_value=14)
        with tenant.stream() as stream:
            tenant.monitor(f"https://127.0.0.1:{secure.port}/", name="strict", interval_seconds=60)
            tenant.monitor(f"https://127.0.0.1:{secure.port}/", name="lax", interval_seconds=60, check_ssl=False)
            first = ground.worker(started)
            found = {data["monitor_name"]: data for data in map(data_of, following(stream, 2, CHECKS))}
            assert (found["strict"]["success"], found["strict"]["ssl_valid"]) == (False, False)
            assert found["strict"]["error_message"].startswith("the certificate does not hold: self")
            assert (found["lax"]["success"], found["lax"]["ssl_valid"]) == (True, False)
            assert found["lax"]["ssl_expires_at"] == found["strict"]["ssl_expires_at"]
            first.stop()
            monkeypatch.setenv("SSL_CERT_FILE", str(made.chain))
            [strict] = [one for one in tenant.get("/api/v1/monitors")["monitors"] if one["name"] == "strict"]
            ground.worker(started)
            tenant.ask("PATCH", f"/api/v1/monitors/{strict['id']}", {"name": "trusted"})
            while (data := data_of(following(stream, 1, CHECKS)[0]))["monitor_name"] != "trusted":
                pass
            assert (data["success"], data["ssl_valid"]) == (True, True)
    triggers = {one["trigger_value"][:34] for one in tenant.get("/api/v1/incidents")["incidents"]}
    assert triggers <= {"SSL certificate expires in 0 days ", "SSL certificate expires in 1 day ("} and triggers


class SecureSite(LocalSite):
    """A site over TLS."""

    def __init__(self, chain: Path, key: Path) -> None:
        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(204)
                self.end_headers()

        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(chain, key)
        super().__init__(Answers, context=context, forgiving=True)


def test_monitors_that_change_are_checked_as_they_are(workshop: Workshop) -> None:
    """M3: new ones, changed ones and paused ones, while the worker runs."""
    tenant, site = register(workshop.node), workshop.site()
    with tenant.stream() as stream:
        monitor = tenant.monitor(site.url("/first"), interval_seconds=60)
        path = f"/api/v1/monitors/{monitor['id']}"
        following(stream, 1, CHECKS)
        assert tenant.ask("PATCH", path, {"url": site.url("/second")}).status == 200
        following(stream, 1, CHECKS)
        assert site.paths == ["/first", "/second"]
        tenant.ask("PATCH", path, {"enabled": False})
        tenant.ask("PATCH", path, {"enabled": True})
        following(stream, 1, CHECKS)
        assert tenant.ask("DELETE", path).status == 204
        other = tenant.monitor(site.url("/other"))
        assert {data_of(block)["monitor_id"] for block in following(stream, 2, CHECKS)} == {other["id"]}


def test_settings_that_cannot_be_used_end_it_at_once(tmp_path: Path) -> None:
    running = Worker(tmp_path, monitors_ports="http").start()
    assert running.process is not None
    assert running.process.wait(20) == 2
    assert "monitors_ports" in running.log()
