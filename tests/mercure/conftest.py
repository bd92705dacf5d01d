"""Hubs in the ways they can be configured; each serves many tests, so every test uses topics of its own (`topic`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.harness.process import TOKEN_SECRET, Node
from tests.mercure.hub import ORIGIN, Hub, token

_numbers = itertools.count(1)

PUBLISHER = token(publish=["*"], sub="publisher")


@pytest.fixture
def topic() -> str:
    """A topic that no other test uses."""
    return f"https://example.com/things/{next(_numbers)}"


@pytest.fixture(scope="session")
def keyed_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that wants a token for everything."""
    server = Node(tmp_path_factory.mktemp("keyed-node"), jwt_secret=TOKEN_SECRET).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def public_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that lets everybody read public events, with one allowed origin."""
    folder = tmp_path_factory.mktemp("public-node")
    server = Node(folder, jwt_secret=TOKEN_SECRET, anonymous=True, allowed_origins=ORIGIN).start()
    yield server
    server.kill()


@pytest.fixture
def hub(shared_node: Node) -> Iterator[Hub]:
    """The hub in development mode: nobody needs a token."""
    client = Hub(shared_node)
    yield client
    client.close()


@pytest.fixture
def keyed_hub(keyed_node: Node) -> Iterator[Hub]:
    client = Hub(keyed_node, PUBLISHER)
    yield client
    client.close()


@pytest.fixture
def public_hub(public_node: Node) -> Iterator[Hub]:
    client = Hub(public_node, PUBLISHER)
    yield client
    client.close()


@pytest.fixture
def new_hub(node: Callable[..., Node]) -> Iterator[Callable[..., Hub]]:
    """A factory of hubs on servers of their own: `new_hub(heartbeat_seconds=1)`."""
    clients: list[Hub] = []

    def start(publisher: str | None = None, **settings: object) -> Hub:
        clients.append(Hub(node(**settings), publisher))
        return clients[-1]

    yield start
    for client in clients:
        client.close()
