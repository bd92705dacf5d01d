"""Fixtures that all tests share: server processes that end with their test, and Hypothesis without chance or clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import settings

from tests.harness.postgres import PostgresServer
from tests.harness.process import Node

pytest_plugins = ["tests.order", "tests.rounds"]

# No example database and no deadline: a run depends on the code alone, not on earlier runs or a busy machine.
settings.register_profile("ringcast", derandomize=True, database=None, deadline=None, max_examples=100)
settings.load_profile("ringcast")


class StartNode(Protocol):
    """`node(heartbeat_seconds=1)` starts a server with these settings and gives the running Node."""

    def __call__(self, *, port: int | None = None, **settings: object) -> Node: ...


@contextmanager
def starting(folder: Path, **common: object) -> Iterator[StartNode]:
    """A factory of servers in a folder, with these settings unless others are given. All are killed at the end, if they
    have not ended before."""
    started: list[Node] = []

    def start(*, port: int | None = None, **settings: object) -> Node:
        started.append(Node(folder, port=port, **common | settings))
        return started[-1].start()

    try:
        yield start
    finally:
        for server in started:
            if server.process is not None:
                server.kill()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[StartNode]:
    """A factory of servers in this test's folder, which end with the test."""
    with starting(tmp_path) as start:
        yield start


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests: each takes a database of its own by `postgres.url(name)`."""
    server = PostgresServer().start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One server with default settings, for tests that leave no trace. Others publish here too: use own topics."""
    server = Node(tmp_path_factory.mktemp("shared-node")).start()
    yield server
    server.kill()
