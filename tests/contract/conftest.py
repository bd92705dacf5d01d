"""Channels on servers of their own, for both relays; every connection is closed before its server is stopped."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.contract.client import Channel
from tests.harness.process import Node

_numbers = itertools.count(1)


class StartChannel(Protocol):
    """`channel(ring_events=10)` starts a server with these settings and gives a channel of it, for a token's holder if
    there is one.
    """

    def __call__(self, *, token: str | None = None, **settings: object) -> Channel: ...


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """A relay in a file of this test."""
    return f"sqlite:{tmp_path / 'log.db'}"


@pytest.fixture(params=["memory", "sqlite"])
def relay(request: pytest.FixtureRequest, sqlite: str) -> str:
    """Each relay in turn."""
    return sqlite if request.param == "sqlite" else "memory:"


@pytest.fixture(scope="session", params=["memory", "sqlite"])
def relay_node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server of each relay with default settings."""
    folder = tmp_path_factory.mktemp(f"{request.param}-node")
    server = Node(folder, relay="memory:" if request.param == "memory" else f"sqlite:{folder / 'log.db'}").start()
    yield server
    server.kill()


@pytest.fixture
def relayed(relay_node: Node) -> Iterator[Channel]:
    """A new channel, on each relay in turn, for tests that need no settings and don't stop the server."""
    one = Channel(relay_node, f"c{next(_numbers)}")
    yield one
    one.close()


@pytest.fixture
def channel(node: Callable[..., Node]) -> Iterator[StartChannel]:
    channels: list[Channel] = []

    def start(*, token: str | None = None, **settings: object) -> Channel:
        channels.append(Channel(node(**settings), token=token))
        return channels[-1]

    yield start
    for one in channels:
        one.close()
