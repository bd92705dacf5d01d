"""Holes in the log: live readers are told before the next event that they get, or soon after if none comes. No place in
the log is named to them but those of what they may read, marks and the present.
"""

from __future__ import annotations

import json
import time

import pytest

from server.channel import Channel
from server.endings import Ending
from server.feed import Feed
from server.finishing import Finisher
from server.frames import Encoding, cursor_block, gap_frame
from server.ids import format_id
from server.reader import Reader
from server.relay.positions import present_behind
from server.selection import Selection
from server.selectors import parse_selector
from server.shards import Following
from tests.server.engine import EPOCH, channel, entry, run, stage, until
from tests.server.library import ALL, ONLY_A, Library, with_library

HOLE, PRESENT = 500, 900
ONLY_B = Selection(frozenset([parse_selector("b")]))


def gap(since: int | None, to: int, reason: str = "history") -> bytes:
    return gap_frame(reason, None if since is None else format_id(EPOCH, since), format_id(EPOCH, to))


def frames(feed: Feed) -> bytes:
    """All that a feed's readers have still to get."""
    return feed.ring.span(feed.ring.base, 1 << 20)[0] if len(feed.ring) else b""


def of(one: Channel, selection: Selection) -> Feed:
    return one.enter(selection, Encoding.PLAIN)


def test_a_hole_ends_before_the_first_event_that_a_reader_gets_whatever_others_get_meanwhile() -> None:
    one = channel()
    wants_a, wants_b = of(one, ONLY_A), of(one, ONLY_B)
    one.lose((), "history", HOLE, PRESENT)
    assert frames(wants_a) == frames(wants_b) == b""
    secret, first = entry(520, "", "a"), entry(540, "", "b")
    assert set(one.accept([secret, first], 0.0)) == {wants_a, wants_b}
    assert frames(wants_a) == gap(None, 519) + secret.frame
    assert frames(wants_b) == gap(None, 539) + first.frame
    later = entry(560, "", "b")
    one.accept([later], 0.0)
    assert frames(wants_b).endswith(first.frame + later.frame)


def test_who_gets_no_event_is_told_once_the_mark_has_passed_the_hole() -> None:
    one = channel()
    feed = of(one, ONLY_A)
    first = entry(100)
    one.accept([first], 0.0)
    one.lose((), "damaged", HOLE, PRESENT)
    assert one.tell_all(HOLE - 1) == []
    assert one.tell_all(HOLE + 50) == [feed]
    told = gap(100, HOLE + 50, "damaged") + cursor_block(format_id(EPOCH, HOLE + 50))
    assert frames(feed) == first.frame + told
    assert one.tell_all(HOLE + 60) == []


def test_two_holes_without_an_event_between_are_one_gap() -> None:
    one = channel()
    feed = of(one, ALL)
    one.lose((), "history", HOLE, PRESENT)
    one.lose((), "damaged", HOLE - 10, PRESENT - 10)
    one.lose((), "damaged", HOLE + 10, PRESENT + 10)
    assert one.tell_all(HOLE) == []
    one.accept([entry(600)], 0.0)
    assert frames(feed).count(b"event: gap") == 1


def test_of_several_shards_one_may_have_a_hole_that_ends_behind_what_another_still_brings() -> None:
    """A gap up to there is declared before that: up to the present, for the end of the hole is somebody's event."""
    one = channel()
    one.following = Following(2)
    for shard in range(2):
        one.following.began(shard, 0, 0.0)
    feed = of(one, ALL)
    one.lose((1,), "history", HOLE, PRESENT)
    assert one.following.floor(()) == HOLE
    first, second = entry(HOLE - 10), entry(HOLE + 10)
    one.accept([first, second], 0.0)
    assert frames(feed) == gap(None, PRESENT) + first.frame + second.frame


def test_another_log_is_a_gap_of_its_own_and_the_only_one() -> None:
    one = channel()
    feed = of(one, ALL)
    one.lose((), "history", HOLE, PRESENT)
    one.turn("other1", one.log, "epoch", 950)
    one.accept([entry(960)], 0.0)
    assert frames(feed).count(b"event: gap") == 1


