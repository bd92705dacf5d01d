"""The arithmetic of positions, under any order of events and any clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.relay.positions import LEASE_US, LeasedPositions, Positions

NOW = 1_790_000_000_000_000
clocks = st.integers(min_value=NOW - 10**10, max_value=NOW + 10**10)


@given(st.lists(st.tuples(st.sampled_from(["take", "mark"]), clocks, st.integers(1, 5)), max_size=20))
def test_positions_in_memory_rise_above_every_mark(steps: list[tuple[str, int, int]]) -> None:
    positions = Positions()
    highest = 0
    for step, now, count in steps:
        if step == "take":
            first = positions.take(now, count)
            assert first > highest
            highest = first + count - 1
        else:
            highest = max(highest, positions.mark(now))
            assert positions.mark(now) == highest


class Disk:
    """What of a log's positions is on disk: its newest entry and its ceiling."""

    def __init__(self) -> None:
        self.newest = 0
        self.ceiling = 0

    def open(self, now: int) -> LeasedPositions:
        given_out = max(self.newest, self.ceiling)
        self.ceiling = max(now + LEASE_US, given_out)
        return LeasedPositions(given_out, self.ceiling)


steps = st.tuples(st.sampled_from(["take", "mark", "lease", "commit", "fail", "kill"]), clocks, st.integers(1, 5))


@given(st.lists(steps, max_size=30))
def test_no_entry_is_ever_at_or_below_what_a_client_knows(script: list[tuple[str, int, int]]) -> None:
    disk = Disk()
    positions = disk.open(NOW)
    known = 0
    last_in_flight = 0
    leased = 0
    for step, now, count in script:
        if step == "take" and not leased:
            first = positions.take(now, count)
            assert first > known
            assert first > last_in_flight
            last_in_flight = first + count - 1
        elif step == "mark":
            mark = positions.mark(now)
            assert mark >= known
            assert mark <= disk.ceiling
            known = mark
        elif step == "lease" and not last_in_flight:
            leased = max(positions.wanted_ceiling, now + LEASE_US)
        elif step == "commit" and (last_in_flight or leased):
            ceiling = max(leased, positions.wanted_ceiling)
            disk.newest, disk.ceiling = max(disk.newest, last_in_flight), max(disk.ceiling, ceiling)
            positions.committed(last_in_flight, ceiling)
            known = max(known, last_in_flight)
            last_in_flight = leased = 0
        elif step == "fail":
            positions.failed()
            last_in_flight = leased = 0
        elif step == "kill":
            positions = disk.open(now)
            last_in_flight = leased = 0


def test_a_mark_stays_below_what_is_in_flight() -> None:
    positions = LeasedPositions(NOW, NOW + LEASE_US)
    first = positions.take(NOW + 100, 3)
    assert positions.mark(NOW + 1000) == first - 1
    positions.committed(first + 2, 0)
    assert positions.mark(NOW + 1000) == NOW + 1000


def test_a_mark_stops_at_the_ceiling() -> None:
    positions = LeasedPositions(NOW, NOW + LEASE_US)
    assert not positions.wants_lease(NOW)
    assert positions.wants_lease(NOW + LEASE_US)
    assert positions.mark(NOW + 2 * LEASE_US) == NOW + LEASE_US
