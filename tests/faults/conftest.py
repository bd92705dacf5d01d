"""Servers for the tests of faults: the same as for attacks.

`make faults` runs each of them twenty times (RINGCAST_FAULT_ROUNDS), each round with another seed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.harness.process import Node
from tests.threats.conftest import finish, start

__all__ = ["start"]


ROUNDS = int(os.environ.get("RINGCAST_FAULT_ROUNDS", "1"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test as many times as there are rounds."""
    if ROUNDS > 1:
        metafunc.fixturenames.append("round_number")
        metafunc.parametrize("round_number", range(ROUNDS))


@pytest.fixture
def round_number() -> int:
    """The only round, unless there are more."""
    return 0


@pytest.fixture
def seed(round_number: int) -> int:
    """What a test draws its moments from."""
    return 22 + round_number


@pytest.fixture(scope="module")
def roomy_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server without a key and with room for large events."""
    node = Node(tmp_path_factory.mktemp("bursts"), drain_seconds=0, lag_bytes=64 << 20, write_stall_seconds=20).start()
    yield node
    finish(node)
