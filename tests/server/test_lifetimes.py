"""Heartbeats and deadlines by a clock that is moved by hand: the timer's turns are called, not waited for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest
import structlog

import server.lifetimes
from server.admission import Holder
from server.broadcaster import Broadcaster
from server.channel import Channel
from server.endings import AUTH_EXPIRED, IDLE, MAX_AGE, SLOW, Ending
from server.frames import Encoding
from server.ids import format_id
from server.lifetimes import Lifetimes, Wheel, leave_slot
from server.reader import REPLAYING, Reader, Stall
from server.replay import Replay
from server.selection import Selection
from tests.server.engine import EPOCH, channel, run
from tests.server.relay.bench import START, Clock

MARK = 777
A_FIFTH_MORE = 1.2  # contract, 10.1


class Listener(Broadcaster):
    """A broadcaster without sockets: what would have been written and closed, and when."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.beats: list[tuple[float, Reader, bytes]] = []
        self.ends: list[tuple[float, Reader, Ending | None]] = []
        self.stalled_readers: list[Reader] = []
        self.asked: list[float] = []

    def heartbeat(self, readers: Sequence[Reader], data: bytes) -> int:
        taking = [reader for reader in readers if reader.index >= 0]
        self.beats.extend((self.clock.now - START, reader, data) for reader in taking)
        return len(taking)

    def write(self, reader: Reader, data: bytes, position: int) -> bool:
        self.beats.append((self.clock.now - START, reader, data))
        return True

    def close(self, reader: Reader, ending: Ending | None = None, retry_ms: int | None = None) -> None:
        self.ends.append((self.clock.now - START, reader, ending))
        reader.fd = -1
        leave_slot(reader)

    def stalled_since(self, before: float) -> list[Reader]:
        self.asked.append(before - START)
        return self.stalled_readers


class Timer:
    """Lifetimes whose timer is turned by hand. Times are seconds since the start."""

    def __init__(self, clock: Clock, shortest_heartbeat_seconds: float) -> None:
        self.clock = clock
        self.out = Listener(clock)
        self.ticks: list[float] = []
        self.lifetimes = Lifetimes(
            self.out,
            lambda name: MARK,
            write_stall_seconds=30.0,
            shortest_heartbeat_seconds=shortest_heartbeat_seconds,
            on_tick=lambda now, late: self.ticks.append(late),
        )

    def reader(self, of: Channel, *, lasts: float = 0.0, ending: Ending | None = None) -> Reader:
        feed = of.enter(Selection(), Encoding.PLAIN)
        reader = Reader(5, feed, Holder(""), None)
        reader.opened = self.clock.now
        reader.deadline = self.clock.now + lasts if lasts else 0.0
        reader.ending = ending
        feed.join(reader)
        self.lifetimes.add(reader)
        return reader

    def pass_time(self, seconds: float, step: float | None = None) -> None:
        """Turn as the timer would, every tick, or every `step` if the loop is slow."""
        step = step or self.lifetimes.tick_seconds
        for _ in range(round(seconds / step)):
            self.clock.now += step
            self.lifetimes._turn()

    def beats_of(self, reader: Reader) -> list[float]:
        return [at for at, one, _ in self.out.beats if one is reader]


