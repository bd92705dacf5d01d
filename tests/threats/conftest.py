"""Servers for the tests of attacks. Each must end with exit code 0 and without a traceback in its log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.process import TOKEN_SECRET, Node

ORIGIN = "https://app.example"
Start = Callable[..., Node]


def finish(node: Node) -> None:
    """Stop, and check that nothing went wrong inside."""
    try:
        if node.process is not None and node.process.poll() is None:
            assert node.stop() == 0
    finally:
        if node.process is not None and node.process.poll() is None:
            node.kill()
    assert "Traceback" not in node.log(), node.log()[-4000:]


def finish_all(nodes: Iterable[Node]) -> None:
    """The same for each of them, whatever was wrong in another."""
    with ExitStack() as stack:
        for node in nodes:
            stack.callback(finish, node)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server with the given settings."""
    nodes: list[Node] = []

    def begin(**settings: object) -> Node:
        nodes.append(Node(tmp_path, **({"drain_seconds": 0} | settings)))
        return nodes[-1].start()

    yield begin
    finish_all(nodes)


@pytest.fixture(scope="session")
def open_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server without a key, for attacks that leave no state behind."""
    node = Node(tmp_path_factory.mktemp("open"), drain_seconds=0, header_seconds=2, body_seconds=2).start()
    yield node
    finish(node)


@pytest.fixture(scope="session")
def keyed_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server with an HMAC key and one allowed origin, logging all it can."""
    folder = tmp_path_factory.mktemp("keyed")
    node = Node(
        folder, drain_seconds=0, jwt_secret=TOKEN_SECRET, allowed_origins=ORIGIN, log_level="debug", log_format="json"
    ).start()
    yield node
    finish(node)
