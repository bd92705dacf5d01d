"""JetStream and faults: nothing is lost, doubled or out of order, whatever is killed."""

from __future__ import annotations

import random
import signal
import time
from functools import partial

import pytest
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from tests.bridges.conftest import bridge, facts, mapping, settings, state, until_active
from tests.bridges.fed import fed
from tests.bridges.feeder import JetStreamFeeder
from tests.bridges.test_jetstream import until_caught_up
from tests.conftest import StartNode
from tests.harness.nats import NatsServer
from tests.harness.process import Node, wait_until
from tests.harness.redis import RedisServer

pytestmark = pytest.mark.fault

SOURCE = mapping("numbers.*", "{subject[1]}")
NUMBERS = bridge("jetstream", "n", SOURCE, stream="N", create=True, subjects=["numbers.*"])
ACK_WAIT_SECONDS = 2.0  # until what a dead node had in hand comes again, where that is what the test waits for


def feeding(server: NatsServer) -> partial[JetStreamFeeder]:
    return partial(JetStreamFeeder, server.url)


def impatient(server: NatsServer) -> None:
    """Make the consumer before the bridges do, with a shorter wait than theirs."""

    async def work(client: Client) -> None:
        jetstream = client.jetstream()
        await jetstream.add_stream(name="N", subjects=["numbers.*"])
        config = ConsumerConfig(
            durable_name="ringcast",
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_SECONDS,
            filter_subjects=["numbers.*"],
        )
        await jetstream.add_consumer("N", config)

    server.ask(work)


def holder_and_other(nats: NatsServer, redis: RedisServer, node: StartNode) -> list[Node]:
    """The node that reads, and one that could."""
    both = [node(**settings(NUMBERS, nats_url=nats.url, relay=redis.url)) for _ in range(2)]
    wait_until(lambda: any(facts(one, "n")["active"] for one in both), 20, "a node that reads")
    holder, other = sorted(both, key=lambda one: not facts(one, "n")["active"])
    wait_until(lambda: state(other, "n") == "ok", what="the other node at its source")
    assert not facts(other, "n")["active"]
    return [holder, other]


def test_a_node_killed_in_the_middle_loses_and_doubles_nothing(nats: NatsServer, node: StartNode, seed: int) -> None:
    """Nothing acknowledged by JetStream is lost, nothing enters twice, though the node dies with messages in hand."""
    moments = random.Random(seed)
    impatient(nats)
    one = node(**settings(NUMBERS, nats_url=nats.url, relay="sqlite:log.db"))
    until_active(one, "n")
    with fed(feeding(nats), one, seed=seed) as scene:
        scene.wait_for(moments.randrange(50, 200))
        one.kill()
        scene.wait_for(moments.randrange(20, 200))
        one.start()
        until_caught_up(one, 100)


def test_nats_killed_in_the_middle_loses_and_doubles_nothing(nats: NatsServer, node: StartNode, seed: int) -> None:
    moments = random.Random(seed)
    one = node(**settings(NUMBERS, nats_url=nats.url))
    until_active(one, "n")
    with fed(feeding(nats), one, seed=seed) as scene:
        scene.wait_for(moments.randrange(50, 200))
        nats.kill()
        wait_until(lambda: state(one, "n") != "ok", what="the bridge's state")
        time.sleep(moments.uniform(0, 1))  # for so long there is none
        nats.start()
        until_active(one, "n")
        scene.wait_for(100)
    assert facts(one, "n")["reconnects"] == 1


def test_the_relay_away_for_a_while_loses_and_doubles_nothing(
    nats: NatsServer, redis: RedisServer, node: StartNode, seed: int
) -> None:
    moments = random.Random(seed)
    one = node(**settings(NUMBERS, nats_url=nats.url, relay=redis.url))
    until_active(one, "n")
    with fed(feeding(nats), one, seed=seed) as scene:
        scene.wait_for(moments.randrange(50, 200))
        redis.signal(signal.SIGSTOP)
        wait_until(lambda: state(one, "n") != "ok", 20, "the bridge's state")
        scene.wait_for(moments.randrange(20, 200))
        redis.signal(signal.SIGCONT)
        until_caught_up(one, 100)


def test_of_two_nodes_one_reads_and_when_it_is_killed_the_other_goes_on_in_order(
    nats: NatsServer, redis: RedisServer, node: StartNode, seed: int
) -> None:
    moments = random.Random(seed)
    impatient(nats)
    holder, other = holder_and_other(nats, redis, node)
    with fed(feeding(nats), holder, other, seed=seed) as scene:
        scene.wait_for(moments.randrange(50, 200))
        holder.kill()
        until_active(other, "n")
        scene.wait_for(100)
    assert facts(other, "n")["published"] > 300


def test_what_is_new_does_not_overtake_what_a_dead_node_had_in_hand_when_the_server_stood_still(
    nats: NatsServer, redis: RedisServer, node: StartNode, seed: int
) -> None:
    """A server that was suspended while the other node waited is asked before it has noticed what is due again."""
    moments = random.Random(seed)
    impatient(nats)
    holder, other = holder_and_other(nats, redis, node)
    with fed(feeding(nats), holder, other, seed=seed) as scene:
        scene.wait_for(moments.randrange(50, 200))
        redis.signal(signal.SIGSTOP)  # so that something is in hand
        scene.wait_for(moments.randrange(50, 200))
        holder.kill()
        redis.signal(signal.SIGCONT)
        wait_until(lambda: "awaits_redelivery" in other.log(), 30, "the other node's turn")
        nats.signal(signal.SIGSTOP)
        time.sleep(ACK_WAIT_SECONDS + moments.uniform(0.6, 1.5))  # longer than it waits
        nats.signal(signal.SIGCONT)
        until_active(other, "n")
        scene.wait_for(100)
    assert facts(other, "n")["published"] > 300


def test_a_node_that_is_stopped_hands_over_at_once(
    nats: NatsServer, redis: RedisServer, node: StartNode, seed: int
) -> None:
    moments = random.Random(seed)
    holder, other = holder_and_other(nats, redis, node)
    with fed(feeding(nats), holder, other, seed=seed) as scene:
        scene.wait_for(moments.randrange(50, 200))
        holder.stop()
        wait_until(lambda: facts(other, "n")["active"], 4, "the other node")  # no lease had to expire
        scene.wait_for(100)
    assert facts(other, "n")["repeated"] == 0
