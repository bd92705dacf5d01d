"""Every test that takes `relays` runs once on each relay: what holds for one holds for all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.relay.memory import MemoryRelay
from server.relay.protocol import Relay
from server.relay.sqlite import SqliteRelay
from tests.server.relay.bench import Clock

MakeRelay = Callable[[Clock], Relay]
MEMORY = Path("/dev/shm")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A scratch folder in memory where there is one: hundreds of syncs would make the tests as slow as a busy disk."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="ringcast-relay-test-", dir=MEMORY) as name:
        yield Path(name)


@pytest.fixture
def path(folder: Path) -> Path:
    """Where a log is to be."""
    return folder / "log.db"


@pytest.fixture(params=["memory", "sqlite"])
def make_relay(request: pytest.FixtureRequest, path: Path) -> MakeRelay:
    """Makes a relay with a window of 120 s and 100 keys."""
    if request.param == "memory":
        return lambda clock: MemoryRelay(120, 100, clock)
    return lambda clock: SqliteRelay(str(path), "NORMAL", 120, 100, clock)
