"""nginx is reloaded, or a node goes and comes, under live streams: clients resume, and nothing is lost or repeated."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

import psutil
import pytest

from tests.faults.witnesses import Scene, Subscriber
from tests.harness.process import Node, wait_until
from tests.nginx.conftest import StartNginx, StartSocketNode
from tests.nginx.http2 import Http2Stream

PATH = "/channels/main/events?topic="
UNLIMITED = {"rate=50r/s": "rate=100000r/s"}


def shutdown_ms(milliseconds: int) -> dict[str, str]:
    """The change that gives streams so long at a reload, instead of 300 s."""
    return {"worker_shutdown_timeout 300s;": f"worker_shutdown_timeout {milliseconds}ms;"}


@pytest.mark.fault
def test_a_reload_lets_streams_be_and_serves_newcomers_at_once(
    socket_node: StartSocketNode, nginx: StartNginx, seed: int
) -> None:
    """FLT-11: the old workers stay for the streams that they have; one that ends on its own costs nothing."""
    rng = random.Random(seed)
    front = nginx(socket_node())
    with contextlib.ExitStack() as held:
        streams = [held.enter_context(front.stream(f"{PATH}a")) for _ in range(rng.randrange(1, 7))]
        other = held.enter_context(Http2Stream(front, f"{PATH}a"))
        for stream in streams:
            stream.next_event()
        texts = [f"event {number}" for number in range(1, rng.randrange(2, 12))]
        before = rng.randrange(len(texts))
        for text in texts[:before]:
            front.publish("a", text)
        old = front.reload()
        assert old & front.workers()
        newcomer = held.enter_context(front.stream(f"{PATH}a"))
        newcomer.next_event()
        for text in texts[before:]:
            front.publish("a", text)
        for stream in streams:
            assert [event.data for event in stream.events(len(texts))] == texts
        assert [event.data for event in newcomer.events(len(texts) - before)] == texts[before:]
        other.wait_event(texts[-1])
        assert [event.data for event in other.events if event.type == "message"] == texts
    wait_until(lambda: not old & front.workers(), 10, "the old workers gone with their streams")


@pytest.mark.fault
def test_what_outlives_the_shutdown_time_is_cut_and_resumes(
    socket_node: StartSocketNode, nginx: StartNginx, seed: int
) -> None:
    """FLT-11: five reloads under load; at most two generations of workers, no loss, no repetition, one order."""
    front = nginx(socket_node(), changes=UNLIMITED | shutdown_ms(random.Random(seed).randrange(300, 1500)))
    with Scene(front.plain_port) as scene:
        for _ in range(5):
            scene.wait_for(50)
            front.reload()
            assert front.generations() <= 2
            wait_until(lambda: front.generations() == 1, 10, "the old workers gone")
            scene.carried_on()  # for those who were cut off
    assert scene.history.problems() == []
    assert all(subscriber.connections >= 3 for subscriber in scene.subscribers)
    assert "fail" not in scene.history.outcomes.values()


@pytest.mark.fault
def test_reloads_in_a_row_do_not_pile_up(socket_node: StartSocketNode, nginx: StartNginx, seed: int) -> None:
    """FLT-11: twenty at once under streams that never end by themselves: soon one generation is left, and the master
    has no more descriptors than before. Twenty more, each when the time of the last one's old workers is over: never
    more than two generations.
    """
    rng = random.Random(seed)
    front = nginx(socket_node(), changes=shutdown_ms(rng.randrange(50, 150)))
    assert front.process is not None
    master = psutil.Process(front.process.pid)
    before = master.num_fds()
    with contextlib.ExitStack() as held:
        for paced in (False, True):
            for _ in range(20):
                for _ in range(rng.randrange(1, 4)):
                    held.enter_context(front.stream(f"{PATH}a")).next_event()
                front.reload()
                if paced:
                    assert front.generations() <= 2
                    wait_until(lambda: front.generations() == 1, 10, "the old workers gone")
            wait_until(lambda: front.generations() == 1, 20, "one generation")
            assert len(front.workers()) == 2
            assert master.num_fds() <= before + 4


@pytest.mark.fault
def test_each_reload_within_the_shutdown_time_adds_a_generation_until_its_streams_end(
    socket_node: StartSocketNode, nginx: StartNginx, seed: int
) -> None:
    """FLT-11: the shipped 300 s cut nobody in a hurry; what that costs is one generation for each reload in that time,
    and no more. Each goes with its last stream, the oldest or another.
    """
    rng = random.Random(seed)
    front = nginx(socket_node())
    with contextlib.ExitStack() as held:
        streams = []
        for reloads in range(4):
            streams.append(held.enter_context(front.stream(f"{PATH}a")))
            streams[-1].next_event()
            assert front.generations() == reloads + 1
            if reloads < 3:
                front.reload()
        front.publish("a", "to all generations")
        assert [stream.events(1)[0].data for stream in streams] == ["to all generations"] * 4
        for left in (3, 2, 1):
            streams.pop(rng.randrange(left)).close()  # the last one is on the workers that stay
            wait_until(lambda left=left: front.generations() == left, 10, "a generation gone")  # type: ignore[misc]
        assert len(front.workers()) == 2


@pytest.mark.fault
def test_a_node_that_is_drained_or_dies_and_comes_again_loses_nothing(
    socket_node: StartSocketNode, nginx: StartNginx, tmp_path: Path, seed: int
) -> None:
    """9.4, FLT-30: in between nginx answers for the node: readers are asked back, publishers try again by their key."""
    node = socket_node(relay=f"sqlite:{tmp_path / 'log.db'}")
    soon = {"$ringcast_seconds${ringcast_tenths}00\\nevent: unavailable": "${ringcast_tenths}\\nevent: unavailable"}
    # The subscribers of these tests take the end of a connection for the end of an answer.
    closing = {"keepalive_timeout 75s;": "keepalive_timeout 0;"}
    front = nginx(node, changes=UNLIMITED | soon | closing)
    rng = random.Random(seed)
    with Scene(front.plain_port, subscribers=3) as scene:
        for ending in rng.sample((node.stop, node.kill), 2):
            scene.wait_for(30)
            goals = [_asked_back(subscriber) + rng.randrange(1, 20) for subscriber in scene.subscribers]
            scene.broken(front.plain_port)
            ending()
            wait_until(lambda goals=goals: _reached(scene, goals), 10, "every subscriber asked back by nginx")
            node.start()
            scene.healed()
        scene.wait_for(30)
    assert scene.history.problems() == []


def _asked_back(subscriber: Subscriber) -> int:
    """How often nginx has asked it to come back."""
    return subscriber.endings.count("unavailable")


def _reached(scene: Scene, goals: list[int]) -> bool:
    return all(_asked_back(one) >= goal for one, goal in zip(scene.subscribers, goals, strict=True))


def test_streams_are_spread_over_the_nodes(socket_node: StartSocketNode, nginx: StartNginx) -> None:
    """Least connections, counted over all workers: no node ever has two more than the other."""
    nodes = [socket_node(), socket_node()]
    front = nginx(*nodes)
    streams = []
    for number in range(40):
        streams.append(front.stream(f"{PATH}{number}"))
        streams[-1].next_event()
        first, second = readers(nodes)
        assert abs(first - second) <= 1, number
    for stream in streams:
        stream.close()


def test_readers_of_a_topic_can_be_kept_on_one_node(socket_node: StartSocketNode, nginx: StartNginx) -> None:
    """The other balancing that nodes.conf offers: by channel and topic, the same on every worker and after a reload."""
    nodes = [socket_node(), socket_node()]
    hashed = {"    least_conn;": "", "#hash $uri$arg_topic consistent;": "hash $uri$arg_topic consistent;"}
    front = nginx(*nodes, changes=hashed)
    for topic in range(12):
        streams = [front.stream(f"{PATH}{topic}") for _ in range(4)]
        if topic == 6:
            front.reload()
        for stream in streams:
            stream.next_event()
        streams.append(front.stream(f"{PATH}{topic}"))
        streams[-1].next_event()
        assert sorted(readers(nodes)) == [0, 5]
        for stream in streams:
            stream.close()
        wait_until(lambda: readers(nodes) == [0, 0], 5, "no reader left")


def readers(nodes: list[Node]) -> list[int]:
    """How many each node has."""
    return [json.loads(node.get("/stats")[2])["connections"]["total"] for node in nodes]
