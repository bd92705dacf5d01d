"""The node is told to stop while it starts, cannot start, or has a successor before it is gone."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.harness.process import Node, free_port, wait_until
from tests.threats.conftest import Start, finish
from tests.threats.crowd import Crowd
from tests.threats.wire import request


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


def status_over(path: Path) -> int:
    with closing(UnixConnection(path)) as connection:
        connection.request("GET", "/health")
        return connection.getresponse().status


def test_a_successor_takes_the_unix_socket_while_the_old_node_drains_and_keeps_it(
    start: Start, tmp_path: Path, seed: int
) -> None:
    path = tmp_path / "sock"
    old = start(socket=path, drain_seconds=4)
    with Crowd(old.port, 10, request("GET", "/channels/main/events", Accept="text/event-stream")) as crowd:
        crowd.wait(lambda: all(b"hello" in member.received for member in crowd.members), 10, "10 streams")
        os.kill(old.pid, signal.SIGTERM)
        wait_until(lambda: not path.exists(), 2, "the old node's socket being gone")
        time.sleep(random.Random(seed).uniform(0, 0.5))  # for so long nobody is there
        start(socket=path)
        assert old.process is not None
        assert old.process.poll() is None, "the old node did not outlive the start of the new one"
        assert old.process.wait(10) == 0
    assert status_over(path) == 200


@contextmanager
def silent_server() -> Iterator[tuple[int, threading.Event]]:
    """A port that is connected to and never answers; the event is set when somebody has."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        came = threading.Event()
        held: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    held.append(listener.accept()[0])
                    came.set()
            except OSError:
                pass

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1], came
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in held:
                one.close()


def start_in_vain(node: Node) -> None:
    with pytest.raises(AssertionError, match="the server ended"):
        node.start()


def test_a_node_that_is_told_to_stop_while_it_starts_stops_in_order(tmp_path: Path, seed: int) -> None:
    with silent_server() as (port, came):
        node = Node(tmp_path, jwks_url=f"http://127.0.0.1:{port}/keys", relay=f"sqlite:{tmp_path / 'log.db'}")
        starting = threading.Thread(target=start_in_vain, args=(node,))
        starting.start()
        try:
            assert came.wait(20)
            time.sleep(random.Random(seed).uniform(0, 1))  # where in the start the signal comes
            assert node.stop(5) == 0
        finally:
            starting.join()
            finish(node)
    assert "Traceback" not in node.log()


def test_a_node_that_cannot_start_leaves_its_log_closed(tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", free_port()))  # whoever asks there whether the node answers is refused at once
        node = Node(tmp_path, port=taken.getsockname()[1], relay=f"sqlite:{tmp_path / 'log.db'}")
        with pytest.raises(AssertionError, match="Address already in use"):
            node.start()
        assert node.process is not None
        assert node.process.wait(5) == 1
    with closing(sqlite3.connect(tmp_path / "log.db")) as log:
        assert log.execute("SELECT value FROM facts WHERE name = 'open'").fetchall() == [(0,)]
