"""nginx is reloaded, or a node goes and comes, under live streams: clients resume, and nothing is lost or repeated."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import psutil
import pytest

from tests.faults.witnesses import Scene
from tests.harness.process import Node, wait_until
from tests.nginx.conftest import StartNginx, StartSocketNode
from tests.nginx.http2 import Http2Stream

PATH = "/channels/main/events?topic="
UNLIMITED = {"rate=50r/s": "rate=100000r/s"}
SHORT = {"worker_shutdown_timeout 300s;": "worker_shutdown_timeout 1s;"}


@pytest.mark.fault
def test_a_reload_lets_streams_be_and_serves_newcomers_at_once(socket_node: StartSocketNode, nginx: StartNginx) -> None:
    """FLT-11: the old workers stay for the streams that they have; one that ends on its own costs nothing."""
    front = nginx(socket_node())
    with front.stream(f"{PATH}a") as stream, Http2Stream(front, f"{PATH}a") as other:
        stream.next_event()
        old = front.reload()
        assert old & front.workers()
        with front.stream(f"{PATH}a") as newcomer:
            newcomer.next_event()
            front.publish("a", "after the reload")
            assert stream.events(1)[0].data == newcomer.events(1)[0].data == "after the reload"
            other.wait_event("after the reload")
    wait_until(lambda: not old & front.workers(), 10, "the old workers gone with their streams")


@pytest.mark.fault
def test_what_outlives_the_shutdown_time_is_cut_and_resumes(socket_node: StartSocketNode, nginx: StartNginx) -> None:
    """FLT-11: five reloads under load; at most two generations of workers, no loss, no repetition, one order."""
    front = nginx(socket_node(), changes=UNLIMITED | SHORT)
    with Scene(front.plain_port, 4) as scene:
        for _ in range(5):
            scene.wait_for(50)
            front.reload()
            assert front.generations() <= 2
            wait_until(lambda: front.generations() == 1, 10, "the old workers gone")
    assert scene.history.problems() == []
    assert all(subscriber.connections >= 3 for subscriber in scene.subscribers)
    assert "fail" not in scene.history.outcomes.values()


@pytest.mark.fault
def test_reloads_in_a_row_do_not_pile_up(socket_node: StartSocketNode, nginx: StartNginx) -> None:
    """FLT-11: twenty at once under streams that never end by themselves: soon one generation is left, and the master
    has no more descriptors than before. Twenty more, each when the time of the last one's old workers is over: never
    more than two generations.
    """
    front = nginx(socket_node(), changes={"worker_shutdown_timeout 300s;": "worker_shutdown_timeout 300ms;"})
    assert front.process is not None
    master = psutil.Process(front.process.pid)
    before = master.num_fds()
    with contextlib.ExitStack() as held:
        for paced in (False, True):
            for _ in range(20):
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
    socket_node: StartSocketNode, nginx: StartNginx
) -> None:
    """FLT-11: the shipped 300 s cut nobody in a hurry; what that costs is one generation for each reload in that time,
    and no more. Each goes with its last stream.
    """
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
            streams.pop(0).close()
            wait_until(lambda left=left: front.generations() == left, 10, "a generation gone")  # type: ignore[misc]
        assert len(front.workers()) == 2


@pytest.mark.fault
def test_a_node_that_is_drained_or_dies_and_comes_again_loses_nothing(
    socket_node: StartSocketNode, nginx: StartNginx, tmp_path: Path
) -> None:
    """9.4, FLT-30: in between nginx answers for the node: readers are asked back, publishers try again by their key."""
    node = socket_node(relay=f"sqlite:{tmp_path / 'log.db'}")
    soon = {"$ringcast_seconds${ringcast_tenths}00\\nevent: unavailable": "${ringcast_tenths}\\nevent: unavailable"}
    # The subscribers of these tests take the end of a connection for the end of an answer.
    closing = {"keepalive_timeout 75s;": "keepalive_timeout 0;"}
    front = nginx(node, changes=UNLIMITED | soon | closing)
    with Scene(front.plain_port, 3) as scene:
        for ending in (node.stop, node.kill):
            scene.wait_for(30)
            before = [subscriber.endings.count("unavailable") for subscriber in scene.subscribers]
            ending()
            wait_until(lambda before=before: _asked_back(scene, before), 10, "every subscriber asked back by nginx")
            node.start()
        scene.wait_for(30)
    assert scene.history.problems() == []


def _asked_back(scene: Scene, before: list[int]) -> bool:
    return all(
        subscriber.endings.count("unavailable") > count
        for subscriber, count in zip(scene.subscribers, before, strict=True)
    )


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
