"""nginx and nodes for the tests of this folder. All end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.browser.conftest import chromium
from tests.commands.scripted import Scripted
from tests.conftest import StartNode
from tests.faults.conftest import scene_of_the_round
from tests.harness.process import Node
from tests.nginx.proxy import Nginx

__all__ = ["chromium", "scene_of_the_round"]


class StartNginx(Protocol):
    """`nginx(node, …)` starts one before these nodes, by their Unix sockets; strings are addresses."""

    def __call__(self, *nodes: Node | str, changes: dict[str, str] | None = None) -> Nginx: ...


StartSocketNode = Callable[..., Node]
Script = Callable[..., Scripted]


def address(node: Node | str) -> str:
    """As nginx has it."""
    return node if isinstance(node, str) else f"unix:{node.settings['socket']}"


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[StartNginx]:
    started: list[Nginx] = []

    def start(*nodes: Node | str, changes: dict[str, str] | None = None) -> Nginx:
        started.append(Nginx(tmp_path, [address(node) for node in nodes], changes))
        return started[-1].start()

    yield start
    for one in started:
        if one.process is not None:
            assert one.stop() == 0, one.errors()


@pytest.fixture
def socket_node(node: StartNode, tmp_path: Path) -> StartSocketNode:
    """`socket_node(**settings)` starts a node that listens on a Unix socket too. Its streams come back quickly."""
    names = iter("abcdef")

    def start(**settings: object) -> Node:
        quick = {"retry_min_ms": 100, "retry_max_ms": 200, "drain_seconds": 0.2}
        return node(socket=tmp_path / f"{next(names)}.sock", **(quick | settings))

    return start


@pytest.fixture(scope="session")
def shared_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """nginx before one node with default settings, for tests that leave no trace. Use topics of your own."""
    folder = tmp_path_factory.mktemp("front")
    server = Node(folder, socket=folder / "node.sock").start()
    front = Nginx(folder, [address(server)])
    try:
        yield front.start()
        assert front.stop() == 0
    finally:
        if front.process is not None and front.process.poll() is None:
            front.stop()
        server.kill()


@pytest.fixture
def scripted() -> Iterator[Script]:
    """`scripted(answer, …)`: instead of a node, a server that gives these answers, one to each connection."""
    started: list[Scripted] = []

    def start(*answers: bytes | None) -> Scripted:
        started.append(Scripted(*answers))
        return started[-1]

    yield start
    for server in started:
        server.close()
