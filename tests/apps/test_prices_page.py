"""The page of `prices` in a browser: the chart, what comes live, choices of item and period, the connection's state. A
page that made the browser complain fails its test.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

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


class Drawn(NamedTuple):
    """What one sees of what buyers pay, at one moment: the number, and by the labels of the chart's axis the prices
    that the line goes through, that of the tip, and how much a pixel is."""

    number: float
    line: list[float]
    tip: float
    pixel: float


def drawn(page: Page) -> Drawn:
    seen = page.run(
        """(() => {
          const all = (what) => [...document.querySelectorAll("#chart " + what)];
          const of = (shape, name) => shape.getAttribute(name);
          return {
            labels: all("line.grid + text").map((one) => [Number(of(one.previousSibling, "y1")), one.textContent]),
            line: of(all("polyline.line.high")[0], "points").split(" ").map((one) => Number(one.split(",")[1])),
            tip: Number(of(all("circle.live.high")[0], "cy")),
            number: document.getElementById("high").textContent,
          };
        })()"""
    )
    (low_y, low), *_, (high_y, high) = [(y, price_of(text)) for y, text in seen["labels"]]
    pixel = (high - low) / (low_y - high_y)
    line = [low + (low_y - y) * pixel for y in seen["line"]]
    return Drawn(price_of(seen["number"]), line, low + (low_y - seen["tip"]) * pixel, pixel)


def price_of(text: str) -> float:
    """Of `19,876,543`, `19.88m`."""
    unit = {"k": 1e3, "m": 1e6, "b": 1e9}.get(text[-1], 1.0)
    return float(text.rstrip("kmb").replace(",", "")) * unit


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
    before = drawn(page)
    wait_until(lambda: abs(drawn(page).tip - before.tip) > 3 * before.pixel, 20)
    now = drawn(page)
    assert now.number != before.number and now.tip == pytest.approx(now.number, abs=now.pixel)
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
    before = drawn(page)
    assert before.tip == before.line[-1] == pytest.approx(19_876_543, abs=before.pixel)
    api.trade(11832, low=19_111_222)
    wait_text(page, "#low", "19,111,222")
    api.trade(11832, high=29_000_000)
    wait_text(page, "#high", "29,000,000")
    now = drawn(page)
    assert now.tip == now.line[-1] == pytest.approx(29_000_000, abs=now.pixel)
    started.kill()
    page.wait("['waiting', 'offline'].includes(document.getElementById('state').dataset.state)")
    page.wait("!document.querySelector('#chart .halo')")
    again = node(**settings, port=started.port)
    wait_until(lambda: metric(again, "looks_total") > 0, 20)
    page.run("document.getElementById('reconnect').click()")
    wait_text(page, "#state-text", "LIVE")
    api.trade(11832, high=20_000_001)
    wait_text(page, "#high", "20,000,001")


def test_what_came_live_is_averaged_when_its_minute_is_over(node: StartNode, market: Any, api: Api) -> None:
    """P1, P4: behind the history that was loaded, and before the tip. The change is that to the last of it."""
    started = node(**SETTINGS | {"prices_upstream": api.url})
    api.trade(2, high=1_000, low=900)
    wait_until(lambda: ask(started, "/current")[1]["total"] >= 3, 20)
    with closing(sqlite3.connect(started.folder / "ringcast.db")) as database, database:
        database.execute("UPDATE price_points SET at = at - 600000")
    page = market(started, "2/1h")
    wait_text(page, "#state-text", "LIVE")
    for part in ("history/2?", "current/2"):  # at the beginning, and when the stream had begun
        asked = f"performance.getEntriesByType('resource').filter(({{ name }}) => name.includes('{part}'))"
        page.wait(f"{asked}.length >= 2")
    assert points(page) == 1
    minutes = set()
    for high in (2_000, 3_000):
        api.trade(2, high=high)
        wait_text(page, "#high", f"{high:,}")
        assert drawn(page).tip == pytest.approx(high, abs=drawn(page).pixel)
        minutes.add(ask(started, "/current/2")[1]["timestamp"][:16])
    wait_text(page, "#change", "+200.0 %")
    page.run("(now => { Date.now = () => now() + 120_000; })(Date.now)")
    steps = [2_500] if len(minutes) == 1 else [2_000, 3_000]
    page.wait(f"Number(document.getElementById('chart').dataset.points) === {len(steps) + 2}")
    now = drawn(page)
    assert now.line[:-1] == pytest.approx([1_000, *steps, 3_000], abs=now.pixel)
    assert now.tip == pytest.approx(3_000, abs=now.pixel)


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
