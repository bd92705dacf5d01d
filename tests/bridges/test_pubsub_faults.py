"""Google Pub/Sub and faults: nothing acknowledged is lost, nothing enters twice, whatever is killed."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bridges.conftest import data, facts, listen, mapping, state, until_active
from tests.bridges.test_pubsub_pull import pulling
from tests.conftest import StartNode
from tests.harness.process import wait_until
from tests.harness.pubsub import PubSubEmulator
from tests.harness.redis import RedisServer

pytestmark = pytest.mark.fault

NUMBERS: dict[str, Any] = mapping("numbers-in")


@pytest.fixture
def own_emulator(tmp_path: Path) -> Iterator[PubSubEmulator]:
    server = PubSubEmulator(tmp_path).start()
    yield server
    server.stop()


def numbers(first: int, behind: int) -> list[str]:
    return [str(number) for number in range(first, behind)]


def test_a_node_killed_in_the_middle_loses_and_doubles_nothing(
    emulator: PubSubEmulator, node: StartNode, seed: int
) -> None:
    """It dies with messages in hand, which come again after the subscription's deadline."""
    topic = f"kill-node-{seed}"
    emulator.make(topic, f"{topic}-in", ordered=True)
    wanted = pulling(emulator, mapping(f"{topic}-in"), max_waiting=10) | {"relay": "sqlite:log.db"}
    one = node(**wanted)
    until_active(one, "p")
    emulator.publish(topic, *numbers(0, 500), key="a")
    enough = random.Random(seed).randrange(10, 200)
    wait_until(lambda: facts(one, "p")["published"] > enough, 20, "the bridge")
    one.kill()
    emulator.publish(topic, *numbers(500, 600), key="a")
    one.start()
    with listen(one, "t&last=1000") as stream:
        assert data(stream, 600) == numbers(0, 600)
        emulator.publish(topic, "end", key="a")
        assert data(stream, 1) == ["end"]


def test_of_two_nodes_one_killed_the_other_takes_over(
    emulator: PubSubEmulator, redis: RedisServer, node: StartNode, seed: int
) -> None:
    topic = f"two-{seed}"
    emulator.make(topic, f"{topic}-in")
    wanted = pulling(emulator, mapping(f"{topic}-in"), max_waiting=10) | {"relay": redis.url}
    one, other = (node(**wanted) for _ in range(2))
    until_active(one, "p")
    until_active(other, "p")
    with listen(other) as stream:
        emulator.publish(topic, *numbers(0, 400))
        enough = random.Random(seed).randrange(10, 60)
        wait_until(lambda: facts(one, "p")["published"] > enough, 20, "both nodes")
        one.kill()
        emulator.publish(topic, *numbers(400, 500))
        assert sorted(map(int, data(stream, 500))) == list(range(500))
        emulator.publish(topic, "end")
        assert data(stream, 1) == ["end"]


def test_the_relay_away_for_a_while_loses_and_doubles_nothing(
    emulator: PubSubEmulator, redis: RedisServer, node: StartNode, seed: int
) -> None:
    topic = f"stalled-{seed}"
    emulator.make(topic, f"{topic}-in", ordered=True)
    one = node(**pulling(emulator, mapping(f"{topic}-in")), relay=redis.url)
    until_active(one, "p")
    with listen(one) as stream:
        emulator.publish(topic, *numbers(0, 100), key="a")
        assert data(stream, 100) == numbers(0, 100)
        redis.signal(signal.SIGSTOP)
        emulator.publish(topic, *numbers(100, 200), key="a")
        wait_until(lambda: state(one, "p") != "ok", 20, "the bridge's state")
        redis.signal(signal.SIGCONT)
        assert data(stream, 100) == numbers(100, 200)
        emulator.publish(topic, "end", key="a")
        assert data(stream, 1) == ["end"]


def test_pub_sub_killed_in_the_middle_loses_and_doubles_nothing(
    own_emulator: PubSubEmulator, node: StartNode, seed: int
) -> None:
    """The emulator forgets everything and counts its ids from the beginning, so messages are told apart by their body,
    and the publisher gives again what it does not know to have arrived."""
    own_emulator.make("numbers", "numbers-in", ordered=True)
    one = node(**pulling(own_emulator, NUMBERS | {"key": "{body}"}, max_waiting=10))
    until_active(one, "p")
    with listen(one) as stream:
        own_emulator.publish("numbers", *numbers(0, 300), key="a")
        enough = random.Random(seed).randrange(10, 100)
        wait_until(lambda: facts(one, "p")["published"] > enough, 20, "the bridge")
        own_emulator.kill()
        wait_until(lambda: state(one, "p") == "Pub/Sub does not answer", 20, "the bridge's state")
        own_emulator.start()
        own_emulator.make("numbers", "numbers-in", ordered=True)
        until_active(one, "p")
        own_emulator.publish("numbers", *numbers(0, 300), "end", key="a")
        assert data(stream, 301) == [*numbers(0, 300), "end"]
    assert facts(one, "p")["reconnects"] >= 1
    assert facts(one, "p")["repeated"] > 0
