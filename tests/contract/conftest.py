"""Channels on servers of their own, for both relays; every connection is closed before its server is stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.contract.client import Channel
from tests.harness.process import Node


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


@pytest.fixture
def channel(node: Callable[..., Node]) -> Iterator[StartChannel]:
    channels: list[Channel] = []

    def start(*, token: str | None = None, **settings: object) -> Channel:
        channels.append(Channel(node(**settings), token=token))
        return channels[-1]

    yield start
    for one in channels:
        one.close()
