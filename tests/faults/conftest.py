"""Servers for the tests of faults: the same as for attacks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.witnesses import Scene
from tests.harness.process import Node
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
