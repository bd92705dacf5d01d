"""The page of `prices` in a browser: the chart, what comes live, choices of item and period, the connection's state. A
page that made the browser complain fails its test.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.apps.pricing import NAMES, SETTINGS, Api, ask, metric
from tests.apps.tabs import Tabs, wait_text
from tests.browser.chromium import Page
from tests.conftest import StartNode
from tests.harness.process import Node, wait_until


@pytest.fixture
def market(tabs: Tabs) -> Any:
    """`market(node)` opens the page, for an item and a period."""

    def open_market(node: Node, choice: str = "") -> Page:
        return tabs.open(f"{node.url}/apps/prices/{choice and '#'}{choice}")

    return open_market


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    upstream = Api()
    for item_id in NAMES:
        upstream.trade(item_id, high=1_000 + item_id, low=900 + item_id)
    yield upstream
    upstream.close()


def skipped(node: Node) -> float:
    """How many histories were computed because the page asked for that."""
    lines = node.get("/metrics")[2].decode().splitlines()
    mine = [line for line in lines if "/history/{id}" in line and 'outcome="skip"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in mine)


def points(page: Page) -> int:
    return int(page.run("document.getElementById('chart').dataset.points"))


def test_the_chart_has_its_past_and_its_tip_moves(node: StartNode, market: Any) -> None:
    """P1, P4: a change shows without being asked for; item and period are chosen, and what is made up is marked."""
    started = node(**SETTINGS | {"simulate": True, "prices_simulated_seconds": 0.05})
    wait_until(lambda: ask(started, "/current")[1]["total"] >= 40, 20)
    page = market(started)
    wait_text(page, "#state-text", "LIVE")
    wait_text(page, "#item-name", "Abyssal whip")
    page.wait("document.querySelectorAll('#chart .line').length === 4 && !!document.querySelector('#chart .halo')")
    assert page.run("document.getElementById('simulated').hidden") is False
    assert page.run("document.querySelectorAll('#items li').length") == 40
    page.run("window.before = document.getElementById('high').textContent")
    page.wait("document.getElementById('high').textContent !== window.before")
    page.wait("document.getElementById('ago').textContent.startsWith('Updated ')")
    page.run("document.querySelector('#items li[data-item=\"2\"] button').click()")
    wait_text(page, "#item-name", "Cannonball")
    counts = {}
    for period in ("1h", "7d", "1y", "all"):
        page.run(
            f"[...document.querySelectorAll('#periods button')].find((one) => one.textContent === '{period}').click()"
        )
        page.wait(f"document.getElementById('chart').getAttribute('aria-label').startsWith('Cannonball, {period}: ')")
        counts[period] = page.wait("Number(document.getElementById('chart').dataset.points)")
    assert counts["7d"] > 300 and counts["1y"] > 350 and counts["all"] > 390
    assert page.run("location.hash") == "#2/all"
    page.run("document.getElementById('search').value = 'bandos'")
    page.run("document.getElementById('search').dispatchEvent(new Event('input'))")
    page.wait("document.querySelectorAll('#items li').length === 2")


def test_what_is_traded_is_drawn_and_a_lost_connection_is_shown(node: StartNode, market: Any, api: Api) -> None:
    """P1, P2, P5: live prices as they are; the first look skips the cache; afterwards it goes on where it was."""
    settings = SETTINGS | {"prices_upstream": api.url, "retry_min_ms": 50, "retry_max_ms": 100}
    started = node(**settings)
    wait_until(lambda: ask(started, "/current")[1]["total"] >= 3, 20)
    page = market(started, "11832/1h")
    wait_text(page, "#state-text", "LIVE")
    wait_text(page, "#item-name", "Bandos chestplate")
    assert page.run("document.getElementById('simulated').hidden") is True
    wait_until(lambda: skipped(started) > 0)
    api.trade(11832, high=19_876_543)
    wait_text(page, "#high", "19,876,543")
    before = points(page)
    api.trade(11832, low=19_111_222)
    wait_text(page, "#low", "19,111,222")
    assert points(page) >= before
    started.kill()
    page.wait("['waiting', 'offline'].includes(document.getElementById('state').dataset.state)")
    page.wait("!document.querySelector('#chart .halo')")
    again = node(**settings, port=started.port)
    wait_until(lambda: metric(again, "looks_total") > 0, 20)
    page.run("document.getElementById('reconnect').click()")
    wait_text(page, "#state-text", "LIVE")
    api.trade(11832, high=20_000_001)
    wait_text(page, "#high", "20,000,001")


def test_without_a_stream_the_page_asks_now_and_then(node: StartNode, market: Any, api: Api) -> None:
    """P7: everything else goes on; the page says that it is offline, and what it shows is not old for long."""
    started = node(**SETTINGS | {"prices_upstream": api.url, "prices_stream": False})
    wait_until(lambda: ask(started, "/current")[1]["total"] >= 3, 20)
    assert ask(started, "/stream")[0] == 404
    page = market(started, "2/24h")
    wait_text(page, "#state-text", "Offline")
    wait_text(page, "#item-name", "Cannonball")
    api.trade(2, high=4_321)
    wait_text(page, "#high", "4,321")
    page.wait("document.querySelectorAll('#chart .line').length === 4")
