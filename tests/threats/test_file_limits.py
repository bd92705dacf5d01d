"""Running out of file descriptors: while serving, and from the start."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness.process import ROOT, Node, wait_until
from tests.harness.stream import Stream
from tests.threats.conftest import Start, finish
from tests.threats.crowd import Crowd
from tests.threats.neighbours import Neighbours
from tests.threats.process_facts import cpu_share, descriptors
from tests.threats.wire import Wire, answered, request

OPEN = request("GET", "/channels/main/events", Accept="text/event-stream")


class ConfinedNode(Node):
    """A server whose hard file limit is low from the start."""

    files = 100

    def start(self) -> ConfinedNode:
        self.process = self.launch()
        wait_until(self._answers, 20, "the confined server")
        return self

    def launch(self) -> subprocess.Popen[bytes]:
        """Start without waiting."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("RINGCAST_")}
        env |= {f"RINGCAST_{key.upper()}": str(value) for key, value in self.settings.items()}
        env |= {"RINGCAST_PORT": str(self.port), "PYTHONPATH": str(ROOT)}
        limit = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({self.files}, {self.files})); "
        command = [sys.executable, "-c", limit + "os.execv(sys.executable, [sys.executable, '-m', 'server', 'serve'])"]
        with self.log_path.open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def exhaust(node: Node, spare: int) -> None:
    """From now on the server can open only so many files more."""
    _, hard = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (max(descriptors(node.pid)) + 1 + spare, hard))


@pytest.mark.fault
def test_a_server_out_of_descriptors_stays_calm_and_recovers(start: Start, seed: int) -> None:
    """S08, FLT-16: streams go on, CPU below 10 %, a log line a second at most, newcomers let in within 2 s."""
    rng = random.Random(seed)
    spare = rng.randrange(10, 60)
    node = start()
    with Neighbours(node.port, every=0.05, page_first=True) as neighbours:
        neighbours.wait_for(rng.randrange(1, 20))
        exhaust(node, spare)
        streams = spare - 5  # or more
        with Crowd(node.port, 200, OPEN) as crowd:
            crowd.wait(lambda: sum(b"hello" in member.received for member in crowd.members) >= streams, 5, "streams")
            lines, begin = node.log().count("\n"), time.monotonic()
            assert cpu_share(node.pid, 2) < 0.1
            neighbours.wait_for(5)
            assert node.log().count("\n") - lines <= time.monotonic() - begin + 1
        with Stream(node.port, "/channels/main/events", seconds=2) as stream:
            assert stream.next_event().type == "hello"


def test_a_newcomer_does_not_wait_for_each_of_those_who_have_left(start: Start) -> None:
    """S08: with room for a few, hundreds knock and leave before anybody could open: they are passed over at once."""
    node = start()
    exhaust(node, 10)
    with Crowd(node.port, 300, OPEN) as crowd:
        crowd.wait(lambda: sum(b"hello" in member.received for member in crowd.members) >= 5, 5, "some streams")
    with Stream(node.port, "/channels/main/events", seconds=2) as stream:
        assert stream.next_event().type == "hello"


def test_silent_newcomers_do_not_push_out_publishers(start: Start) -> None:
    """S06, S08: out of descriptors, a publisher between two requests keeps its connection: refuse, don't evict."""
    node = start()
    with Neighbours(node.port, every=0.05) as neighbours:
        exhaust(node, 30)
        with Crowd(node.port, 100):
            neighbours.wait_for(20)


def test_a_stream_on_a_used_connection_needs_no_further_descriptor(start: Start) -> None:
    """S08: a connection that another part of the server has had becomes a stream without a second descriptor."""
    node = start()
    connections = [Wire(node.port) for _ in range(3)]
    for connection in connections:
        connection.come_in("later")
    exhaust(node, 0)
    for connection in connections:
        connection.send(OPEN)
        connection.until(b"event: hello")
        connection.close()


def test_idle_connections_behind_the_door_make_room(start: Start) -> None:
    """S08: out of descriptors, who had an answer and stays goes for a newcomer, long before its time is up."""
    node = start(header_seconds=60)
    exhaust(node, 20)
    with Crowd(node.port, 30, request("GET", "/health")) as crowd:
        crowd.wait(lambda: all(b"200 OK" in member.received for member in crowd.members), 10, "30 answers")
        assert len(crowd.open) <= 21


def test_a_low_file_limit_is_a_limit_on_connections_that_is_kept(tmp_path: Path) -> None:
    """S08: the server counts what its file limit allows and tells the rest to come later, before the kernel refuses."""
    node = ConfinedNode(tmp_path, drain_seconds=0).start()
    try:
        with Crowd(node.port, 150, OPEN) as crowd:
            crowd.wait(lambda: all(member.received for member in crowd.members), 10, "an answer for each of 150")
            crowd.step(0.1)
            live = sum(b"event: hello" in member.received for member in crowd.members)
            refused = sum(b"event: overloaded" in member.received for member in crowd.members)
            assert live + refused == 150 and 30 <= live < 100
            assert answered(node.port, request("GET", "/health")).status == 200
    finally:
        finish(node)


def test_a_promise_beyond_the_file_limit_is_refused_at_start(tmp_path: Path) -> None:
    """S08: max_connections that the file limit can't hold is an error at start, in words."""
    node = ConfinedNode(tmp_path, max_connections=5000)
    process = node.launch()
    try:
        assert process.wait(15) != 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
    text = node.log().lower()
    assert "max_connections" in text and "traceback" not in text, text
