"""Every server of the comparison starts, delivers, is measured and stops."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path

import pytest

from benchmarks.lab import Lab
from benchmarks.servers import SERVERS, Floor, Ringcast, Server
from benchmarks.storm import Programs, Run, StormError


@pytest.fixture
def lab(programs: Programs, tmp_path: Path) -> Lab:
    return Lab(tmp_path, programs, quick=True, repetitions=1, say=lambda _: None, cores=(None, None))


@pytest.mark.parametrize("name", ["ringcast", "floor"])
def test_a_server_delivers_to_the_load_generator_and_is_measured(lab: Lab, name: str) -> None:
    runs = lab.compare([name], lab.load("a few", readers=20, count=10, one_at_a_time=True, gap_seconds=0))
    assert [run.losses for run in runs[name]] == [{}]
    assert runs[name][0]["cpu_seconds"] > 0
    assert runs[name][0]["memory_before_kb"] > 0


def test_a_batch_reaches_every_reader(lab: Lab) -> None:
    runs = lab.compare(["ringcast"], lab.load("batches", readers=5, count=100, rate=0, batch=25, **Ringcast.ndjson))
    assert [(run.losses, run["delivered"]) for run in runs["ringcast"]] == [({}, 500)]


def test_readers_return_to_what_they_missed(lab: Lab) -> None:
    load = lab.load("return", readers=12, witnesses=2, replay=30, count=20, rate=200, return_seconds=0.01)
    runs = lab.compare(["ringcast"], load)
    assert [(run.losses, run["caught_up"]) for run in runs["ringcast"]] == [({}, 10)]


def test_a_server_that_cannot_start_is_trouble_and_is_not_tried_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Floor, "command", lambda _: ["false"])
    for _ in range(2):
        assert lab.compare(["floor"], lab.load("never"), repetitions=2) == {}
    assert [server for server, _ in lab.trouble] == ["floor"]


class Ready(http.server.BaseHTTPRequestHandler):
    """A node's /ready: in service, with a bridge of this state."""

    bridge = "ok"

    def do_GET(self) -> None:
        body = json.dumps(
            {"ready": True, "checks": {"relay": "ok", "draining": False, "bridge_b": self.bridge}}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests are silent."""


@pytest.mark.parametrize(("state", "ready"), [("ok", True), ("not connected yet", False)])
def test_a_node_is_measured_once_its_bridge_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, ready: bool
) -> None:
    """Before, what is published to core NATS is lost, though the node is in service."""
    monkeypatch.setattr(Ready, "bridge", state)
    node = Ringcast(tmp_path, None)
    with http.server.HTTPServer(("127.0.0.1", node.port), Ready) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert node.is_ready() is ready
        thread.join()


def test_a_server_is_gone_after_a_failure_inside_its_block(lab: Lab) -> None:
    processes = []

    def fail(server: Server) -> Run:
        processes.append(server.process)
        raise StormError("on purpose")

    assert lab.compare(["floor"], fail) == {}
    assert [process and process.returncode is not None for process in processes] == [True]
    assert lab.trouble == [("floor", "on purpose")]


def test_each_server_has_a_name_and_a_title() -> None:
    assert all(name == cls.name and cls.title for name, cls in SERVERS.items())
