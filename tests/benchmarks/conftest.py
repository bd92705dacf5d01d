"""The load generator, compiled once, and servers that misbehave to order."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.storm import Programs, build, command_line
from tests.benchmarks.scripted_server import Deliver, ScriptedServer, to_everybody

Storm = Callable[..., dict[str, Any]]
Script = Callable[..., ScriptedServer]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return build(tmp_path_factory.mktemp("load"))


@pytest.fixture
def script() -> Iterator[Script]:
    """`script(deliver, …)` starts a server that delivers as `deliver` says."""
    started: list[ScriptedServer] = []

    def start(deliver: Deliver = to_everybody, **options: Any) -> ScriptedServer:
        started.append(ScriptedServer(deliver, **options))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def storm(programs: Programs) -> Storm:
    """`storm(server, readers=3, …)` is one run; few events, fast, and short bounds."""

    def run(server: ScriptedServer, **options: object) -> dict[str, Any]:
        defaults: dict[str, object] = {
            "to": server.address,
            "path": "/events?n={n}&group={g}",
            "publish_path": "/publish",
            "readers": 4,
            "count": 8,
            "rate": 400,
            "settle_seconds": 0,
            "open_seconds": 5,
            "publish_seconds": 5,
            "linger_seconds": 10,
        }
        command = command_line(programs.storm, defaults | options)
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    return run
