"""The load test in stages: what it plans, and what a real node sees of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from benchmarks.locust.stages import UP_AND_DOWN, length_seconds, readers_at
from tests.conftest import StartNode
from tests.harness.process import ROOT, Node

SCALE = 0.1
STEP_SECONDS = 0.9  # Locust takes one every second, and so several up and several down
MOST = 100
OPTIONS = ("--stages", "--of", "facilities", "--publishers", "2", "--publish-rate", "5", "--max-p95-ms", "2000")


@pytest.mark.parametrize(
    ("second", "readers"),
    [(-1, 0), (0, 0), (3, 10), (15, 50), (30, 100), (60, 100), (89.9, 100), (90, 100), (105, 50), (117, 10), (120, 0),
     (500, 0)],
)  # fmt: skip
def test_the_stages_are_those_of_the_specification(second: float, readers: int) -> None:
    """S1, E18: 30 s up to 100, a minute of that, 30 s down to none."""
    assert readers_at(UP_AND_DOWN, second) == readers
    assert length_seconds(UP_AND_DOWN) == 120


def readers_of(node: Node) -> int:
    """How many streams the node has."""
    total: int = json.loads(node.get("/stats")[2])["connections"]["total"]
    return total


def test_readers_come_stay_and_go_and_lose_nothing(node: StartNode) -> None:
    """F11: each of a hundred gets a stream and every event on it, and all have left before the end."""
    server = node(apps="facilities", simulate=False, drain_seconds=0)
    command = [sys.executable, "-m", "benchmarks.locust.profile", "--host", server.url, *OPTIONS]
    environment = os.environ | {"LOCUST_STAGE_SCALE": str(SCALE)}
    seen: list[tuple[float, int]] = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as profile:
        while profile.poll() is None:
            seen.append((time.monotonic(), readers_of(server)))
            time.sleep(0.02)
        text = profile.stdout.read() if profile.stdout else ""
    assert profile.returncode == 0, text[-4000:]
    assert f"\n{MOST} readers, " in text and " 0 gaps, 0 losses, 0 errors" in text, text[-4000:]
    counts = [count for _, count in seen]
    top = counts.index(MOST)
    assert counts[: top + 1] == sorted(counts[: top + 1]), counts
    assert counts[top:] == sorted(counts[top:], reverse=True), counts
    assert counts[0] == counts[-1] == 0
    first, full = (next(at for at, count in seen if count >= wanted) for wanted in (1, MOST))
    fewer, none = (next(at for at, count in seen if at > full and count <= wanted) for wanted in (MOST - 1, 0))
    assert min(full - first, none - fewer) > STEP_SECONDS, seen
