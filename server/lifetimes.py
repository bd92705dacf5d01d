"""Lifetimes: heartbeats and every deadline of readers, from one coarse timer.

Owns the wheel. A wheel turns once per heartbeat interval; each reader sits in one of its slots, given out in turn, so
heartbeats are spread over the interval. When its slot comes up a reader is looked at once: heartbeat, idle, and whether
its deadline falls before the next turn (then it goes to a list for that tick). One that is still behind gets its
heartbeat between two pages. Must never know of sockets (it asks the broadcaster) or why a deadline was set.

Invariants: a reader hears from us at least every `heartbeat_seconds` plus a tick; it ends at most a tick after its
deadline; a reader that closed is in no slot; a reader is in at most one tick list, for at most one turn of its wheel
after it closed; whatever fails, the timer goes on.
Cost: one timer in all; one visit per reader and interval; a place in a slot, and in a tick list when its end is near.

Tried and rejected: `loop.call_later` per reader (a handle and a closure each, and a heap of 20,000); one set per
deadline tick (closed readers have to be taken out of sets that are 30 minutes long).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from server.broadcaster import Broadcaster
from server.channel import Channel
from server.endings import IDLE, MAX_AGE, SLOW
from server.feed import Feed
from server.frames import COMMENT_HEARTBEAT, Encoding, cursor_block
from server.ids import format_id
from server.logs import get_logger
from server.reader import REPLAYING, Reader

MAX_TICK_SECONDS = 0.5
TURN_WITHOUT_HEARTBEAT_SECONDS = 30.0
# uvloop counts in whole milliseconds and may call that much too early: then the tick would not be due, and every tick
# would wake the process twice.
TIMER_SECONDS = 0.002
RECENT_SHARE = 0.1  # a reader that got something within this share of the interval needs no heartbeat yet

log = get_logger("lifetimes")


class Wheel:
    """One turn of `seconds` in slots of one tick."""

    __slots__ = ("at", "next", "seconds", "slots")

    def __init__(self, seconds: float, tick_seconds: float) -> None:
        self.seconds = seconds
        self.slots: list[list[Reader]] = [[] for _ in range(max(1, round(seconds / tick_seconds)))]
        self.at = 0
        self.next = 0

    def add(self, reader: Reader) -> None:
        """Give the reader a slot, each in turn, so that readers that come together beat apart."""
        slot = self.slots[self.next]
        self.next = (self.next + 1) % len(self.slots)
        reader.slot = slot
        reader.slot_index = len(slot)
        slot.append(reader)

    def turn(self) -> list[Reader]:
        """The readers of the next slot."""
        readers = self.slots[self.at]
        self.at = (self.at + 1) % len(self.slots)
        return readers.copy()


def leave_slot(reader: Reader) -> None:
    """Take a reader out of its wheel."""
    slot = reader.slot
    assert slot is not None
    last = slot.pop()
    if last is not reader:
        slot[reader.slot_index] = last
        last.slot_index = reader.slot_index
    reader.slot = None


class Lifetimes:
    """See the module's head. `on_tick(now, late_seconds)` is called at every tick for what else is periodic."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        mark: Callable[[str], int],
        *,
        write_stall_seconds: float,
        shortest_heartbeat_seconds: float,
        on_tick: Callable[[float, float], None],
    ) -> None:
        self._broadcaster = broadcaster
        self._mark = mark
        self._write_stall_seconds = write_stall_seconds
        self.tick_seconds = min(MAX_TICK_SECONDS, (shortest_heartbeat_seconds or 1.0) / 4)
        self._on_tick = on_tick
        self._wheels: dict[float, Wheel] = {}
        self._soon: dict[int, list[Reader]] = {}
        self._tick = 0
        self._started = 0.0
        self._newest = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self.heartbeats = 0

    def start(self) -> None:
        """Begin to tick on the running loop."""
        self._started = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(self.tick_seconds, self._turn)

    def stop(self) -> None:
        """Tick no more."""
        if self._timer is not None:
            self._timer.cancel()

    def add(self, reader: Reader) -> None:
        """Look after a reader whose `opened` and `deadline` (0: none) are set, in seconds of time.monotonic()."""
        self._newest = reader.opened
        wheel = self._wheel_of(reader)
        wheel.add(reader)
        self._plan(reader, wheel)

    def _wheel_of(self, reader: Reader) -> Wheel:
        seconds = reader.feed.channel.policy.heartbeat_seconds or TURN_WITHOUT_HEARTBEAT_SECONDS
        wheel = self._wheels.get(seconds)
        if wheel is None:
            wheel = self._wheels[seconds] = Wheel(seconds, self.tick_seconds)
        return wheel

    def _plan(self, reader: Reader, wheel: Wheel) -> None:
        """Put the reader on the list of its next deadline's tick if that comes before the next visit.

        Deadlines only move away, so the list that it may be on already is not too late.
        """
        if reader.planned:
            return
        deadline = reader.deadline
        idle_seconds = reader.feed.channel.policy.idle_seconds
        if idle_seconds:
            idle = max(reader.feed.last_event, reader.opened) + idle_seconds
            deadline = min(deadline, idle) if deadline else idle
        if not deadline or deadline - time.monotonic() > wheel.seconds + self.tick_seconds:
            return
        tick = max(self._tick + 1, int((deadline - self._started) / self.tick_seconds) + 1)
        reader.planned = True
        self._soon.setdefault(tick, []).append(reader)

    def _turn(self) -> None:
        try:
            self._catch_up(time.monotonic())
        except Exception:  # a defect of ours may cost a reader its heartbeat, but never all of them theirs
            log.exception("tick_failed")
        due = self._started + (self._tick + 1) * self.tick_seconds
        wait = max(0.0, due - time.monotonic()) + TIMER_SECONDS
        self._timer = asyncio.get_running_loop().call_later(wait, self._turn)

    def _catch_up(self, now: float) -> None:
        due = self._started + (self._tick + 1) * self.tick_seconds
        late = now - due
        turned = 0
        # After a stall of the loop the missed ticks are made up for, but no wheel turns more than once: one heartbeat
        # each, not one per missed interval.
        while now >= due:
            self._tick += 1
            self._end_due(now)
            for wheel in self._wheels.values():
                if turned < len(wheel.slots):
                    self._visit(wheel, now)
            turned += 1
            due += self.tick_seconds
        # Readers could not be served while the loop stood still: that time is not theirs.
        for reader in self._broadcaster.stalled_since(now - self._write_stall_seconds - late):
            self._broadcaster.close(reader, SLOW)
        self._on_tick(now, late - TIMER_SECONDS)

    def _end_due(self, now: float) -> None:
        due = self._soon.pop(self._tick, ())
        for reader in due:
            reader.planned = False  # before anything can fail: its next visit plans it anew
        for reader in due:
            if reader.fd < 0:
                continue
            if reader.deadline and reader.deadline <= now:
                self._broadcaster.close(reader, reader.ending or MAX_AGE)
            elif not self._end_if_idle(reader, now):
                self._plan(reader, self._wheel_of(reader))

    def _end_if_idle(self, reader: Reader, now: float) -> bool:
        idle_seconds = reader.feed.channel.policy.idle_seconds
        if (
            not idle_seconds
            or reader.replay is not None
            or now - max(reader.feed.last_event, reader.opened) < idle_seconds
        ):
            return False
        self._broadcaster.close(reader, IDLE)
        return True

    def _visit(self, wheel: Wheel, now: float) -> None:
        horizon = now + wheel.seconds + self.tick_seconds
        beats: dict[tuple[Channel, Encoding, bool], bytes] = {}
        due: list[Reader] = []
        replaying: list[Reader] = []
        beat = b""
        last: Feed | None = None
        for reader in wheel.turn():
            feed = reader.feed
            if feed is not last:  # readers of one feed often come one after the other
                if due:
                    self._send(due, beat)
                    due = []
                last, head, policy, last_event = feed, feed.ring.head, feed.channel.policy, feed.last_event
                recent = now - policy.heartbeat_seconds * RECENT_SHARE
                beat = self._beat_of(feed, beats) if policy.heartbeat_seconds and last_event <= recent else b""
                some_are_new = self._newest > recent  # else no reader need be asked
                idle_seconds = policy.idle_seconds
                # What opened after this is not idle for a turn of the wheel, whatever else it is.
                opened_idle = horizon - idle_seconds if idle_seconds and last_event + idle_seconds < horizon else 0.0
            if opened_idle and reader.opened < opened_idle:
                if self._end_if_idle(reader, now):
                    continue
                self._plan(reader, wheel)
            elif 0.0 < reader.deadline < horizon:
                self._plan(reader, wheel)
            # Who is not at the head has bytes on their way, or takes none; a cursor must not run ahead of them.
            if beat and reader.cursor == head and not (some_are_new and reader.opened > recent):
                due.append(reader)
            elif reader.cursor == REPLAYING:
                replaying.append(reader)
        if due:
            self._send(due, beat)
        for reader in replaying:
            self._send_between_pages(reader, now)

    def _send_between_pages(self, reader: Reader, now: float) -> None:
        """A heartbeat for one that is still behind, for it may wait for its next page. It carries no cursor: that would
        skip what is still to come. One with bytes on their way needs none."""
        policy = reader.feed.channel.policy
        is_new = now - reader.opened < policy.heartbeat_seconds * RECENT_SHARE
        if policy.heartbeat_seconds and reader.stall is None and not is_new:
            beat = reader.feed.encoding.wrap(self._beat(reader.feed.channel, behind=True))
            self.heartbeats += self._broadcaster.write(reader, beat, 0)

    def _send(self, due: list[Reader], beat: bytes) -> None:
        self.heartbeats += self._broadcaster.heartbeat(due, beat)

    def _beat_of(self, feed: Feed, beats: dict[tuple[Channel, Encoding, bool], bytes]) -> bytes:
        """The heartbeat of a feed's readers, made once per visit for all feeds that have the same."""
        mark = self._mark(feed.channel.name)
        # Who has still to be told of a hole must not pass it.
        behind = feed.ring.before(feed.ring.head) > mark or feed in feed.channel.holes
        key = (feed.channel, feed.encoding, behind)
        beat = beats.get(key)
        if beat is None:
            beat = beats[key] = feed.encoding.wrap(self._beat(feed.channel, behind=behind))
        return beat

    def _beat(self, channel: Channel, *, behind: bool) -> bytes:
        """`behind`: the relay's present is before an event that the reader has, or behind something that it has not. A
        cursor must neither go back nor run ahead."""
        style = channel.policy.heartbeat_style
        if style == "event":
            return b'event: heartbeat\ndata: {"ts":%d}\n\n' % time.time()
        if style == "cursor" and not behind:
            return COMMENT_HEARTBEAT + cursor_block(format_id(channel.epoch, self._mark(channel.name)))
        return COMMENT_HEARTBEAT
