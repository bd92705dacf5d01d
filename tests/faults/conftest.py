"""Servers for the tests of faults: the same as for attacks, and nodes of an application over a PostgreSQL that dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.witnesses import Scene
from tests.harness.postgres import PostgresServer
from tests.harness.process import Node
from tests.harness.redis import RedisServer
from tests.threats.conftest import finish, start

__all__ = ["start"]


@pytest.fixture(autouse=True)
def scene_of_the_round(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who hangs up by chance does so in each round at other moments."""
    monkeypatch.setattr(Scene, "seed", seed)


@pytest.fixture(scope="module")
def roomy_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server without a key and with room for large events."""
    node = Node(tmp_path_factory.mktemp("bursts"), drain_seconds=0, lag_bytes=64 << 20, write_stall_seconds=20).start()
    yield node
    finish(node)


@pytest.fixture
def database() -> Iterator[PostgresServer]:
    """One that a test may kill."""
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def application() -> dict[str, Any]:
    """Which application `nodes` have, and its settings. A module that takes them says so by a fixture of its own."""
    raise NotImplementedError


@pytest.fixture
def nodes(application: dict[str, Any], database: PostgresServer, tmp_path: Path) -> Iterator[list[Node]]:
    """Two, over one Redis and one PostgreSQL."""
    redis = RedisServer(tmp_path).start()
    settings = {"simulate": False, "drain_seconds": 0, "database": database.url("shared")} | application
    both = [Node(tmp_path, relay=redis.url, **settings) for _ in range(2)]
    try:
        yield [node.start() for node in both]
    finally:
        for node in both:
            if node.process is not None:
                finish(node)
        redis.stop()