def test_a_hole_is_forgotten_with_the_last_who_has_to_be_told_of_it() -> None:
    one = channel()
    feed = of(one, ALL)
    one.lose((), "history", HOLE, PRESENT)
    one.depart(feed)
    assert not one.holes


def test_the_present_is_never_before_the_hole_and_tells_nothing_of_it() -> None:
    assert present_behind(HOLE, PRESENT) == PRESENT
    behind = {present_behind(1_800_000_000_000_000 + offset, 5) for offset in (1, 77, 59_999_999)}
    assert behind == {1_800_000_060_000_000}


def test_who_comes_after_a_hole_is_not_told_of_it_and_who_was_there_is_told_first() -> None:
    async def check(library: Library) -> None:
        first, second = library.publish("1", "2")
        there = library.resume(second.position)
        await library.settled()
        there.read_all()
        library.channel.lose((), "history", library.mark + 5, library.mark + 7)
        comes = library.resume(first.position)
        await library.settled()
        assert comes.read_all() == second.frame + cursor_block(format_id(EPOCH, library.mark))
        assert there.read_all().endswith(gap_frame("history", None, format_id(EPOCH, library.mark + 7)))

    with_library(check)


def test_the_end_of_a_topic_waits_for_those_who_have_to_be_told_of_a_hole() -> None:
    async def main() -> None:
        with stage() as scene:
            reader, peer = scene.add(of(scene.channel, ONLY_A))
            ends: list[Reader] = []

            def close(one: Reader, ending: Ending) -> None:
                ends.append(one)

            finisher = Finisher(close)
            finisher.finish(scene.channel, "a", 0.0)
            scene.channel.lose((), "history", HOLE, PRESENT)
            finisher.tick(1.0)
            assert ends == []
            scene.broadcaster.publish(scene.channel.tell_all(HOLE))
            await until(lambda: b"event: gap" in peer.read_all())
            finisher.tick(2.0)
            assert ends == [reader]

    run(main)


@pytest.mark.parametrize("since", [None, 20])
def test_what_a_replay_missed_begins_at_the_last_event_that_its_reader_has(since: int | None) -> None:
    """Not at one that was looked at since, nor at a floor: those may be of events that it may not read."""

    async def check(library: Library) -> None:
        library.publish("1", "2")  # at 10 and 20
        library.publish(*["another's"] * 30, topic="b")
        last = library.publish("last")[0]
        peer = library.resume(0, selection=ONLY_A)
        replay = library.peers[0][2].reader.replay
        assert replay is not None
        replay.position, replay.told = 100, since or 0  # it has looked at some of them
        library.retain = 10
        await library.settled()
        assert peer.read_all().startswith(gap(since, last.position - 1) + last.frame)

    with_library(check)


def test_what_a_replay_of_several_shards_missed_may_end_behind_what_it_gets_first() -> None:
    async def check(library: Library) -> None:
        library.channel.following = following = Following(2)
        for shard in range(2):
            following.began(shard, 0, 0.0)
        only = library.publish("only")[0]
        peer = library.resume(0)
        upto = int(time.time() * 1e6) - 1_000_000
        library.replayer._floor = lambda *_: upto
        await library.settled()
        [facts] = [json.loads(line[6:]) for line in peer.read_all().split(b"\n") if line.startswith(b"data: {")]
        assert facts["to"] > format_id(EPOCH, upto)
        assert only.frame in peer.received

    with_library(check)


def test_who_has_all_that_was_delivered_goes_live_though_a_shard_has_lost_something_further_on() -> None:
    async def check(library: Library) -> None:
        library.channel.following = following = Following(2)
        for shard in range(2):
            following.began(shard, 0, 0.0)
        old = library.publish("1", "2")
        feed = of(library.channel, ALL)
        upto = library.mark + 10_000
        library.channel.lose((1,), "history", upto, upto + 5)
        library.replayer._floor = lambda *_: upto
        peer = library.resume(0)
        await library.settled()
        assert b"event: gap" in peer.read_all()
        new = library.publish("3")
        await until(lambda: new[0].frame in peer.read_all())
        assert peer.received.count(b"event: gap") == 1
        assert old[1].frame in peer.received
        library.channel.depart(feed)

    with_library(check)
