"""The page of `monitors` in a browser: the demo, signing in, a board that changes by itself, the connection's state. A
page that made the browser complain fails its test.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.monitors.model import Outcome
from tests.apps.monitoring import PASSWORD, SETTINGS, Tenant, ask, broadcast, register
from tests.apps.recorded import recorded
from tests.apps.tabs import Tabs, fill, text, wait_text
from tests.browser.chromium import Page
from tests.conftest import StartNode
from tests.harness.process import Node, wait_until
from tests.harness.stream import Stream


@pytest.fixture
def board(tabs: Tabs) -> Any:
    """`board(node)` opens the page."""

    def open_board(node: Node) -> Page:
        page = tabs.open(f"{node.url}/apps/monitors/")
        page.wait("!document.getElementById('door').hidden || !document.getElementById('board').hidden")
        return page

    return open_board


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(tmp_path_factory.mktemp("monitors"), **SETTINGS).start()
    yield node
    node.kill()


def sign_in(page: Page, tenant: Tenant) -> None:
    fill(page, "sign-in", email=tenant.email, password=PASSWORD)
    wait_text(page, "#state-text", "Live")


def test_the_demo_is_there_and_moves(node: StartNode, board: Any) -> None:
    """Simulated, marked as such, in the events too; in development mode alone."""
    started = node(**SETTINGS | {"simulate": True, "monitors_simulated_seconds": 0.05})
    page = board(started)
    page.run("document.getElementById('enter-demo').click()")
    wait_text(page, "#state-text", "Live")
    wait_text(page, "#all", "8")
    page.wait("document.querySelectorAll('.spark .line').length >= 8")
    page.wait("[...document.querySelectorAll('.status')].every((one) => one.textContent.endsWith('simulated'))")
    page.run("window.before = document.getElementById('monitors').textContent")
    page.wait("document.getElementById('monitors').textContent !== window.before")
    page.wait("document.querySelectorAll('#incidents li').length >= 1")
    demo = ask(started, "GET", "/api/v1/auth/options").json["demo"]
    token = ask(started, "POST", "/api/v1/auth/login", demo).json["token"]
    with Stream(started.port, f"/api/v1/stream/events?token={token}") as stream:
        [check] = [json.loads(block.data or "") for block in stream.events(2)][1:]
    assert check["data"]["simulated"] is True
    assert b"ringcast_monitors_simulated_total" in started.get("/metrics")[2]
    page.run("document.getElementById('leave').click()")
    page.wait("!document.getElementById('door').hidden")


def test_there_is_no_demo_where_there_is_a_key(node: StartNode) -> None:
    """Everybody knows how to log in there."""
    started = node(**SETTINGS | {"simulate": True, "jwt_secret": "a secret of at least thirty-two bytes"})
    options = ask(started, "GET", "/api/v1/auth/options").json
    assert options["demo"] is None
    answer = ask(started, "POST", "/api/v1/auth/login", {"email": "demo@example.com", "password": "look-around"})
    assert answer.status == 401


def test_one_registers_adds_a_monitor_and_sees_what_is_found(server: Node, board: Any) -> None:
    page = board(server)
    page.run("document.getElementById('other-way').click()")
    fill(page, "sign-in", email="page@example.com", password=PASSWORD, tenant_name="Page & Sons <b>")
    wait_text(page, "#state-text", "Live")
    wait_text(page, "#tenant", "Page & Sons <b>")
    fill(page, "add", name="<b>Shop</b>", url="https://shop.example:22/", interval_seconds="30")
    page.wait("document.getElementById('add-problem').textContent.startsWith('url: port 22')")
    fill(page, "add", name="<b>Shop</b>", url="https://shop.example/", interval_seconds="30")
    page.wait("document.querySelector('.monitor h3')?.textContent === '<b>Shop</b>'")
    page.wait("!document.getElementById('no-worker').hidden")  # nobody checks it, and the page says so
    assert page.run("document.querySelector('.monitor').dataset.status") == "unknown"


def test_the_board_follows_the_stream(server: Node, board: Any) -> None:
    """M1, M6: checks as they come, the connection's state, and what came while it was away."""
    tenant = register(server, "Shops")
    monitor = tenant.monitor("http://shop.example/", name="Shop")
    page = board(server)
    sign_in(page, tenant)
    wait_text(page, "#all", "1")

    def check(second: int, **facts: object) -> None:
        data = {"monitor_id": monitor["id"], "monitor_name": "Shop", "checked_at": f"2026-01-01T00:00:{second:02}.000Z"}
        assert broadcast(server, tenant.number, data | facts).status == 200

    check(1, success=True, status_code=200, response_time_ms=123)
    wait_text(page, "#up", "1")
    assert page.run("document.querySelector('.time').textContent") == "123 ms"
    check(2, success=False, error_message="HTTP status 503")
    wait_text(page, "#down", "1")
    assert page.run("document.querySelector('.monitor .url').textContent") == "HTTP status 503"
    assert page.run("document.querySelectorAll('.spark .fail').length") == 1
    foreign = register(server)
    broadcast(
        server, foreign.number, {"monitor_id": monitor["id"], "success": True, "checked_at": "2026-01-01T00:01:00Z"}
    )
    check(3, success=True, response_time_ms=7)
    wait_text(page, "#up", "1")
    assert page.run("document.querySelector('.uptime').textContent") == "67 % of 3"


