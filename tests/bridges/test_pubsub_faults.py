"""Google Pub/Sub and faults: nothing acknowledged is lost, nothing enters twice, whatever is killed."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.bridges.conftest import facts, mapping, state, until_active
from tests.bridges.fed import fed
from tests.bridges.feeder import PubSubFeeder
from tests.bridges.test_pubsub_pull import pulling
from tests.conftest import StartNode
from tests.harness.process import wait_until
from tests.harness.pubsub import PubSubEmulator
from tests.harness.redis import RedisServer

pytestmark = pytest.mark.fault

TOPIC = "{attributes.about}"
EVERY_SECONDS = 0.01  # what comes in the ten seconds until a dead node's messages come again has to be brought in, too


@pytest.fixture
def own_emulator(tmp_path: Path) -> Iterator[PubSubEmulator]:
    server = PubSubEmulator(tmp_path).start()
    yield server
    server.stop()


def test_a_node_killed_in_the_middle_loses_and_doubles_nothing(
    emulator: PubSubEmulator, node: StartNode, seed: int
) -> None:
    """It dies with messages in hand, which come again after the subscription's deadline."""
    moments = random.Random(seed)
    topic = f"kill-node-{seed}"
    emulator.make(topic, f"{topic}-in", ordered=True)
    one = node(**pulling(emulator, mapping(f"{topic}-in", TOPIC), max_waiting=10) | {"relay": "sqlite:log.db"})
    until_active(one, "p")
    with fed(partial(PubSubFeeder, emulator, topic, ordered=True), one, seed=seed, every=EVERY_SECONDS) as scene:
        scene.wait_for(moments.randrange(50, 150))
        one.kill()
        scene.wait_for(moments.randrange(10, 100))
        one.start()
        scene.wait_for(50)


def test_of_two_nodes_one_killed_the_other_takes_over(
    emulator: PubSubEmulator, redis: RedisServer, node: StartNode, seed: int
) -> None:
    """Without an ordering key: all comes, and once."""
    moments = random.Random(seed)
    topic = f"two-{seed}"
    emulator.make(topic, f"{topic}-in")
    wanted = pulling(emulator, mapping(f"{topic}-in", TOPIC), max_waiting=10) | {"relay": redis.url}
    one, other = (node(**wanted) for _ in range(2))
    until_active(one, "p")
    until_active(other, "p")
    feeding = partial(PubSubFeeder, emulator, topic, ordered=False)
    with fed(feeding, one, other, seed=seed, every=EVERY_SECONDS) as scene:
        enough = moments.randrange(10, 60)
        wait_until(lambda: facts(one, "p")["published"] > enough, 20, "both nodes")
        redis.signal(signal.SIGSTOP)  # so that it dies with messages in hand, of which some are still appended
        wait_until(lambda: facts(one, "p")["lag"], what="messages in hand")
        one.kill()
        redis.signal(signal.SIGCONT)
        scene.wait_for(moments.randrange(50, 150))


def test_the_relay_away_for_a_while_loses_and_doubles_nothing(
    emulator: PubSubEmulator, redis: RedisServer, node: StartNode, seed: int
) -> None:
    moments = random.Random(seed)
    topic = f"stalled-{seed}"
    emulator.make(topic, f"{topic}-in", ordered=True)
    one = node(**pulling(emulator, mapping(f"{topic}-in", TOPIC)), relay=redis.url)
    until_active(one, "p")
    with fed(partial(PubSubFeeder, emulator, topic, ordered=True), one, seed=seed, every=EVERY_SECONDS) as scene:
        scene.wait_for(moments.randrange(20, 100))
        redis.signal(signal.SIGSTOP)
        wait_until(lambda: state(one, "p") != "ok", 20, "the bridge's state")
        scene.wait_for(moments.randrange(10, 100))
        redis.signal(signal.SIGCONT)
        scene.wait_for(50)


def test_pub_sub_killed_in_the_middle_loses_and_doubles_nothing(
    own_emulator: PubSubEmulator, node: StartNode, seed: int
) -> None:
    """The emulator forgets everything and counts its ids from the beginning, so messages are told apart by their body,
    and the publisher gives all of them again."""
    moments = random.Random(seed)
    own_emulator.make("numbers", "numbers-in", ordered=True)
    one = node(**pulling(own_emulator, mapping("numbers-in", TOPIC, key="{body}"), max_waiting=10))
    until_active(one, "p")
    feeding = partial(PubSubFeeder, own_emulator, "numbers", ordered=True, told_apart=True)
    with fed(feeding, one, seed=seed) as scene:
        scene.wait_for(moments.randrange(50, 150))
        own_emulator.kill()
        wait_until(lambda: state(one, "p") == "Pub/Sub does not answer", 20, "the bridge's state")
        time.sleep(moments.uniform(0, 1))  # for so long there is none
        own_emulator.start()
        own_emulator.make("numbers", "numbers-in", ordered=True)
        until_active(one, "p")
        scene.wait_for(50)
    assert facts(one, "p")["reconnects"] >= 1
    assert facts(one, "p")["repeated"] > 0
