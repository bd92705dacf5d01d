"""The page of `companies` in a browser: widgets that change by themselves, the choice of a company, the connection's
state, a token where one is needed. A page that made the browser complain fails its test.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.apps.asking import ask
from tests.apps.companies import FLAGS, OPERATOR, of, publish
from tests.apps.tabs import Tabs, wait_text
from tests.browser.chromium import Page
from tests.conftest import StartNode
from tests.harness.process import TOKEN_SECRET, Node
from tests.threats.tokens import signed

SETTINGS = {"apps": "companies", "simulate": False, "drain_seconds": 0}
Open = Callable[..., Page]


@pytest.fixture
def visit(tabs: Tabs) -> Open:
    """`visit(node, "a")` opens the page of a company."""

    def open_page(node: Node, company: str = "") -> Page:
        return tabs.open(f"{node.url}/apps/companies/{company and '#' + company}")

    return open_page


def say(node: Node, company: str, kind: str, **facts: object) -> None:
    body = {"topic": f"companies/{company}", "type": kind, "private": True}
    body["data"] = json.dumps({"companyId": company, **facts})
    assert ask(node, "POST", "/channels/companies/events", body)[0] == 200


def test_the_widgets_follow_the_stream_of_one_company(node: StartNode, visit: Open) -> None:
    """C1: each kind of event has its widget; what came before the page did is there; another company's is not."""
    server = node(**SETTINGS)
    say(server, "a", "metric_updated", metricName="integration_score", value=0.5)
    page = visit(server, "a")
    wait_text(page, "#state-text", "Live")
    wait_text(page, ".metric .now", "0.5")
    say(server, "b", "metric_updated", metricName="integration_score", value=0.9)
    say(server, "a", "metric_updated", metricName="<b>bold</b>", value=0.25)
    say(server, "a", "sroi_updated", value=3.41, invested=100, returned=341)
    say(server, "a", "vis_updated", value=71.5, dimensions={"belonging": 80})
    say(server, "a", "journey_flag_updated", userId="user-7", flag="needs_mentor")
    wait_text(page, "#sroi-value", "3.41")
    wait_text(page, "#vis-value", "71.5")
    wait_text(page, "#journeys .flag", "Needs mentor")
    assert page.run("document.querySelector('.metric h3').textContent") == "<b>bold</b>"
    assert page.run("document.querySelector('#received').textContent") == "5"
    assert page.run("document.getElementById('simulated').hidden") is True
    wait_text(page, "#kept", "5")
    page.run("document.getElementById('company').value = 'b'")
    page.run("document.getElementById('choose').requestSubmit()")
    wait_text(page, ".metric .now", "0.9")
    wait_text(page, "#sroi-value", "–")


def test_the_page_comes_back_after_the_server_does(node: StartNode, visit: Open, tmp_path: Path) -> None:
    """C1: it says that it waits, and misses nothing."""
    settings = SETTINGS | {"relay": f"sqlite:{tmp_path}/log.db", "retry_min_ms": 50, "retry_max_ms": 100}
    server = node(**settings)
    page = visit(server, "a")
    wait_text(page, "#state-text", "Live")
    server.kill()
    page.wait("['waiting', 'connecting'].includes(document.getElementById('state').dataset.state)")
    again = node(**settings, port=server.port)
    say(again, "a", "metric_updated", metricName="integration_score", value=0.75)
    wait_text(page, ".metric .now", "0.75")
    wait_text(page, "#state-text", "Live")


def test_simulated_data_are_marked_and_the_first_company_is_shown(node: StartNode, visit: Open) -> None:
    """C2."""
    page = visit(node(**SETTINGS | {"simulate": True, "companies_change_seconds": 0.1}))
    wait_text(page, "#state-text", "Live")
    page.wait("document.getElementById('company').value.startsWith('demo-')")
    page.wait("!document.getElementById('simulated').hidden")
    page.run("window.before = document.getElementById('received').textContent")
    page.wait("document.getElementById('received').textContent !== window.before")


def test_a_token_opens_its_own_company_alone(node: StartNode, visit: Open) -> None:
    """C4: and the page says why a stream ended."""
    server = node(**SETTINGS, jwt_secret=TOKEN_SECRET)
    publish(server, "mine", 0.5)
    page = visit(server)
    page.wait("!document.getElementById('door').hidden")
    enter = "document.getElementById('bring-token')"
    page.run(f"{enter}.elements.token.value = {json.dumps(signed(of('mine')))}; {enter}.requestSubmit()")
    wait_text(page, ".metric .now", "0.5")
    assert page.run("document.getElementById('company').value") == "mine"
    assert "token" not in page.run("location.href")
    assert ask(server, "PUT", f"{FLAGS}/mine", {"streaming": False}, OPERATOR)[0] == 200
    wait_text(page, "#notice", "Streaming is switched off for this company")
    page.run("document.getElementById('company').value = 'yours'")
    page.run("document.getElementById('choose').requestSubmit()")
    wait_text(page, "#notice", "You can only stream events for your own company")
    page.run("document.getElementById('leave').click()")
    page.wait("!document.getElementById('door').hidden")
