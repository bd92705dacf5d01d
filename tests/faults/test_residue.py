"""When all have gone a node holds what it held before: connections, feeds, tasks, descriptors, threads and
memory."""

from __future__ import annotations

from tests.faults.checker import residue
from tests.faults.vital_signs import held
from tests.faults.witnesses import Scene
from tests.harness.process import Node, wait_until
from tests.threats.conftest import Start
from tests.threats.crowd import Crowd
from tests.threats.wire import request

RETAINED = 300
READERS = 300
SETTLED_SECONDS = 60


def visit(node: Node) -> None:
    """Readers of all kinds come and go, and hundreds that hang up each had a topic of its own."""
    with Scene(node.port) as scene:
        scene.wait_for(2 * RETAINED)
        for first in range(0, READERS, 100):
            crowds = [
                Crowd(
                    node.port,
                    1,
                    request("GET", f"/channels/main/events?topic=own/{number}", Accept="text/event-stream"),
                )
                for number in range(first, first + 100)
            ]
            for crowd in crowds:
                crowd.wait(lambda crowd=crowd: b"hello" in crowd.members[0].received, 10, "a stream")  # type: ignore[misc]
            for crowd in crowds:
                crowd.close()
    assert scene.history.problems() == []


def test_nothing_is_left_of_readers_that_have_gone(start: Start) -> None:
    """I7: within a minute, and with five per cent for memory. The first visit is what makes a process warm."""
    node = start(ring_events=RETAINED, retain_events=RETAINED)
    visit(node)
    before = held(node)
    visit(node)
    wait_until(lambda: residue(before, held(node)) == [], SETTLED_SECONDS, "what was held before")
