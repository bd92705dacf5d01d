"""The database file of `sqlite:`: how much of the disk events take."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.relay.sqlite import SqliteRelay
from tests.server.relay.bench import Clock, event, run, started

EVENTS = 2_000  # so many that the tables themselves don't count


@pytest.mark.parametrize(
    ("data_bytes", "most"),
    [(128, 2.0), (1_000, 1.6), (1_400, 1.6), (2_100, 2.1), (5_000, 1.6)],
)
def test_events_take_no_more_than_twice_their_size_in_the_file(path: Path, data_bytes: int, most: float) -> None:
    """At every size there is: a row that does not fit where SQLite wants it gets whole pages of its own."""

    async def main() -> None:
        relay = SqliteRelay(str(path), "NORMAL", 120, 100, Clock())
        await started(relay)
        for _ in range(EVENTS // 100):
            await relay.append("main", [event("x" * data_bytes)] * 100, None)
        await relay.close()

    run(main())
    assert path.stat().st_size < EVENTS * data_bytes * most
