"""Every test that takes `relays` runs once on each relay: what holds for one holds for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from server.relay.memory import MemoryRelay
from server.relay.protocol import Relay
from server.relay.sqlite import SqliteRelay
from tests.server.relay.bench import Clock

MakeRelay = Callable[[Clock], Relay]


@pytest.fixture(params=["memory", "sqlite"])
def make_relay(request: pytest.FixtureRequest, tmp_path: Path) -> MakeRelay:
    """Makes a relay with a window of 120 s and 100 keys."""
    if request.param == "memory":
        return lambda clock: MemoryRelay(120, 100, clock)
    return lambda clock: SqliteRelay(str(tmp_path / "log.db"), "NORMAL", 120, 100, clock)
