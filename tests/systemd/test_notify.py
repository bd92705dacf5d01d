"""A real node and the service manager's end of `$NOTIFY_SOCKET`, with a watchdog of a second."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import StartNode
from tests.harness.process import Node, free_port, wait_until
from tests.harness.stream import Stream

WATCHDOG_SECONDS = 1.0


class NotifySocket:
    """Hears what nodes say: each datagram is a dictionary."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    def listen(self, seconds: float) -> list[dict[str, str]]:
        """What is said within this time, to the last word."""
        found, end = [], time.monotonic() + seconds
        while True:
            try:
                found.append(dict(line.split("=", 1) for line in self.socket.recv(4096).decode().split("\n")))
            except BlockingIOError:
                if time.monotonic() >= end:
                    return found
                time.sleep(0.005)

    def wait_for(self, name: str, seconds: float = 10) -> dict[str, str]:
        """The first datagram that says this."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for said in self.listen(0.01):
                if name in said:
                    return said
        raise AssertionError(f"{name} was not said within {seconds} s")


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NotifySocket]:
    """Nodes started afterwards inherit its address."""
    path = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_SECONDS * 1_000_000)))
    made = NotifySocket(path)
    yield made
    made.socket.close()


def test_ready_is_said_when_it_serves(systemd: NotifySocket, tmp_path: Path) -> None:
    """Not before: whoever connects at that very moment is answered, on both of its addresses."""
    node = Node(tmp_path, socket=tmp_path / "node.sock")
    starting = threading.Thread(target=node.start)  # which would hear of it only after us
    starting.start()
    said = systemd.wait_for("READY", 20)
    try:
        assert node.get("/ready")[0] == 200
        with socket.socket(socket.AF_UNIX) as local:
            local.connect(str(tmp_path / "node.sock"))
        assert said["STATUS"].startswith("serving, 0 of ")
    finally:
        starting.join(20)
        node.kill()


def test_a_node_that_cannot_start_is_never_ready(systemd: NotifySocket, tmp_path: Path) -> None:
    """Its port is taken: exit code 1, and not a word."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        node = Node(tmp_path, port=taken.getsockname()[1])
        with pytest.raises(AssertionError, match="the server ended"):
            node.start()
    assert node.process is not None and node.process.wait(10) == 1
    assert systemd.listen(0.1) == []


@pytest.mark.fault
def test_the_watchdog_is_fed_while_the_loop_runs_and_only_then(
    systemd: NotifySocket, node: StartNode, seed: int
) -> None:
    """FLT-17: several times within its interval, also with work to do; never by a process that stands still."""
    server = node()
    systemd.wait_for("WATCHDOG")
    with Stream(server.port, "/channels/main/events") as stream:
        stream.next_event()
        began = time.monotonic()
        beats = [said for said in systemd.listen(3) if "WATCHDOG" in said]
        assert len(beats) >= (time.monotonic() - began) / WATCHDOG_SECONDS
        assert beats[-1]["STATUS"].startswith("serving, 1 of ")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: psutil.Process(server.pid).status() == psutil.STATUS_STOPPED, what="it stands still")
        systemd.listen(0.1)
        assert systemd.listen(random.Random(seed).uniform(2, 4) * WATCHDOG_SECONDS) == []
    finally:
        os.kill(server.pid, signal.SIGCONT)
    systemd.wait_for("WATCHDOG")


def test_stopping_is_said_at_the_drain_with_the_time_it_takes(systemd: NotifySocket, node: StartNode) -> None:
    """FLT-18: at SIGTERM, while its readers are still there; and the loop goes on to be watched until they are gone."""
    server = node(drain_seconds=3)
    with Stream(server.port, "/channels/main/events") as one, Stream(server.port, "/channels/main/events") as other:
        one.next_event()
        other.next_event()
        os.kill(server.pid, signal.SIGTERM)
        said = systemd.wait_for("STOPPING", 5)
        assert said["STATUS"].startswith("draining, ")
        assert 33 <= int(said["EXTEND_TIMEOUT_USEC"]) / 1_000_000 <= 40
        assert server.process is not None and server.process.poll() is None
        systemd.wait_for("WATCHDOG", 3)
        assert [block.type for stream in (one, other) for block in stream.wait_end() if block.data] == ["draining"] * 2
    assert server.process.wait(10) == 0


def test_a_full_socket_delays_nothing(systemd: NotifySocket, node: StartNode) -> None:
    """Its queue is full for the whole life of the node: it starts, serves and stops as without one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as others:
        others.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                others.sendto(b"STATUS=busy", systemd.socket.getsockname())
    server = node(drain_seconds=0)
    wait_until(lambda: server.get("/ready")[0] == 200, 5)
    assert server.stop(5) == 0