def test_an_incident_opens_on_the_board_and_is_over(server: Node, board: Any) -> None:
    """M1, M4: as the worker tells of it; nothing else makes the page ask."""
    tenant = register(server, "Shops")
    monitor = tenant.monitor("http://shop.example/", name="Shop")
    tenant.rule(name="Shop is down", breaches=1, recoveries=1)
    page = board(server)
    sign_in(page, tenant)
    wait_text(page, "#all", "1")
    wait_text(page, "#open", "0")

    def found(outcome: Outcome, kind: str) -> None:
        check, turn = recorded(f"sqlite:{server.folder}/ringcast.db", monitor["id"], outcome)
        assert broadcast(server, tenant.number, check.data).status == 200
        wait_text(page, "#up" if outcome.success else "#down", "1")
        assert turn.type == kind
        assert broadcast(server, tenant.number, turn.data, kind).status == 200

    found(Outcome(time.time() - 60, success=False, error_message="HTTP status 503"), "incident_created")
    wait_text(page, "#open", "1")
    row = "document.querySelectorAll('#incidents li')"
    page.wait(f"{row}.length === 1 && {row}[0].dataset.status === 'open'")
    assert page.run(f"{row}[0].querySelector('.what').textContent") == "Shop: Shop is down"
    found(Outcome(time.time(), success=True, response_time_ms=7), "incident_resolved")
    wait_text(page, "#open", "0")
    page.wait(f"{row}.length === 1 && {row}[0].dataset.status === 'resolved'")
    assert " · over after " in page.run(f"{row}[0].querySelector('.when').textContent")


def test_the_board_comes_back_after_the_server_does(node: StartNode, board: Any, tmp_path: Path) -> None:
    """M6: it says that it waits, and goes on where it was."""
    settings = SETTINGS | {"relay": f"sqlite:{tmp_path}/log.db", "retry_min_ms": 50, "retry_max_ms": 100}
    started = node(**settings)
    tenant = register(started)
    monitor = tenant.monitor("http://shop.example/")
    page = board(started)
    sign_in(page, tenant)
    wait_text(page, "#all", "1")
    started.kill()
    says = "document.getElementById('state-text').textContent.startsWith('Connection lost, next attempt in')"
    page.wait(f"document.getElementById('state').dataset.state === 'waiting' && {says}")
    again = node(**settings, port=started.port)
    data = {"monitor_id": monitor["id"], "success": False, "checked_at": "2026-01-01T00:00:00Z"}
    assert broadcast(again, tenant.number, data).status == 200
    page.run("document.getElementById('reconnect').click()")
    wait_text(page, "#state-text", "Live")
    wait_text(page, "#down", "1")


def test_who_signs_in_next_sees_nothing_of_who_was_there_before(server: Node, board: Any) -> None:
    """M1: at one screen."""
    tenant = register(server, "The first one")
    tenant.monitor("http://first.example/", name="First shop")
    page = board(server)
    sign_in(page, tenant)
    wait_text(page, "#all", "1")
    page.run("document.getElementById('leave').click()")
    page.wait("!document.getElementById('door').hidden")
    for mark in ("First shop", "first.example", "The first one"):
        assert mark not in page.run("document.body.textContent")
    assert page.run("document.getElementById('sign-in').elements.password.value") == ""
    sign_in(page, register(server))
    wait_text(page, "#all", "0")


def test_a_session_that_is_over_leads_to_the_door(server: Node, board: Any) -> None:
    tenant = register(server)
    page = board(server)
    sign_in(page, tenant)
    body = {"tenant": str(tenant.number), "seconds": 60}
    assert ask(server, "POST", "/revocations", body).status == 200
    page.wait("!document.getElementById('door').hidden")
    assert "Signed out" in text(page, "sign-in-problem") or "over" in text(page, "sign-in-problem")
    fill(page, "sign-in", email=tenant.email, password="not the password")
    wait_text(page, "#sign-in-problem", "the e-mail address or the password is wrong")


def test_the_page_s_files_allow_no_script_but_their_own(server: Node) -> None:
    for name, kind in (("", "text/html"), ("monitors.js", "text/javascript"), ("monitors.css", "text/css")):
        answer = ask(server, "GET", f"/apps/monitors/{name}")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith(kind)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy
    page = ask(server, "GET", "/apps/monitors/").text
    assert "style=" not in page and "onclick" not in page and "<script>" not in page


def test_the_simulation_is_one_node_s_and_stops_with_it(node: StartNode) -> None:
    """Two nodes over one database make the demo once, and check its sites once at a time."""
    settings = SETTINGS | {"simulate": True, "monitors_simulated_seconds": 0.05}
    first = node(**settings)
    second = node(**settings | {"database": f"sqlite:{first.folder}/ringcast.db"})

    def made(one: Node) -> float:
        lines = one.get("/metrics")[2].decode().splitlines()
        return float(next(line for line in lines if line.startswith("ringcast_monitors_simulated_total")).split()[1])

    wait_until(lambda: made(first) > 2, 20)
    assert made(second) == 0
    first.stop()
    wait_until(lambda: made(second) > 2, 20)
    assert len(ask(second, "GET", "/api/v1/auth/options").json["demo"]) == 2
