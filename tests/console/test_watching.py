"""The console shows what comes: rows, figures, states, in a page that stays bounded."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tests.conftest import StartNode
from tests.console.conftest import OpenConsole
from tests.console.view import View
from tests.harness.process import Node


def publish(node: Node, channel: str, *events: Mapping[str, object]) -> None:
    body = "\n".join(json.dumps(event) for event in events)
    status, _, answer = node.request("POST", f"/channels/{channel}/events", body, Content_Type="application/x-ndjson")
    assert status == 200, answer


def test_the_machines_figures_appear_and_go_on(machine_node: Node, console: OpenConsole) -> None:
    view = console(machine_node)
    assert view.wait_state("live") == "Live on host"
    view.wait_row("sample", '"cpu"')
    first = view.text("cursor")
    view.page.wait(f"![{json.dumps(first)}, '–'].includes(document.getElementById('cursor').textContent)")
    view.wait_number("here-total", 2)
    assert view.failed_loads == []


def test_the_machine_is_drawn_on_its_own_channel_alone(machine_node: Node, console: OpenConsole) -> None:
    view = console(machine_node)
    view.page.wait("document.querySelectorAll('#machine canvas').length === 4")
    view.page.wait("[...document.querySelectorAll('#machine .value')].every(value => /[0-9]/.test(value.textContent))")
    view.wait_drawn("#machine canvas")
    view.fill("channel", "machine-aside")
    view.submit("watch-form")
    view.wait_text("state-text", "machine-aside")
    assert view.hidden("machine")


def test_connections_and_rates_are_drawn(machine_node: Node, console: OpenConsole) -> None:
    view = console(machine_node)
    view.wait_number("connections", 1)
    view.wait_number("published", 1)
    view.wait_number("here-rate", 1)
    for canvas in ("#ring", "#connections-chart", "#delivered-chart", "#published-chart"):
        view.wait_drawn(canvas)


def test_what_was_published_before_is_there_when_the_page_opens(machine_node: Node, console: OpenConsole) -> None:
    publish(machine_node, "earlier", *({"data": f"note {number}"} for number in range(3)))
    view = console(machine_node, "earlier")
    view.wait_row("message", "note 2")
    assert [text for kind, text in view.rows if kind == "message"] == ["note 2", "note 1", "note 0"]


def test_html_in_an_event_stays_text(machine_node: Node, console: OpenConsole) -> None:
    evil = "<img src=x onerror='document.title=1'><script>document.title=1</script>"
    view = console(machine_node, "evil")
    view.wait_state("live")
    publish(machine_node, "evil", {"topic": evil, "type": evil, "data": evil})
    view.wait_row(evil, evil)
    view.page.run("document.querySelector('#rows li').click()")
    assert view.text("inspected-data") == evil
    assert view.text("inspected-type") == evil
    assert view.value("document.querySelectorAll('main img, main script').length") == 0
    assert view.value("document.title") == "evil · Ringcast"


def test_a_flood_leaves_the_page_bounded_and_complete_in_count(machine_node: Node, console: OpenConsole) -> None:
    view = console(machine_node, "flood")
    view.wait_state("live")
    for batch in range(4):
        publish(machine_node, "flood", *({"data": f"{batch}-{number}"} for number in range(2_000)))
    view.wait_text("here-total", "8,000")
    view.wait_row("message", "3-1999")
    assert len(view.rows) == 500
    assert view.rows[0] == ("message", "3-1999")
    assert view.rows[-1] == ("message", "3-1500")


def test_paused_rows_stand_still_and_what_comes_is_counted(machine_node: Node, console: OpenConsole) -> None:
    view = console(machine_node, "paused")
    publish(machine_node, "paused", {"data": "before"})
    view.wait_row("message", "before")
    view.press("pause")
    publish(machine_node, "paused", {"data": "while"}, {"data": "meantime"})
    view.wait_text("held", "2 new while paused")
    assert view.rows[0] == ("message", "before")
    view.press("held")
    view.wait_row("message", "meantime")
    assert view.hidden("held")
    assert view.text("pause") == "Pause"


def test_a_filter_narrows_the_rows_and_gives_them_back(machine_node: Node, console: OpenConsole) -> None:
    view = console(machine_node, "filtered")
    view.wait_state("live")
    publish(machine_node, "filtered", {"data": "an apple"}, {"data": "a pear"}, {"type": "Apple", "data": "pie"})
    view.wait_row("Apple", "pie")
    view.fill("filter", "APPLE")
    assert [row for row in view.rows if row[0] != "hello"] == [("Apple", "pie"), ("message", "an apple")]
    publish(machine_node, "filtered", {"data": "a plum"}, {"data": "apple juice"})
    view.wait_row("message", "apple juice")
    assert ("message", "a plum") not in view.rows
    view.fill("filter", "")
    assert [row[1] for row in view.rows][:3] == ["apple juice", "a plum", "pie"]


def test_a_row_is_chosen_with_the_arrow_keys(machine_node: Node, console: OpenConsole) -> None:
    view = console(machine_node, "keys")
    publish(machine_node, "keys", {"data": {"a": [1, 2]}}, {"data": "newest"})
    view.wait_row("message", "newest")
    view.page.run("document.getElementById('rows').focus()")
    view.key("ArrowDown")
    assert view.text("inspected-data") == "newest"
    view.key("ArrowDown")
    assert json.loads(view.text("inspected-data")) == {"a": [1, 2]}
    assert "\n" in view.text("inspected-data")
    view.key("Escape")
    assert view.hidden("inspector")


def wait_gap(view: View, reason: str) -> None:
    view.wait_row("gap", f"may be missing: {reason}")


def test_the_end_of_a_server_and_the_gap_after_it_are_shown(node: StartNode, console: OpenConsole) -> None:
    server = node(retry_min_ms=100, retry_max_ms=200, drain_seconds=0)
    publish(server, "main", {"data": "lost with the process"})
    view = console(server, "main")
    view.wait_row("message", "lost with the process")
    view.page.wait("document.getElementById('cursor').textContent !== '–'")
    server.stop()
    view.wait_row("draining", "the server ended the stream: this node is shutting down; coming back")
    view.wait_state("waiting")
    server.start()
    view.press("reconnect")
    view.wait_state("live")
    wait_gap(view, "epoch")


def test_a_phone_has_no_sideways_scrolling(machine_node: Node, console: OpenConsole) -> None:
    view = console(machine_node)
    view.page.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    view.wait_row("sample", '"cpu"')
    assert view.value("document.documentElement.scrollWidth") == 360