@pytest.fixture
def with_timer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a function with a Timer that has been started."""
    clock = Clock()
    monkeypatch.setattr(server.lifetimes.time, "monotonic", clock)

    def start(doing: Callable[[Timer], None], shortest_heartbeat_seconds: float = 8.0) -> None:
        async def main() -> None:
            timer = Timer(clock, shortest_heartbeat_seconds)
            timer.lifetimes.start()
            try:
                doing(timer)
            finally:
                timer.lifetimes.stop()

        run(main)

    return start


WithTimer = Callable[..., None]


def gaps(times: list[float]) -> list[float]:
    return [after - before for before, after in zip([0.0, *times], times, strict=False)]


# --- heartbeats


def test_a_silent_reader_gets_a_heartbeat_every_interval(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        readers = [timer.reader(channel(heartbeat_seconds=8.0)) for _ in range(50)]
        timer.pass_time(80)
        for reader in readers:
            times = timer.beats_of(reader)
            assert len(times) >= 9
            assert max(gaps(times)) <= 8.0 * A_FIFTH_MORE
            assert min(gaps(times)[1:]) >= 8.0 - timer.lifetimes.tick_seconds

    with_timer(check)


@pytest.mark.parametrize("since", [0.3, 0.79, 0.9])
def test_an_event_just_before_a_heartbeat_makes_no_long_silence_after_it(with_timer: WithTimer, since: float) -> None:
    def check(timer: Timer) -> None:
        reader = timer.reader(channel(heartbeat_seconds=8.0))
        timer.pass_time(16)
        next_visit = timer.beats_of(reader)[-1] + 8.0
        reader.feed.last_event = START + next_visit - since
        timer.pass_time(40)
        heard = sorted({*timer.beats_of(reader), reader.feed.last_event - START})
        assert max(gaps(heard)) <= 8.0 * A_FIFTH_MORE

    with_timer(check)


def test_heartbeats_of_many_readers_are_spread_over_the_interval(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        one = channel(heartbeat_seconds=8.0)
        for _ in range(320):
            timer.reader(one)
        timer.pass_time(16)
        del timer.out.beats[:]
        timer.pass_time(8)
        by_tick: dict[float, int] = {}
        for at, _, _ in timer.out.beats:
            by_tick[at] = by_tick.get(at, 0) + 1
        assert len(by_tick) == 16
        assert set(by_tick.values()) == {20}

    with_timer(check)


def test_a_reader_that_has_just_had_an_event_needs_no_heartbeat(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        reader = timer.reader(channel(heartbeat_seconds=8.0))
        for _ in range(320):
            reader.feed.last_event = timer.clock.now
            timer.pass_time(0.5)
        assert timer.out.beats == []

    with_timer(check)


def test_a_reader_that_has_just_come_needs_no_heartbeat(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        one = channel(heartbeat_seconds=8.0)
        first = timer.reader(one)
        timer.pass_time(0.5)  # its slot comes up
        assert timer.out.beats == []
        timer.pass_time(8)
        timer.reader(one)
        assert timer.beats_of(first) == [8.5]

    with_timer(check)


@pytest.mark.parametrize("why", ["stalled", "behind", "replaying"])
def test_a_reader_with_bytes_on_their_way_gets_no_heartbeat(with_timer: WithTimer, why: str) -> None:
    def check(timer: Timer) -> None:
        reader = timer.reader(channel(heartbeat_seconds=8.0))
        if why == "behind":
            reader.feed.ring.append(b"x", 1)
        else:
            reader.feed.leave(reader)
            reader.stall = Stall(memoryview(b"x"), timer.clock.now, 0)
        if why == "replaying":
            reader.cursor, reader.replay = REPLAYING, Replay(0, 0, None)
        timer.pass_time(20)
        assert timer.out.beats == []

    with_timer(check)


@pytest.mark.parametrize("style", ["comment", "cursor", "event"])
def test_a_replaying_reader_hears_from_us_as_others_do_but_nothing_of_a_cursor(
    with_timer: WithTimer, style: str
) -> None:
    """It may wait for its next page; and what it waits for is before any mark."""

    def check(timer: Timer) -> None:
        reader = timer.reader(channel(heartbeat_seconds=8.0, heartbeat_style=style))
        reader.feed.leave(reader)
        reader.cursor, reader.replay = REPLAYING, Replay(0, 0, None)
        for _ in range(40):
            reader.feed.last_event = timer.clock.now  # others of its feed are live
            timer.pass_time(2)
        times = timer.beats_of(reader)
        assert len(times) >= 9
        assert max(gaps(times)) <= 8.0 * A_FIFTH_MORE
        assert all(b"id:" not in beat for _, _, beat in timer.out.beats)
        assert timer.lifetimes.heartbeats == len(times)

    with_timer(check)


def test_a_replaying_reader_that_has_just_come_needs_no_heartbeat(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        for _ in range(16):  # one in each slot
            reader = timer.reader(channel(heartbeat_seconds=8.0))
            reader.feed.leave(reader)
            reader.cursor, reader.replay = REPLAYING, Replay(0, 0, None)
        timer.pass_time(timer.lifetimes.tick_seconds)
        assert timer.out.beats == []

    with_timer(check)


def test_a_heartbeat_leads_nobody_past_a_hole_that_it_has_not_been_told_of(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        one = channel(heartbeat_seconds=8.0, heartbeat_style="cursor")
        timer.reader(one)
        one.lose((), "history", MARK - 1, MARK)
        timer.pass_time(20)
        assert {beat for _, _, beat in timer.out.beats} == {b":\n"}

    with_timer(check)


def test_without_heartbeats_none_is_sent(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        timer.reader(channel(heartbeat_seconds=0.0, idle_seconds=0.0))
        timer.pass_time(100)
        assert timer.out.beats == []
        assert timer.out.ends == []

    with_timer(check, 0.0)


@pytest.mark.parametrize(
    ("style", "form"),
    [
        ("comment", b":\n"),
        ("cursor", b":\nid: " + format_id(EPOCH, MARK).encode() + b"\n\n"),
        ("event", b'event: heartbeat\ndata: {"ts":'),
    ],
)
def test_each_style_has_its_form(with_timer: WithTimer, style: str, form: bytes) -> None:
    def check(timer: Timer) -> None:
        timer.reader(channel(heartbeat_seconds=8.0, heartbeat_style=style))
        timer.pass_time(20)
        beat = timer.out.beats[0][2]
        if style == "event":
            assert beat.startswith(form)
            assert json.loads(beat.split(b"data: ")[1])["ts"] > 1_000_000_000
        else:
            assert beat == form
        assert timer.lifetimes.heartbeats == len(timer.out.beats)

    with_timer(check)


def test_a_cursor_never_goes_back_behind_an_event_that_the_reader_has(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        reader = timer.reader(channel(heartbeat_seconds=8.0, heartbeat_style="cursor"))
        reader.feed.publish(b"id: x\ndata: x\n\n", MARK + 1)
        reader.cursor = reader.feed.ring.head
        timer.pass_time(20)
        assert {beat for _, _, beat in timer.out.beats} == {b":\n"}

    with_timer(check)


def test_channels_with_different_intervals_have_wheels_of_their_own(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        quick, slow = (timer.reader(channel(heartbeat_seconds=seconds)) for seconds in (2.0, 8.0))
        timer.pass_time(80)
        assert len(timer.beats_of(quick)) in (39, 40)
        assert len(timer.beats_of(slow)) in (9, 10)

    with_timer(check, 2.0)


def test_after_a_stall_of_the_loop_each_reader_gets_one_heartbeat_and_not_one_for_each_that_was_missed(
    with_timer: WithTimer,
) -> None:
    def check(timer: Timer) -> None:
        readers = [timer.reader(channel(heartbeat_seconds=8.0)) for _ in range(10)]
        timer.pass_time(16)
        del timer.out.beats[:]
        timer.pass_time(60, 60)
        assert all(len(timer.beats_of(reader)) == 1 for reader in readers)
        timer.pass_time(8)
        assert all(len(timer.beats_of(reader)) == 2 for reader in readers)

    with_timer(check)


# --- deadlines


@pytest.mark.parametrize("lasts", [0.1, 1.0, 7.9, 8.0, 8.3, 50.0, 123.4])
def test_a_reader_ends_at_its_deadline_or_a_tick_later(with_timer: WithTimer, lasts: float) -> None:
    def check(timer: Timer) -> None:
        one = channel(heartbeat_seconds=8.0, idle_seconds=0.0)
        readers = [timer.reader(one, lasts=lasts, ending=AUTH_EXPIRED) for _ in range(40)]
        timer.pass_time(lasts + 1)
        assert {(reader, ending) for _, reader, ending in timer.out.ends} == {(one, AUTH_EXPIRED) for one in readers}
        assert len(timer.out.ends) == 40
        assert all(0 <= at - lasts <= timer.lifetimes.tick_seconds + 1e-6 for at, _, _ in timer.out.ends)

    with_timer(check)


def test_a_deadline_without_a_reason_is_the_age(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        timer.reader(channel(heartbeat_seconds=8.0), lasts=20.0)
        timer.pass_time(21)
        assert [ending for _, _, ending in timer.out.ends] == [MAX_AGE]

    with_timer(check)


def test_an_idle_reader_ends_and_one_that_gets_events_does_not(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        idle, busy = (timer.reader(channel(heartbeat_seconds=8.0, idle_seconds=20.0)) for _ in range(2))
        for _ in range(10):
            timer.pass_time(5)
            busy.feed.last_event = timer.clock.now
        assert [(reader, ending) for _, reader, ending in timer.out.ends] == [(idle, IDLE)]
        assert 20 <= timer.out.ends[0][0] <= 20 + timer.lifetimes.tick_seconds
        timer.pass_time(21)
        assert timer.out.ends[-1][1:] == (busy, IDLE)
        assert 70 <= timer.out.ends[-1][0] <= 70 + timer.lifetimes.tick_seconds

    with_timer(check)


def test_a_replaying_reader_is_not_idle(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        reader = timer.reader(channel(heartbeat_seconds=8.0, idle_seconds=10.0))
        reader.replay = Replay(0, 0, None)
        timer.pass_time(40)
        assert timer.out.ends == []
        reader.replay = None
        timer.pass_time(8.5)
        assert [ending for _, _, ending in timer.out.ends] == [IDLE]

    with_timer(check)


def test_deadlines_that_passed_while_the_loop_stood_still_are_kept_once_it_goes_on(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        one = channel(heartbeat_seconds=8.0)
        readers = [timer.reader(one, lasts=lasts) for lasts in (1.0, 5.0, 30.0)]
        timer.pass_time(60, 60)
        assert {reader for _, reader, _ in timer.out.ends} == set(readers)

    with_timer(check)


def test_a_reader_that_went_before_its_deadline_is_forgotten(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        reader = timer.reader(channel(heartbeat_seconds=8.0), lasts=4.0)
        timer.out.close(reader)
        timer.pass_time(10)
        assert len(timer.out.ends) == 1
        assert timer.out.beats == []
        assert timer.lifetimes._soon == {}

    with_timer(check)


# --- what else is periodic


def test_readers_whose_write_has_stalled_for_too_long_are_ended(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        reader = timer.reader(channel(heartbeat_seconds=8.0))
        timer.out.stalled_readers = [reader]
        timer.pass_time(0.5)
        assert [ending for _, _, ending in timer.out.ends] == [SLOW]

    with_timer(check)


def test_the_time_that_the_loop_stood_still_is_not_the_readers(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        timer.pass_time(1.0)
        timer.pass_time(20.0, 20.0)
        before = timer.out.asked
        assert before[-2] == pytest.approx(1.0 - 30.0)
        assert before[-1] == pytest.approx(21.0 - 30.0 - 19.5)
        assert timer.ticks[-1] == pytest.approx(19.5, abs=0.01)

    with_timer(check)


@pytest.mark.parametrize(("shortest", "tick"), [(30.0, 0.5), (1.0, 0.25), (0.4, 0.1), (0.0, 0.25)])
def test_the_tick_is_a_quarter_of_the_shortest_heartbeat_and_at_most_half_a_second(
    with_timer: WithTimer, shortest: float, tick: float
) -> None:
    def check(timer: Timer) -> None:
        assert timer.lifetimes.tick_seconds == tick

    with_timer(check, shortest)


# --- the wheel


def test_a_wheel_gives_every_reader_one_visit_a_turn() -> None:
    wheel = Wheel(8.0, 0.25)
    one = channel()
    readers = [Reader(5, one.enter(Selection(), Encoding.PLAIN), Holder(""), None) for _ in range(100)]
    for reader in readers:
        wheel.add(reader)
    visited = [reader for _ in range(32) for reader in wheel.turn()]
    assert len(visited) == 100
    assert set(visited) == set(readers)
    for reader in readers[::3]:
        leave_slot(reader)
        assert reader.slot is None
    left = [reader for _ in range(32) for reader in wheel.turn()]
    assert set(left) == set(readers) - set(readers[::3])
    assert len(left) == len(set(left))


# --- what must not happen


def test_a_reader_whose_idle_time_is_shorter_than_the_heartbeats_is_on_one_list_at_most(with_timer: WithTimer) -> None:
    def check(timer: Timer) -> None:
        reader = timer.reader(channel(heartbeat_seconds=8.0, idle_seconds=6.0))
        for _ in range(100):
            timer.pass_time(4.0)
            reader.feed.last_event = timer.clock.now
            assert sum(len(readers) for readers in timer.lifetimes._soon.values()) <= 1
        timer.pass_time(6.5)
        assert [ending for _, _, ending in timer.out.ends] == [IDLE]

    with_timer(check)


def test_a_tick_that_fails_is_not_the_last(with_timer: WithTimer, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(timer: Timer) -> None:
        readers = [timer.reader(channel(heartbeat_seconds=8.0), lasts=4.0, ending=MAX_AGE) for _ in range(3)]
        close = timer.out.close

        def fail(*_: object) -> None:
            raise RuntimeError("a defect")

        monkeypatch.setattr(timer.out, "close", fail)
        with structlog.testing.capture_logs() as lines:
            timer.pass_time(5.0)
        assert {line["event"] for line in lines} == {"tick_failed"}
        assert timer.lifetimes._timer is not None
        monkeypatch.setattr(timer.out, "close", close)
        timer.pass_time(10.0)
        assert {one for _, one, _ in timer.out.ends} == set(readers)

    with_timer(check)
