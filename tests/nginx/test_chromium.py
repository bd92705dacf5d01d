"""A native EventSource through nginx, TLS and HTTP/2: it comes back from whatever happens, and loses nothing."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import Chromium, Page
from tests.browser.listener import CONNECTING, OPEN, Source
from tests.clients.publisher import Publisher
from tests.harness.process import Node, wait_until
from tests.nginx.conftest import StartNginx, StartSocketNode
from tests.nginx.proxy import Nginx
from tests.nginx.test_reload import shutdown_ms

HUB = "/.well-known/mercure?topic=a"
# As shipped, it is 2 to 9.9 s; Chromium waits exactly as long as it is told.
SOON = {"$ringcast_seconds${ringcast_tenths}00\\nevent: unavailable": "${ringcast_tenths}00\\nevent: unavailable"}

OpenPage = Callable[[str], Page]


@pytest.fixture
def page(chromium: Chromium) -> Iterator[OpenPage]:
    """`page(url)`: a tab that does not mind who signed the certificate."""
    opened: list[Page] = []

    def open_page(url: str) -> Page:
        opened.append(chromium.page("about:blank"))
        opened[-1].call("Security.setIgnoreCertificateErrors", ignore=True)
        opened[-1].open(f"{url}/health")
        return opened[-1]

    yield open_page
    for tab in opened:
        tab.close()


def publish_until(publisher: Publisher, end: Callable[[], object], more: int) -> None:
    """Keep publishing while `end` happens to the node, after so many `more` events; what it did not acknowledge any
    more does not count.
    """
    goal = len(publisher.acknowledged) + more
    busy = threading.Thread(target=publisher.publish_until_refused)
    busy.start()
    wait_until(lambda: len(publisher.acknowledged) >= goal, 10, f"{more} events")
    end()
    busy.join(10)
    assert not busy.is_alive()


@pytest.mark.fault
def test_it_survives_kill_9_a_drain_and_a_reload_and_loses_nothing(
    socket_node: StartSocketNode, nginx: StartNginx, page: OpenPage, tmp_path: Path, seed: int
) -> None:
    """FLT-11, FLT-30: each while events are published; between them nginx answers for the node."""
    rng = random.Random(seed)
    node = socket_node(relay=f"sqlite:{tmp_path / 'log.db'}")
    front = nginx(node, changes=SOON | shutdown_ms(rng.randrange(300, 1500)))
    tab = page(front.url)
    assert tab.run("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
    publisher = Publisher(node, "a")
    listener = Source(tab, HUB, "gap", "unavailable")
    listener.wait_for("hello")
    for number, end in enumerate(rng.sample((node.kill, node.stop), 2), 1):
        asked_back = listener.kinds.count("unavailable")
        publish_until(publisher, end, more=rng.randrange(1, 60))
        listener.wait_for("unavailable", asked_back + rng.randrange(1, 4))
        node.start()
        listener.wait_for("hello", 1 + number)
        publisher.publish(5)
    listener.wait_id(next(reversed(publisher.acknowledged)))
    reload_under_events(front, publisher)
    listener.wait_for("hello", 4)
    publisher.publish(5)
    listener.wait_id(next(reversed(publisher.acknowledged)))
    publisher.check_received(listener.messages, deaths=2)
    assert "gap" not in listener.kinds
    assert "(closed)" not in listener.kinds


def reload_under_events(front: Nginx, publisher: Publisher) -> None:
    """Reload, and publish until the old workers are gone, with the streams that they had."""
    old = front.reload()
    while old & front.workers():
        publisher.publish()


@pytest.mark.fault
def test_an_outage_of_the_nodes_closes_nobody_for_good(
    nginx: StartNginx, page: OpenPage, tmp_path: Path, seed: int
) -> None:
    """FLT-30: a page that is opened, or goes on reconnecting, while no node is there finds one when it is."""
    node = Node(tmp_path, socket=tmp_path / "late.sock", retry_min_ms=100, retry_max_ms=200)
    front = nginx(node, changes=SOON)
    tab = page_of_nowhere(page, front)
    listener = Source(tab, HUB, "unavailable")
    listener.wait_for("unavailable", random.Random(seed).randrange(1, 7))
    assert "(closed)" not in listener.kinds
    try:
        node.start()
        listener.wait_for("hello")
        listener.wait_state(OPEN)
    finally:
        node.kill()


def page_of_nowhere(page: OpenPage, front: Nginx) -> Page:
    """A tab on nginx's own origin while no node is there: any page of it will do."""
    tab = page(front.url)
    assert "no node answers" in tab.run("document.body.innerText")
    return tab


@pytest.mark.fault
def test_a_page_of_another_origin_comes_back_from_an_outage_too(
    shared_node: Node, nginx: StartNginx, page: OpenPage, tmp_path: Path, seed: int
) -> None:
    """X01: the 200 that asks it back is readable for it only with nginx's own CORS headers."""
    settings = {"allowed_origins": shared_node.url, "retry_min_ms": 100, "retry_max_ms": 200}
    node = Node(tmp_path, socket=tmp_path / "late.sock", **settings)
    listed = {'#"https://app.example" "https://app.example";': f'"{shared_node.url}" "{shared_node.url}";'}
    front = nginx(node, changes=SOON | listed)
    listener = Source(page(shared_node.url), front.url + HUB, "unavailable", with_credentials=True)
    listener.wait_for("unavailable", random.Random(seed).randrange(1, 6))
    try:
        node.start()
        listener.wait_for("hello")
        assert "(closed)" not in listener.kinds
    finally:
        node.kill()


def test_a_page_of_a_foreign_origin_is_not_asked_back(
    shared_node: Node, nginx: StartNginx, page: OpenPage, tmp_path: Path
) -> None:
    """X01: without a line in origins.conf it reads nothing, in an outage as otherwise."""
    front = nginx(f"unix:{tmp_path}/nobody.sock", changes=SOON)
    listener = Source(page(shared_node.url), front.url + HUB, "unavailable")
    listener.wait_for("(closed)")
    assert listener.kinds == ["(closed)"]


def test_a_refusal_that_is_final_is_final_through_nginx(
    socket_node: StartSocketNode, nginx: StartNginx, page: OpenPage
) -> None:
    """H04: 401 ends it; it must not be kept knocking."""
    front = nginx(socket_node(jwt_secret="a secret of at least thirty-two bytes"))
    listener = Source(page(front.url), HUB)
    listener.wait_for("(closed)")
    assert listener.kinds == ["(closed)"]


def test_over_http_2_a_seventh_stream_does_not_wait(shared_front: Nginx, page: OpenPage) -> None:
    """H16: twenty streams of one origin, where HTTP/1.1 would leave fourteen waiting."""
    tab = page(shared_front.url)
    sources = [Source(tab, f"/channels/main/events?topic=h2-{number}") for number in range(20)]
    for listener in sources:
        listener.wait_for("hello")
    assert CONNECTING not in {listener.ready_state for listener in sources}
    event_id = shared_front.publish("h2-19", "to the last one")
    sources[19].wait_id(event_id)
    hello = json.loads(sources[0].wait_for("hello")[0][1])
    assert hello["channel"] == "main"
