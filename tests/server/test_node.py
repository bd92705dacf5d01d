"""The node: its parts put together, ready or not, and the way it sends its readers away."""

from __future__ import annotations

import pytest
import structlog

import server.node
from server.endings import DRAINING, OVERLOADED
from server.node import DRAIN_STEP_SECONDS
from server.relay.memory import MemoryRelay
from tests.server.engine import SMALLEST_BUFFER, until
from tests.server.house import House, Stream, with_house


class Pauses:
    """Takes the place of sleeping, and says at each pause how many readers were left."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.left: list[int] = []

    async def __call__(self, seconds: float) -> None:
        assert seconds == DRAIN_STEP_SECONDS
        self.left.append(self.house.node.broadcaster.readers)


def test_a_node_is_ready_as_long_as_its_relay_takes_events_and_it_does_not_drain() -> None:
    async def check(house: House) -> None:
        assert house.node.ready
        house.node.begin_drain()
        assert not house.node.ready
        assert house.node.admission.refusal("192.0.2.1", "") is DRAINING

    with_house(check)


def test_a_node_whose_relay_takes_no_events_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(house: House) -> None:
        monkeypatch.setattr(MemoryRelay, "state", lambda self: {"ok": False})
        assert not house.node.ready

    with_house(check)


def test_limits_reach_the_parts_that_keep_them() -> None:
    async def check(house: House) -> None:
        for _ in range(2):
            house.open()
        assert house.node.admission.refusal("192.0.2.1", "").code == "too_many"  # type: ignore[union-attr]
        assert house.node.admission.refusal("192.0.2.2", "") is None
        house.open(remote="192.0.2.2")
        house.node.admission.max_connections = 3
        assert house.node.admission.refusal("192.0.2.3", "") is OVERLOADED

    with_house(check, limits={"max_connections_per_address": 2})


def test_a_reader_that_is_alone_does_not_wait_for_its_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(house: House) -> None:
        peer = house.open()
        pauses = Pauses(house)
        monkeypatch.setattr(server.node.asyncio, "sleep", pauses)
        with structlog.testing.capture_logs():
            await house.node.drain(10.0)
        assert pauses.left == []
        peer.read_all()
        assert peer.ended

    with_house(check)


def test_every_reader_is_sent_away_with_a_farewell_spread_over_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(house: House) -> None:
        peers = [house.open() for _ in range(100)]
        pauses = Pauses(house)
        monkeypatch.setattr(server.node.asyncio, "sleep", pauses)
        with structlog.testing.capture_logs():
            await house.node.drain(1.0)
        assert house.node.broadcaster.readers == 0
        assert pauses.left == [95 - 5 * number for number in range(19)]
        assert house.node.ended == {"draining": 100}
        delays = set()
        for peer in peers:
            peer.read_all()
            assert peer.ended
            last = Stream(peer.received).blocks[-1]
            assert "\nevent: draining\n" in last
            delays.add(last.split("\n")[0])
        assert len(delays) > 50

    with_house(check)


@pytest.mark.parametrize("seconds", [0.0, 0.01])
def test_without_time_all_go_at_once(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(house: House) -> None:
        for _ in range(10):
            house.open()
        pauses = Pauses(house)
        monkeypatch.setattr(server.node.asyncio, "sleep", pauses)
        with structlog.testing.capture_logs():
            await house.node.drain(seconds)
        assert (pauses.left, house.node.broadcaster.readers) == ([], 0)

    with_house(check)


def test_a_node_without_readers_is_drained_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(house: House) -> None:
        pauses = Pauses(house)
        monkeypatch.setattr(server.node.asyncio, "sleep", pauses)
        with structlog.testing.capture_logs():
            await house.node.drain(30.0)
        assert pauses.left == []

    with_house(check)


def test_readers_that_leave_or_came_during_the_drain_are_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(house: House) -> None:
        peers = [house.open() for _ in range(20)]

        async def busy(_seconds: float) -> None:
            for reader in house.readers[-1:]:
                house.node.broadcaster.close(reader)
            if len(peers) < 22:
                peers.append(house.open())

        monkeypatch.setattr(server.node.asyncio, "sleep", busy)
        with structlog.testing.capture_logs():
            await house.node.drain(0.5)
        assert house.node.broadcaster.readers == 0
        assert house.node.admission.held == 0

    with_house(check)


def test_stalled_and_replaying_readers_are_sent_away_too() -> None:
    async def check(house: House) -> None:
        house.publish(*["x" * 5000] * 10)
        house.open("earliest", buffer_bytes=SMALLEST_BUFFER)
        house.open("earliest")
        await until(lambda: house.node.broadcaster.stalled)
        with structlog.testing.capture_logs():
            await house.node.drain(0.0)
        assert house.node.broadcaster.readers == house.channel.readers == house.node.admission.held == 0

    with_house(check)


def test_events_published_during_a_drain_reach_the_readers_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(house: House) -> None:
        peers = [house.open() for _ in range(10)]
        real_sleep = server.node.asyncio.sleep
        published = []

        async def pause(_seconds: float) -> None:
            published.extend(house.publish("late"))
            for _ in range(5):
                await real_sleep(0)

        monkeypatch.setattr(server.node.asyncio, "sleep", pause)
        with structlog.testing.capture_logs():
            await house.node.drain(0.1)
        assert published
        assert Stream(peers[-1].read_all()).data[0] == "late"

    with_house(check)


def test_a_closed_reader_is_taken_out_of_every_book() -> None:
    async def check(house: House) -> None:
        house.open(subject="shop")
        [reader] = house.readers
        house.node.broadcaster.close(reader, DRAINING)
        assert reader.slot is None
        assert (house.node.admission.held, house.node.admission.addresses) == (0, 0)
        assert house.node.durations.count == 1
        assert house.node.ended == {"draining": 1}

    with_house(check)


def test_once_a_second_memory_is_tidied_and_rates_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(house: House) -> None:
        done: list[str] = []
        node = house.node
        monkeypatch.setattr(node.hub, "expire", lambda: done.append("expire"))
        monkeypatch.setattr(node.replayer, "forget", lambda: done.append("forget"))
        now = 1e9
        for _ in range(12):
            node._tick(now, 0.001)
            now += 0.25
        assert done == ["expire", "forget"] * 3

    with_house(check)


def test_what_wants_to_know_the_time_is_told_it() -> None:
    async def check(house: House) -> None:
        told: list[float] = []
        house.node.on_tick.append(told.append)
        for now in (1e9, 1e9 + 5):
            house.node._tick(now, 0.0)
        assert told == [1e9, 1e9 + 5]

    with_house(check)


def test_the_lag_of_the_loop_is_never_negative() -> None:
    async def check(house: House) -> None:
        for late, lag in ((0.3, 0.3), (-0.1, 0.0)):
            house.node._tick(0.0, late)
            assert house.node.loop_lag == lag

    with_house(check)
