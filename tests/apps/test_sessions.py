"""The commands that people type first, as they are written down for them, by a real curl: quoted where a shell would
take an `&` for itself."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.nats import NatsServer
from tests.harness.process import Node, wait_until
from tests.threats.conftest import finish

ONE = """curl -N -H "Accept: text/event-stream" \\
  http://localhost:8080/api/stream/facilities/fac_001"""
REGION = """curl -N -H "Accept: text/event-stream" \\
  "http://localhost:8080/api/stream/facilities/region?lat=6.5244&lon=3.3792&radius=25\""""
CHANGE = """curl -X PATCH http://localhost:8080/api/facilities/fac_001 \\
  -H "Content-Type: application/json" \\
  -d '{
    "capacity_status": "high",
    "avg_wait_minutes": 15
  }'"""
CHANGE_BACK = """curl -X PATCH http://localhost:8080/api/facilities/fac_001 \\
  -H "Content-Type: application/json" \\
  -d '{"capacity_status": "low"}'"""
SEARCH = 'curl -v "http://localhost:8080/api/facilities/search?lat=6.5244&lon=3.3792&radius=10"'
GET = "curl -v http://localhost:8080/api/facilities/fac_001"
JOB = """curl -N -H "Accept: text/event-stream" http://localhost:8080/api/v1/jobs/test-job-id/events"""
COMPANY = """curl -N -H "Accept: text/event-stream" \\
  "http://localhost:3007/stream/updates?companyId=test-company\""""


class Curl:
    """A command that is running. `text()` is what it has said so far, the answer's head with `-v` included."""

    def __init__(self, command: str, node: Node, folder: Path) -> None:
        words = shlex.split(command)
        words = [word.replace("localhost:8080", "X").replace("localhost:3007", "X") for word in words]
        self._path = folder / f"curl-{id(self)}"
        with self._path.open("wb") as out:
            self.process = subprocess.Popen(
                [word.replace("X", f"127.0.0.1:{node.port}", 1) if "://X" in word else word for word in words],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
            )

    def text(self) -> str:
        return self._path.read_text()

    def says(self, *texts: str) -> None:
        wait_until(lambda: all(text in self.text() for text in texts), 15, f"{texts} in the answer")

    def end(self) -> str:
        """All that it said; a stream is broken off."""
        if "-N" in self.process.args:  # type: ignore[operator]
            self.process.terminate()
        self.process.wait(15)
        return self.text()


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
def node(tmp_path: Path, nats: NatsServer) -> Iterator[Node]:
    settings = {"apps": "facilities,jobs,companies", "simulate": False, "database": f"sqlite:{tmp_path}/data.db"}
    one = Node(tmp_path, nats_url=nats.url, drain_seconds=0, **settings).start()
    yield one
    finish(one)


def test_facilities(node: Node, tmp_path: Path) -> None:
    """F1, F2, F4, F6, F7."""

    def run(command: str) -> str:
        return Curl(command, node, tmp_path).end()

    one, region = Curl(ONE, node, tmp_path), Curl(REGION, node, tmp_path)
    one.says("event: hello")
    region.says("event: hello")
    assert "X-Cache: MISS" in run(SEARCH)
    assert "X-Cache: HIT" in run(SEARCH)
    assert '"capacity_status":"high"' in run(CHANGE)
    for stream in (one, region):
        stream.says("event: capacity_update", "event: wait_time_update", '"facility_id":"fac_001"')
    assert "X-Cache: MISS" in run(GET)
    assert "X-Cache: HIT" in run(GET)
    run(CHANGE_BACK)
    assert "X-Cache: MISS" in run(GET)
    assert "X-Cache: HIT" in run(SEARCH)
    one.end()
    region.end()


def test_jobs(node: Node, tmp_path: Path) -> None:
    """J1: there is no job of that name."""
    stream = Curl(JOB, node, tmp_path)
    stream.says('"code":"not_found"')
    stream.end()


def test_companies(node: Node, nats: NatsServer, tmp_path: Path) -> None:
    """C1, C2."""
    stream = Curl(COMPANY, node, tmp_path)
    stream.says("event: hello")
    wait_until(lambda: json.loads(node.get("/ready")[2])["checks"]["bridge_companies"] == "ok", 15, "the bridge")
    nats.publish("metrics.calculated", '{"companyId":"test-company","metricName":"test","value":1}')
    stream.says("event: metric_updated", '"metricName":"test"')
    stream.end()
