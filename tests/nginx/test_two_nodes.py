"""Two nodes that share a log, behind one nginx: one is always there, and nobody loses anything."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from server.commands.rolling_restart import rolling_restart
from tests.faults.witnesses import Scene
from tests.harness.process import Node, wait_until
from tests.harness.redis import RedisServer
from tests.nginx.conftest import StartNginx, StartSocketNode
from tests.nginx.test_reload import UNLIMITED, readers

# The subscribers of these tests take the end of a connection for the end of an answer.
CLOSING = {"keepalive_timeout 75s;": "keepalive_timeout 0;"}


@pytest.fixture
def nodes(socket_node: StartSocketNode, tmp_path: Path) -> Iterator[list[Node]]:
    redis = RedisServer(tmp_path).start()
    yield [socket_node(relay=redis.url), socket_node(relay=redis.url)]
    redis.kill()


@pytest.mark.fault
def test_a_rolling_restart_under_load_loses_nothing(
    nodes: list[Node], nginx: StartNginx, tmp_path: Path, seed: int
) -> None:
    """FLT-10: every reader is sent away and finds the other node, and no publisher is refused."""
    front = nginx(*nodes, changes=UNLIMITED | CLOSING)
    rng = random.Random(seed)
    with Scene(front.plain_port, subscribers=6) as scene, restarted_by_file(tmp_path, nodes):
        scene.wait_for(30)
        arguments = rng.sample([f"{number}={node.url}" for number, node in enumerate(nodes)], len(nodes))
        command = ["--settle-seconds", f"{rng.uniform(0.3, 1):.2f}", "--restart", f"touch {tmp_path}/wish-{{name}}"]
        done = CliRunner().invoke(rolling_restart, [*command, *arguments])
        assert done.exit_code == 0, done.output
        scene.healed()
        scene.wait_for(30)
    assert scene.history.problems() == []
    assert all("draining" in subscriber.endings for subscriber in scene.subscribers)
    assert "fail" not in scene.history.outcomes.values()


@contextlib.contextmanager
def restarted_by_file(folder: Path, nodes: list[Node]) -> Iterator[None]:
    """While it lasts, nodes are restarted that a file asks for, as a service manager would."""
    wishes = {folder / f"wish-{number}": node for number, node in enumerate(nodes)}
    leaving = threading.Event()

    def obey() -> None:
        while not leaving.wait(0.02):
            for wish, node in wishes.items():
                if wish.exists():
                    node.stop()
                    node.start()
                    wish.unlink()

    thread = threading.Thread(target=obey)
    thread.start()
    try:
        yield
    finally:
        leaving.set()
        thread.join(30)


@pytest.mark.fault
def test_a_node_that_dies_hands_its_readers_to_the_other(nodes: list[Node], nginx: StartNginx, seed: int) -> None:
    """FLT-09: `kill -9`; through nginx they resume on the other by their cursor, and nginx asks nobody to wait."""
    front = nginx(*nodes, changes=UNLIMITED | CLOSING)
    rng = random.Random(seed)
    with Scene(front.plain_port, subscribers=6, company=False) as scene:  # whose connections are counted
        for node in rng.sample(nodes, len(nodes)):
            scene.wait_for(30)
            [held] = readers([node])
            before = [subscriber.connections for subscriber in scene.subscribers]
            node.kill()
            scene.carried_on()
            wait_until(lambda before=before, held=held: moved(scene, before) >= held, 10, "its readers on the other")
            scene.wait_for(rng.randrange(10, 120))
            node.start()
            scene.healed()
        scene.wait_for(30)
    assert scene.history.problems() == []
    assert sum(subscriber.connections for subscriber in scene.subscribers) >= 2 * len(scene.subscribers)
    assert not any("unavailable" in subscriber.endings for subscriber in scene.subscribers)


def moved(scene: Scene, before: list[int]) -> int:
    """How many subscribers have opened a stream since."""
    counts = zip(scene.subscribers, before, strict=True)
    return sum(subscriber.connections > count for subscriber, count in counts)
