"""Channels on servers of their own, for each relay; every connection is closed before its server is stopped.

One Redis serves all tests of a run. A server of a test's own has that test's prefix there, and what the shared servers
hold is in channels that no other test uses, so nothing has to be flushed.

A test runs with every relay that its sentences can depend on. What ends with tokens, limits, signals or sockets, before
or beside the log, is shown with `memory:` alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.contract.client import Channel
from tests.harness.process import TOKEN_SECRET, Node
from tests.harness.redis import RedisServer

RELAYS = ("memory", "sqlite", "redis")

_numbers = itertools.count(1)


class StartChannel(Protocol):
    """`channel(ring_events=10)` starts a server with these settings and gives a channel of it, for a token's holder if
    there is one. With a relay that nodes can share `nodes=2` starts two, and every connection goes to the other one
    than the connection before.
    """

    def __call__(self, *, token: str | None = None, nodes: int = 1, **settings: object) -> Channel: ...


def relay_url(name: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """A relay's URL; `redis` is started when it is wanted first."""
    if name == "redis":
        redis: RedisServer = request.getfixturevalue("redis")
        return redis.url
    return "memory:" if name == "memory" else f"sqlite:{folder / 'log.db'}"


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for all tests, which is there to the end. It keeps nothing on disk."""
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """A relay in a file of this test."""
    return f"sqlite:{tmp_path / 'log.db'}"


@pytest.fixture(params=RELAYS)
def relay(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each relay in turn."""
    return relay_url(request.param, request, tmp_path)


@pytest.fixture(params=["sqlite", "redis"])
def lasting_relay(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each relay whose log is there when the server is not."""
    return relay_url(request.param, request, tmp_path)


def shared_nodes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, **settings: object
) -> Iterator[list[Node]]:
    """A server of the relay that the request's parameter names; of Redis two."""
    folder = tmp_path_factory.mktemp(f"{request.param}-nodes")
    settings["relay"] = relay_url(request.param, request, folder)
    nodes = [Node(folder, **settings).start() for _ in range(2 if request.param == "redis" else 1)]
    yield nodes
    for node in nodes:
        node.kill()
        assert "Traceback" not in node.log(), node.log()[-4000:]


@pytest.fixture(scope="session", params=RELAYS)
def relay_nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Servers with default settings, of each relay in turn."""
    yield from shared_nodes(request, tmp_path_factory)


@pytest.fixture(scope="session", params=RELAYS)
def keyed_nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Servers that ask for tokens, of each relay in turn."""
    yield from shared_nodes(
        request, tmp_path_factory, redis_prefix="keyed", jwt_secret=TOKEN_SECRET, heartbeat_seconds=1
    )


@pytest.fixture
def relayed(relay_nodes: list[Node]) -> Iterator[Channel]:
    """A new channel, on each relay in turn, for tests that need no settings and don't stop the server."""
    one = Channel(relay_nodes[0], f"c{next(_numbers)}")
    yield one
    one.close()


@pytest.fixture
def spread(relay_nodes: list[Node]) -> Iterator[Channel]:
    """As `relayed`; with Redis every connection goes to the other node than the connection before."""
    one = Channel(relay_nodes[0], f"c{next(_numbers)}", others=relay_nodes[1:])
    yield one
    one.close()


@pytest.fixture
def keyed(keyed_nodes: list[Node]) -> Iterator[Channel]:
    """As `spread`, on servers that ask for tokens; it has none itself, see `Channel.beside`."""
    one = Channel(keyed_nodes[0], f"c{next(_numbers)}", others=keyed_nodes[1:])
    yield one
    one.close()


@pytest.fixture
def channel(node: Callable[..., Node]) -> Iterator[StartChannel]:
    channels: list[Channel] = []
    prefix = f"test-{next(_numbers)}"

    def start(*, token: str | None = None, nodes: int = 1, **settings: object) -> Channel:
        shared = str(settings.get("relay", "")).startswith("redis")
        if shared:
            settings["redis_prefix"] = prefix
        first, *others = [node(**settings) for _ in range(nodes if shared else 1)]
        channels.append(Channel(first, token=token, others=others))
        return channels[-1]

    yield start
    for one in channels:
        one.close()
