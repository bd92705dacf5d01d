"""Feeds: membership under a sweep that is somewhere in its round. Each step is one visit; there are no sockets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.admission import Holder
from server.feed import Feed
from server.frames import Encoding
from server.reader import Reader
from server.selection import Selection
from tests.server.engine import channel

LAG_EVENTS, LAG_BYTES = 4, 1000
# What happens next, and to which reader.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["publish", "visit", "visit", "visit", "join", "leave", "stall", "revive"]), st.integers(0, 9)
    ),
    max_size=60,
)


def new_feed() -> Feed:
    return Feed(channel(), Selection(), Encoding.PLAIN)


def new_reader(feed: Feed) -> Reader:
    reader = Reader(3, feed, Holder(""), None)
    reader.cursor = feed.ring.head
    return reader


def joined(feed: Feed, count: int) -> list[Reader]:
    readers = [new_reader(feed) for _ in range(count)]
    for reader in readers:
        feed.join(reader)
    return readers


class Sweep:
    """Goes round a feed as the broadcaster does, and remembers what each reader got."""

    def __init__(self) -> None:
        self.feed = new_feed()
        self.stalled: list[Reader] = []
        self.position = 0

    def publish(self) -> None:
        self.position += 1
        self.feed.publish(b"x" * 10, self.position)
        if not self.feed.left:
            self.feed.finish(LAG_EVENTS, LAG_BYTES)

    def visit(self) -> None:
        feed = self.feed
        if not feed.left:
            return
        if feed.at >= len(feed.readers):
            feed.end_lap(LAG_EVENTS, LAG_BYTES)
            feed.left = feed.left if feed.readers else 0
        else:
            reader = feed.readers[feed.at]
            feed.at += 1
            feed.left -= 1
            if reader.cursor != feed.ring.head:
                reader.cursor = feed.ring.span(reader.cursor, 1 << 20)[1]  # fails if it was trimmed
        if feed.left <= 0:
            assert all(reader.cursor == feed.ring.head for reader in feed.readers)
            feed.finish(LAG_EVENTS, LAG_BYTES)

    def stall(self, reader: Reader) -> None:
        self.feed.leave(reader)
        self.feed.stalled += 1
        self.stalled.append(reader)

    def revive(self, reader: Reader) -> None:
        self.stalled.remove(reader)
        self.feed.stalled -= 1
        reader.cursor = max(reader.cursor, self.feed.ring.within(LAG_EVENTS, LAG_BYTES))
        self.feed.join(reader)

    def step(self, name: str, number: int) -> None:
        readers = self.feed.readers
        if name == "publish":
            self.publish()
        elif name == "visit":
            self.visit()
        elif name == "join":
            self.feed.join(new_reader(self.feed))
        elif name == "revive" and self.stalled:
            self.revive(self.stalled[number % len(self.stalled)])
        elif name == "leave" and readers:
            self.feed.leave(readers[number % len(readers)])
        elif name == "stall" and readers:
            self.stall(readers[number % len(readers)])

    def check(self) -> None:
        feed = self.feed
        assert [reader.index for reader in feed.readers] == list(range(len(feed.readers)))
        assert all(feed.ring.base <= reader.cursor <= feed.ring.head for reader in feed.readers)
        assert feed.left or all(reader.cursor == feed.ring.head for reader in feed.readers)
        for reader in self.stalled:  # a stalled reader loses frames only beyond the limits of lag
            assert reader.cursor >= feed.ring.base or feed.ring.head - reader.cursor > LAG_EVENTS


@given(STEPS)
def test_no_frame_that_a_reader_needs_is_forgotten_and_no_reader_is_passed_over(steps: list[tuple[str, int]]) -> None:
    sweep = Sweep()
    for step in steps:
        sweep.step(*step)
        sweep.check()
    for _ in range(500):
        sweep.visit()
    sweep.check()
    assert sweep.feed.left == 0
    assert len(sweep.feed.ring) <= (LAG_EVENTS if sweep.stalled else 0)


def test_members_take_the_last_place_and_the_last_one_takes_a_free_place() -> None:
    feed = new_feed()
    one, two, three = joined(feed, 3)
    feed.leave(one)
    assert (feed.readers, one.index, two.index, three.index) == ([three, two], -1, 1, 0)
    feed.leave(two)
    assert (feed.readers, two.index) == ([three], -1)
    feed.join(one)
    assert (feed.readers, one.index) == ([three, one], 1)


def test_an_event_asks_for_one_visit_of_every_reader() -> None:
    feed = new_feed()
    joined(feed, 3)
    feed.publish(b"x", 1)
    assert feed.left == 3


def test_without_readers_nobody_is_to_be_visited() -> None:
    feed = new_feed()
    feed.publish(b"x", 1)
    assert feed.left == 0
    feed.finish(LAG_EVENTS, LAG_BYTES)
    assert len(feed.ring) == 0


def test_a_newcomer_during_a_sweep_is_visited_too_and_one_before_it_is_not() -> None:
    feed = new_feed()
    joined(feed, 2)
    assert feed.left == 0
    feed.publish(b"x", 1)
    joined(feed, 1)
    assert feed.left == 3


def test_a_reader_that_comes_back_with_frames_to_get_makes_the_sweep_go_all_round() -> None:
    feed = new_feed()
    one, two = joined(feed, 2)
    feed.leave(one)
    feed.stalled = 1
    feed.publish(b"x", 1)
    two.cursor, feed.left = 1, 0
    feed.join(one)
    assert feed.left == 2


def test_the_end_of_a_lap_forgets_what_was_there_when_it_began() -> None:
    feed = new_feed()
    joined(feed, 2)
    feed.publish(b"x", 1)
    feed.end_lap(LAG_EVENTS, LAG_BYTES)  # a lap begins
    feed.publish(b"x", 2)
    assert len(feed.ring) == 2
    for reader in feed.readers:
        reader.cursor = 2
    feed.end_lap(LAG_EVENTS, LAG_BYTES)
    assert (feed.at, feed.ring.base) == (0, 1)


def test_a_lap_keeps_what_a_stalled_reader_may_still_get() -> None:
    feed = new_feed()
    one, two = joined(feed, 2)
    feed.leave(one)
    feed.stalled = 1
    for number in range(1, 11):
        feed.publish(b"x", number)
    two.cursor = 10
    feed.end_lap(LAG_EVENTS, LAG_BYTES)
    feed.end_lap(LAG_EVENTS, LAG_BYTES)
    assert len(feed.ring) == LAG_EVENTS


def test_a_sweep_that_is_over_forgets_all_but_what_stalled_readers_may_get() -> None:
    feed = new_feed()
    [reader] = joined(feed, 1)
    for number in range(1, 11):
        feed.publish(b"x" * 100, number)
    reader.cursor = 10
    feed.stalled = 1
    feed.finish(5, 250)
    assert len(feed.ring) == 2
    feed.stalled = 0
    feed.finish(5, 250)
    assert (len(feed.ring), feed.left) == (0, 0)
