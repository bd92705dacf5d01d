"""The page of `facilities` in a browser: a place is chosen, its region is shown and changes by itself, the connection's
state. A page that made the browser complain fails its test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apps.facilities import SETTINGS, change
from tests.apps.tabs import Tabs, wait_text
from tests.browser.chromium import Page
from tests.conftest import StartNode
from tests.harness.process import Node


@pytest.fixture
def board(tabs: Tabs) -> Any:
    """`board(node)` opens the page, and waits until it is live."""

    def open_board(node: Node, place: str = "") -> Page:
        page = tabs.open(f"{node.url}/apps/facilities/{place}")
        wait_text(page, "#state-text", "Live")
        page.wait("document.querySelectorAll('.row').length > 0")
        return page

    return open_board


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("facilities")
    node = Node(folder, database=f"sqlite:{folder}/facilities.db", **SETTINGS).start()
    yield node
    node.kill()


def test_a_change_is_seen_at_once_on_the_map_and_in_the_list(server: Node, board: Any) -> None:
    """F1, F2: with the word, the colour and the number; what somebody reports is no longer marked as simulated."""
    page = board(server)
    assert page.run("document.getElementById('title').textContent") == "25 km around Lagos"
    assert page.run("document.querySelector('#row-fac_001 .meta').textContent").endswith("simulated")
    assert not page.run("document.getElementById('simulated').hidden")
    change(server, name="<b>Yaba</b>")
    change(server, capacity_status="full", avg_wait_minutes=123)
    page.wait("document.getElementById('dot-fac_001').dataset.capacity === 'full'")
    page.wait("document.querySelector('#row-fac_001 .wait').textContent === '123 min'")
    assert page.run("document.querySelector('#row-fac_001 .capacity').textContent") == "full"
    wait_text(page, "#full", "1")
    assert "simulated" not in page.run("document.querySelector('#row-fac_001 .meta').textContent")
    assert page.run("document.querySelectorAll('#changes li').length") == 1
    page.run("document.getElementById('dot-fac_001').dispatchEvent(new MouseEvent('click'))")
    page.wait("document.getElementById('row-fac_001').getAttribute('aria-current') === 'true'")


def test_a_place_is_looked_up_and_shown(server: Node, board: Any) -> None:
    """F5: what is there already is fresh, and not what was kept; regions go over the date line."""
    page = board(server)
    page.run("document.getElementById('place').value = 'Waiyevo'")
    page.run("document.getElementById('chooser').requestSubmit()")
    page.wait("document.getElementById('problem').textContent === 'No place is called Waiyevo.'")
    page.run("document.getElementById('place').value = 'lond'")
    page.run("document.getElementById('chooser').requestSubmit()")
    wait_text(page, "#title", "25 km around London")
    wait_text(page, "#count", "42 facilities")
    line = board(server, "#name=Taveuni&latitude=-16.75&longitude=180&radius=50")
    wait_text(line, "#count", "4 facilities")
    across = line.run("[...document.querySelectorAll('#dots circle')].map((dot) => Number(dot.getAttribute('cx')))")
    assert min(across) < 0 < max(across)
    assert all(-50 < one < 50 for one in across)


def test_the_page_comes_back_after_the_server_does(node: StartNode, board: Any, tmp_path: Path) -> None:
    settings = SETTINGS | {"database": f"sqlite:{tmp_path}/facilities.db", "retry_min_ms": 50, "retry_max_ms": 100}
    started = node(**settings)
    page = board(started)
    started.kill()
    page.wait("document.getElementById('state').dataset.state !== 'live'")
    again = node(**settings, port=started.port)
    change(again, avg_wait_minutes=321)
    page.run("document.getElementById('reconnect').click()")
    wait_text(page, "#state-text", "Live")
    page.wait("document.querySelector('#row-fac_001 .wait').textContent === '321 min'")


def test_the_simulation_moves_the_page(node: StartNode, board: Any, tmp_path: Path) -> None:
    """And is marked as one."""
    settings = SETTINGS | {"simulate": True, "facilities_change_seconds": 0.02}
    page = board(node(database=f"sqlite:{tmp_path}/facilities.db", **settings))
    page.wait("document.querySelectorAll('#changes li').length === 5")
    assert not page.run("document.getElementById('simulated').hidden")


def test_the_page_s_files_allow_no_script_but_their_own(server: Node) -> None:
    for name, kind in (("", "text/html"), ("facilities.js", "text/javascript"), ("facilities.css", "text/css")):
        status, headers, body = server.get(f"/apps/facilities/{name}")
        assert status == 200
        assert headers["content-type"].startswith(kind)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy
        assert kind != "text/html" or not (b"style=" in body or b"onclick" in body or b"<script>" in body)
