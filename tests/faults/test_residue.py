"""When all have gone a node holds what it held before: connections, feeds, tasks, descriptors, threads and
memory. Also if Redis died meanwhile, or ended the connections that it held too much for.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults.checker import residue
from tests.faults.test_redis_faults import KEPT, HeavyScene, Site, cut_off_for_their_size, over_redis
from tests.faults.vital_signs import held
from tests.faults.witnesses import Scene
from tests.harness.process import Node, wait_until
from tests.threats.conftest import Start
from tests.threats.crowd import Crowd
from tests.threats.wire import request

RETAINED = 300
RING_EVENTS = 100  # over Redis, which keeps the others
READERS = 300
VISITS = 3
SETTLED_SECONDS = 60
BURST = 300  # events of 1 KB
HELD_BYTES = 32 << 10


def visit(
    nodes: Sequence[Node], events: int, scene_of: type[Scene] = Scene, fault: Callable[[Scene], None] | None = None
) -> None:
    """Readers of all kinds come and go, and hundreds that hang up each had a topic of its own; with a fault in the
    middle.
    """
    with scene_of(*[node.port for node in nodes]) as scene:
        scene.wait_for(events, 30)
        for first in range(0, READERS, 100):
            crowds = [
                Crowd(
                    nodes[number % len(nodes)].port,
                    1,
                    request("GET", f"/channels/main/events?topic=own/{number}", Accept="text/event-stream"),
                )
                for number in range(first, first + 100)
            ]
            for crowd in crowds:
                crowd.wait(lambda crowd=crowd: b"hello" in crowd.members[0].received, 10, "a stream")  # type: ignore[misc]
            if fault is not None and first == 100:
                fault(scene)
            for crowd in crowds:
                crowd.close()
    assert scene.history.problems() == []


def check_nothing_is_left(nodes: Sequence[Node], come: Callable[[], None]) -> None:
    """I7: within a minute, and with five per cent for memory. The first visit is what makes a process warm; and one of
    three more has to leave nothing: a pool of connections keeps the most that were ever needed at once, so it may grow
    by some at a visit, which what is lost would at each."""
    come()
    left: list[str] = []
    for _ in range(VISITS):
        before = [held(node) for node in nodes]
        come()
        end = time.monotonic() + SETTLED_SECONDS / VISITS
        while left := [text for node, was in zip(nodes, before, strict=True) for text in residue(was, held(node))]:
            if time.monotonic() > end:
                break
            time.sleep(0.1)  # between two looks
        if not left:
            return
    assert left == []


def test_nothing_is_left_of_readers_that_have_gone(start: Start) -> None:
    node = start(ring_events=RETAINED, retain_events=RETAINED)
    check_nothing_is_left([node], lambda: visit([node], 2 * RETAINED))


def killed(site: Site, scene: Scene) -> None:
    """Redis dies, is missed, and comes back with all that it had."""
    site.redis.kill()
    scene.broken(*site.ports)
    site.wait_ready(False)
    site.redis.start()
    scene.healed()
    site.wait_ready(True)


def ended_for_their_size(site: Site, scene: Scene) -> None:
    """A node stands still under a burst, and Redis ends the connections by which it reads that at once. It asks for
    less each time; so the limit is below its least.
    """
    stopped, ended = site.nodes[1].process, cut_off_for_their_size(site.redis)
    assert stopped is not None
    site.redis.command("CONFIG", "SET", "client-output-buffer-limit", f"normal {HELD_BYTES} 0 0")
    stopped.send_signal(signal.SIGSTOP)
    scene.wait_for(BURST, 30)
    stopped.send_signal(signal.SIGCONT)
    wait_until(lambda: cut_off_for_their_size(site.redis) > ended, 20, "a connection cut off")
    site.redis.command("CONFIG", "SET", "client-output-buffer-limit", "normal 0 0 0")
    scene.healed()
    site.wait_ready(True)


FAULTS: dict[str, tuple[type[Scene], Callable[[Site, Scene], None]]] = {
    "Redis is killed": (Scene, killed),
    "Redis ends connections that it holds too much for": (HeavyScene, ended_for_their_size),
}


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_left_on_two_nodes_behind_a_fault(tmp_path: Path, name: str) -> None:
    """FLT-02, FLT-08."""
    scene_of, fault = FAULTS[name]
    with over_redis(tmp_path, KEPT, ring_events=RING_EVENTS) as site:
        check_nothing_is_left(
            site.nodes, lambda: visit(site.nodes, RING_EVENTS, scene_of, lambda scene: fault(site, scene))
        )
