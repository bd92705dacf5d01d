"""curl, httpx-sse and the npm package `eventsource`: they receive, and lose and repeat nothing through a kill -9."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.clients.listeners import LISTENERS, Listener, NodeEventSource
from tests.clients.publisher import FORM, Publisher
from tests.conftest import StartNode
from tests.harness.process import Node, wait_until
from tests.harness.stream import Stream

# Quick to come back and never silent for long, so that no test waits for a default.
QUICK = {"retry_min_ms": 100, "retry_max_ms": 200, "heartbeat_seconds": 0.2}
every_client = pytest.mark.parametrize("client", LISTENERS, ids=lambda client: client.__name__)


def hub(server: Node, topic: str) -> str:
    return f"{server.url}/.well-known/mercure?topic={topic}"


@every_client
def test_a_client_receives_what_was_published(node: StartNode, client: type[Listener]) -> None:
    """Type, lines, characters and ids as they were published, live."""
    server = node(**QUICK)
    data = "first line\nsecond line: é ☃ \U0001f680\n\n  last"
    with client(hub(server, "a")) as listener:
        listener.wait_connections(1)
        body = f"topic=a&data={data}".encode()
        status, _, event_id = server.request("POST", "/.well-known/mercure", body, Content_Type=FORM)
        assert status == 200
        listener.wait_messages(1)
        assert listener.messages == [("message", data, event_id.decode())]


@every_client
def test_a_client_survives_the_servers_death_without_loss_or_repeat(
    node: StartNode, tmp_path: Path, client: type[Listener]
) -> None:
    """kill -9 amid publishing, a restart on the same port and log, and more before and after the client is back."""
    server = node(relay=f"sqlite:{tmp_path / 'log.db'}", **QUICK)
    publisher = Publisher(server, "a")
    with client(hub(server, "a")) as listener:
        listener.wait_connections(1)
        busy = threading.Thread(target=publisher.publish_until_refused)
        busy.start()
        listener.wait_messages(20)
        server.kill()
        busy.join(10)
        server.start()
        publisher.publish(5)
        listener.wait_connections(2)
        publisher.publish(5)
        wait_until(lambda: set(publisher.acknowledged) <= {event_id for _, _, event_id in listener.messages}, 10, "all")
        publisher.check_received(listener.messages, deaths=1)
        assert "gap" not in {kind for kind, _, _ in listener.events}


def test_the_npm_client_stops_at_401_and_comes_back_from_a_full_node(node: StartNode) -> None:
    """H01, H04, H05: what the server means each client to do is what this one does."""
    closed = node(jwt_secret="a secret that nobody has a token for, ever")
    with NodeEventSource(hub(closed, "a")) as listener:
        wait_until(lambda: listener.states, 10, "an answer")
        assert listener.states[0] == ("closed", 401)
    full = node(max_connections=1, **QUICK)
    with Stream(full.port, "/.well-known/mercure?topic=a") as held:
        held.next_event()
        with NodeEventSource(hub(full, "a"), "overloaded") as listener:
            wait_until(lambda: [kind for kind, _, _ in listener.events] == ["overloaded"], 10, "the refusal")
            held.close()
            wait_until(lambda: ("reconnecting", None) in listener.states, 10, "the reconnect")
            assert "closed" not in dict(listener.states)
