"""Clients in a network of their own that is cut off from the node: no connection of theirs ever says it is over."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.checker import History
from tests.faults.herd import Herd
from tests.faults.witnesses import TOPIC, Publisher, Subscriber
from tests.harness.namespaces import Cable, Network, reason_not_permitted
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.redis import RedisServer
from tests.rounds import ROUNDS
from tests.threats.conftest import finish
from tests.threats.process_facts import cpu_share, descriptors, rss_bytes
from tests.threats.tokens import bearer, signed

CLIENTS = 5000 if ROUNDS > 1 else 1000
EVENTS = "/channels/main/events"
HEARTBEAT_SECONDS = 1
USER_TIMEOUT_SECONDS = 1
# The kernel looks how old unacknowledged bytes are when it sends them again, and the node looks at sockets in turn.
GRACE_SECONDS = 2
TOKEN = bearer(signed())

pytestmark = pytest.mark.skipif(reason_not_permitted() is not None, reason=str(reason_not_permitted()))


class TokenConnection(HTTPConnection):
    """Shows the token with every request."""

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **more: Any) -> None:
        super().request(method, url, body, {**(headers or {}), "Authorization": TOKEN}, **more)


class Held(NamedTuple):
    """What the node holds for its clients."""

    descriptors: int
    connections: int
    stalled: int
    feeds: int

    @classmethod
    def by(cls, node: Node) -> Held:
        facts = json.loads(node.get("/stats")[2])
        connections, channel = facts["connections"], facts["channels"]["main"]
        return cls(len(descriptors(node.pid)), connections["total"], connections["stalled"], channel["feeds"])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node over Redis that other networks can reach."""
    redis = RedisServer(tmp_path).start()
    one = Node(
        tmp_path,
        relay=redis.url,
        host="0.0.0.0",
        jwt_secret=TOKEN_SECRET,
        heartbeat_seconds=HEARTBEAT_SECONDS,
        tcp_user_timeout_seconds=USER_TIMEOUT_SECONDS,
        max_age_seconds=0,
        drain_seconds=0,
    )
    try:
        yield one.start()
    finally:
        finish(one)
        redis.stop()


@pytest.fixture
def cable() -> Iterator[Cable]:
    network = Network()
    one = Cable(network)
    yield one
    one.cut_off()
    network.close()


@pytest.fixture
def healthy(node: Node) -> Iterator[list[Subscriber]]:
    """Two clients on this side of the cable, and a publisher; the checker judges at the end."""
    history = History()
    publisher = Publisher([node.port], history, every=0.05)
    publisher.connection = TokenConnection("127.0.0.1", node.port, timeout=10)
    several = [
        Subscriber([node.port], history, f"healthy {number}", publisher, Authorization=TOKEN) for number in range(2)
    ]
    assert all(subscriber.opened.wait(10) for subscriber in several)
    publisher.thread.start()
    yield several
    publisher.finish()
    for subscriber in several:
        subscriber.finish()
    assert history.problems() == []
    assert [subscriber.connections for subscriber in several] == [1, 1]


def visit(node: Node, cable: Cable, topic: str) -> Herd:
    """A herd from the other network, whose readers have all been greeted."""
    herd = Herd(f"{EVENTS}?topic={topic}", CLIENTS, Authorization=TOKEN)
    with cable.network.entered():
        herd.come([(cable.outer, node.port)])
        herd.wait(herd.arrived(), 30, f"{CLIENTS} streams")
    herd.staying_away = True
    return herd


@pytest.mark.parametrize("topic", ["quiet", TOPIC])
@pytest.mark.parametrize("way", ["unplugged", "dropped"])
def test_clients_behind_a_cut_are_let_go_and_leave_nothing(
    node: Node, cable: Cable, healthy: list[Subscriber], way: str, topic: str, seed: int
) -> None:
    """FLT-12: whether only heartbeats go out to them or events too, within two heartbeats and the time that the kernel
    waits for an acknowledgement; descriptors, readers, feeds and memory are what they were, and nobody else notices.
    """
    with visit(node, cable, topic):  # the memory that so many take is the process's from here on
        pass
    wait_until(lambda: Held.by(node).connections == len(healthy), 10, "the first visitors gone")
    held, memory = Held.by(node), rss_bytes(node.pid)
    with visit(node, cable, topic):
        assert Held.by(node).connections == CLIENTS + len(healthy)
        time.sleep(random.Random(seed).uniform(0, HEARTBEAT_SECONDS))  # where between two heartbeats the cut comes
        if way == "unplugged":
            cable.unplug()
        else:
            cable.drop()
        limit = 2 * HEARTBEAT_SECONDS + USER_TIMEOUT_SECONDS + GRACE_SECONDS
        wait_until(lambda: Held.by(node) == held, limit, "the vanished clients gone")
    assert rss_bytes(node.pid) < memory * 1.05
    assert cpu_share(node.pid, 0.5) < 0.1
