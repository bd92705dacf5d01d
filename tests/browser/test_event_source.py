"""Native EventSource in Chromium: it opens, receives, and loses and repeats nothing, whatever happens to the server."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tests.browser.conftest import OpenPage, OpenSource
from tests.browser.listener import CLOSED, CONNECTING, OPEN, Source
from tests.clients.publisher import Publisher
from tests.conftest import StartNode
from tests.harness.process import Node
from tests.harness.stream import Stream
from tests.http.endpoint import ENDPOINTS, Endpoint

HUB = "/.well-known/mercure?topic=a"
# Delays of a test, not of a network: Chromium waits exactly as long as `retry` says.
QUICK = {"retry_min_ms": 100, "retry_max_ms": 200}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.channel)
def test_it_opens_at_once_and_receives(shared_node: Node, source: OpenSource, endpoint: Endpoint) -> None:
    """H10, E20: `open` on an idle topic, then lines, characters, type and id as they were published."""
    listener = source(shared_node, endpoint.path("browser"), "price-update")
    [(_, hello, hello_id)] = listener.wait_for("hello")
    assert json.loads(hello)["cursor"] == hello_id
    data = "\ufefffirst\nsecond: é ☃ \U0001f680\u2028\u0085 \n\n\0 last "
    ids = endpoint.publish(shared_node, "browser", data, "") + endpoint.publish(
        shared_node, "browser", "typed", type="price-update"
    )
    listener.wait_for("price-update")
    assert listener.kinds[:2] == ["(open)", "hello"]
    assert listener.seen[2:] == [("message", data, ids[0]), ("message", "", ids[1]), ("price-update", "typed", ids[2])]


def test_it_loses_and_repeats_nothing_through_kill_9(node: StartNode, source: OpenSource, tmp_path: Path) -> None:
    """H06, E11, E12: the cursor that the browser kept is all that the new process needs."""
    server = node(relay=f"sqlite:{tmp_path / 'log.db'}", **QUICK)
    publisher = Publisher(server, "a")
    listener = source(server, HUB, "gap")
    listener.wait_for("hello")
    busy = threading.Thread(target=publisher.publish_until_refused)
    busy.start()
    listener.wait_for("message", 20)
    server.kill()
    busy.join(10)
    server.start()
    publisher.publish(5)
    listener.wait_for("hello", 2)
    publisher.publish(5)
    listener.wait_id(next(reversed(publisher.acknowledged)))
    publisher.check_received(listener.messages, deaths=1)
    assert "gap" not in listener.kinds
    assert "(closed)" not in listener.kinds


def test_a_restart_that_lost_the_log_is_a_declared_gap(node: StartNode, source: OpenSource) -> None:
    """X05: with `memory:` the new process cannot know what the old one had; it says so."""
    server = node(**QUICK)
    publisher = Publisher(server, "a")
    listener = source(server, HUB, "gap")
    listener.wait_for("hello")
    publisher.publish(3)
    listener.wait_for("message", 3)
    server.kill()
    server.start()
    listener.wait_for("hello", 2)
    [(_, gap, _)] = listener.wait_for("gap")
    assert json.loads(gap)["reason"] == "epoch"
    publisher.publish(1)
    assert listener.wait_for("message", 4)[-1][1] == "event 4"


def test_a_drain_and_a_restart_on_the_same_port_bring_it_back(
    node: StartNode, source: OpenSource, tmp_path: Path
) -> None:
    """H06: told to go, with a delay; back without loss."""
    server = node(relay=f"sqlite:{tmp_path / 'log.db'}", drain_seconds=0.2, **QUICK)
    publisher = Publisher(server, "a")
    listener = source(server, HUB, "draining")
    listener.wait_for("hello")
    publisher.publish(3)
    listener.wait_for("message", 3)
    assert server.stop() == 0
    [(_, farewell, farewell_id)] = listener.wait_for("draining")
    assert json.loads(farewell)["reconnect"] is True
    # The browser's cursor is where it was: the farewell carries no id of its own.
    assert farewell_id == next(reversed(publisher.acknowledged))
    server.start()
    publisher.publish(3)
    listener.wait_for("message", 6)
    publisher.check_received(listener.messages, deaths=0)
    assert "(closed)" not in listener.kinds


def test_an_id_only_block_moves_its_cursor(node: StartNode, source: OpenSource, tmp_path: Path) -> None:
    """E06: past what the filter did not select, so the reconnect is complete although history is gone."""
    server = node(relay=f"sqlite:{tmp_path / 'log.db'}", heartbeat_seconds=0.2, ring_events=2, retain_events=2, **QUICK)
    listener = source(server, HUB, "gap")
    [(_, _, first_id)] = listener.wait_for("hello")
    other = Publisher(server, "not-selected")
    other.publish(20)
    last = next(reversed(other.acknowledged))
    wait_heartbeats(server, last, 3)
    server.kill()
    server.start()
    [_, (_, hello, hello_id)] = listener.wait_for("hello", 2)
    assert json.loads(hello)["complete"] is True
    assert first_id < last <= hello_id
    assert listener.kinds.count("gap") == 0


def wait_heartbeats(server: Node, cursor: str, count: int) -> None:
    """Wait for `count` heartbeats at or past `cursor` on another stream: every other reader then got one at least."""
    with Stream(server.port, HUB) as beside:
        for _ in range(count):
            while ((block := beside.next_block()) is not None) and (block.data is not None or str(block.id) < cursor):
                pass


def test_six_streams_of_one_origin_fill_http_1(shared_node: Node, page: OpenPage) -> None:
    """H16: the seventh waits until one of the six is closed, which is why HTTP/2 belongs in front."""
    tab = page(shared_node)
    sources = [Source(tab, f"/channels/browser/events?topic=six-{number}") for number in range(7)]
    for listener in sources[:6]:
        listener.wait_for("hello")
    assert [listener.ready_state for listener in sources] == [OPEN] * 6 + [CONNECTING]
    sources[0].close()
    sources[6].wait_for("hello")


def test_a_closed_source_stays_closed(shared_node: Node, source: OpenSource) -> None:
    """H06: `close()` is the client's own end; the server forgets the reader."""
    listener = source(shared_node, HUB)
    listener.wait_for("hello")
    listener.close()
    assert listener.ready_state == CLOSED
