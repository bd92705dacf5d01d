"""JetStream and faults: nothing is lost, doubled or out of order, whatever is killed."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.bridges.conftest import facts, settings, state, until_active
from tests.bridges.feeder import Feeder
from tests.bridges.test_jetstream import NUMBERS, until_caught_up
from tests.conftest import StartNode
from tests.faults.checker import History
from tests.faults.witnesses import Subscriber
from tests.harness.nats import NatsServer
from tests.harness.process import Node, wait_until
from tests.harness.redis import RedisServer

pytestmark = pytest.mark.fault


@contextmanager
def fed(server: NatsServer, *nodes: Node) -> Iterator[Feeder]:
    """Numbers go in at NATS and come out of the nodes' streams. At the end each has come once, in order."""
    history = History()
    feeder: Any = Feeder(server.url, "numbers.n", history)
    ports = [node.port for node in nodes]
    subscribers = [Subscriber(ports[n:] + ports[:n], history, f"of node {n}", feeder) for n in range(len(ports))]
    for subscriber in subscribers:
        assert subscriber.opened.wait(10)
    feeder.start()
    yield feeder
    last = feeder.finish()
    for subscriber in subscribers:
        subscriber.finish()
    assert history.problems() == []
    for name, seen in history.seen.items():
        assert [one.number for one in seen if not one.gap] == list(range(last + 1)), name


def until_fed(feeder: Feeder, more: int) -> None:
    """Wait until so many more numbers are in JetStream."""
    wanted = feeder.next + more
    wait_until(lambda: feeder.next >= wanted, 20, "numbers in JetStream")


def test_a_node_killed_in_the_middle_loses_and_doubles_nothing(nats: NatsServer, node: StartNode, seed: int) -> None:
    """Nothing acknowledged by JetStream is lost, nothing enters twice, though the node dies with messages in hand."""
    rng = random.Random(seed)
    one = node(**settings(NUMBERS, nats_url=nats.url, relay="sqlite:log.db"))
    until_active(one, "n")
    with fed(nats, one) as feeder:
        until_fed(feeder, rng.randrange(100, 400))
        one.kill()
        until_fed(feeder, rng.randrange(100, 400))
        one.start()
        until_caught_up(one, 300)
        until_fed(feeder, 100)


def test_nats_killed_in_the_middle_loses_and_doubles_nothing(nats: NatsServer, node: StartNode, seed: int) -> None:
    one = node(**settings(NUMBERS, nats_url=nats.url))
    until_active(one, "n")
    with fed(nats, one) as feeder:
        until_fed(feeder, random.Random(seed).randrange(100, 400))
        nats.kill()
        wait_until(lambda: state(one, "n") != "ok", what="the bridge's state")
        nats.start()
        until_active(one, "n")
        until_fed(feeder, 200)
    assert facts(one, "n")["reconnects"] == 1


def test_the_relay_away_for_a_while_loses_and_doubles_nothing(
    nats: NatsServer, redis: RedisServer, node: StartNode, seed: int
) -> None:
    one = node(**settings(NUMBERS, nats_url=nats.url, relay=redis.url))
    until_active(one, "n")
    with fed(nats, one) as feeder:
        until_fed(feeder, random.Random(seed).randrange(100, 400))
        redis.signal(signal.SIGSTOP)
        wait_until(lambda: state(one, "n") != "ok", 20, "the bridge's state")
        until_fed(feeder, 200)
        redis.signal(signal.SIGCONT)
        until_caught_up(one, 200)


def test_of_two_nodes_one_reads_and_when_it_is_killed_the_other_goes_on_in_order(
    nats: NatsServer, redis: RedisServer, node: StartNode, seed: int
) -> None:
    both = [node(**settings(NUMBERS, nats_url=nats.url, relay=redis.url)) for _ in range(2)]
    wait_until(lambda: any(facts(one, "n")["active"] for one in both), 20, "a node that reads")
    holder, other = sorted(both, key=lambda one: not facts(one, "n")["active"])
    assert not facts(other, "n")["active"]
    wait_until(lambda: state(other, "n") == "ok", what="the other node at its source")
    with fed(nats, holder, other) as feeder:
        until_fed(feeder, random.Random(seed).randrange(100, 400))
        holder.kill()
        until_active(other, "n")
        until_fed(feeder, 300)
    assert facts(other, "n")["published"] > 300


def test_a_node_that_is_stopped_hands_over_at_once(
    nats: NatsServer, redis: RedisServer, node: StartNode, seed: int
) -> None:
    both = [node(**settings(NUMBERS, nats_url=nats.url, relay=redis.url)) for _ in range(2)]
    wait_until(lambda: any(facts(one, "n")["active"] for one in both), 20, "a node that reads")
    holder, other = sorted(both, key=lambda one: not facts(one, "n")["active"])
    wait_until(lambda: state(other, "n") == "ok", what="the other node at its source")
    with fed(nats, holder, other) as feeder:
        until_fed(feeder, random.Random(seed).randrange(100, 400))
        holder.stop()
        wait_until(lambda: facts(other, "n")["active"], 4, "the other node")  # no lease had to expire
        until_fed(feeder, 200)
    assert facts(other, "n")["repeated"] == 0
