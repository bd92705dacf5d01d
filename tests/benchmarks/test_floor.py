"""The floor delivers, and pays for heartbeats as everybody else does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.servers import Floor
from benchmarks.storm import Programs, Run, run_storm


@pytest.fixture
def floor(programs: Programs, tmp_path: Any) -> Iterator[Floor]:
    with Floor(tmp_path, None, heartbeat_seconds=1, program=programs.floor) as server:
        yield server


def run(programs: Programs, floor: Floor, **options: object) -> Run:
    common = {"pids": floor.pids()[0], "readers": 50, "settle_seconds": 0, "linger_seconds": 5}
    return run_storm(programs.storm, None, "floor", "test", common | floor.options() | options)


def test_the_floor_delivers_every_event_to_everybody(programs: Programs, floor: Floor) -> None:
    report = run(programs, floor, count=20, one_at_a_time=True, gap_seconds=0)
    assert report.losses == {}
    assert report["delivered"] == 1000
    assert report["cpu_seconds"] > 0


def test_the_floor_sends_heartbeats(programs: Programs, floor: Floor) -> None:
    # The first answer's head is 53 bytes; whatever comes beyond is heartbeats.
    quiet = run(programs, floor, count=0)
    held = run(programs, floor, count=0, hold_seconds=1.2)
    assert held["bytes"] > quiet["bytes"]


def test_a_server_is_stopped_with_its_block(programs: Programs, tmp_path: Any) -> None:
    with Floor(tmp_path, None, program=programs.floor) as server:
        assert server.process is not None
        assert server.process.poll() is None
    assert server.process.returncode is not None


def test_the_report_is_one_json_object(programs: Programs, floor: Floor) -> None:
    command = [
        str(programs.storm),
        "--to",
        f"127.0.0.1:{floor.port}",
        "--readers",
        "1",
        "--count",
        "0",
        "--settle-seconds",
        "0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert json.loads(done.stdout)["opened"] == 1
