"""The broadcaster on real sockets: readers that read as they like get every frame once and in order, or a declared gap.

The long test is a simulation with seeds; what each peer received is compared with what it should have.
"""

from __future__ import annotations

import json
import random

import pytest
import structlog

import server.broadcaster
from server.broadcaster import Broadcaster, Counters
from server.endings import DRAINING, SLOW, Ending
from server.feed import Feed
from server.frames import COMMENT_HEARTBEAT, Encoding
from server.reader import Reader
from server.relay.protocol import Entry
from server.ring import Ring
from server.selection import Selection
from server.selectors import parse_selector
from tests.server.crowd import Crowd
from tests.server.engine import SMALLEST_BUFFER, Peer, Stage, accounted, run, stage, turns, unchunked, until


def enter(on: Stage, encoding: Encoding = Encoding.PLAIN) -> Feed:
    return on.channel.enter(Selection(), encoding)


async def stalled(on: Stage, feed: Feed) -> tuple[Reader, Peer, list[Entry]]:
    """A reader whose socket takes no more, and what was published to it."""
    reader, peer = on.add(feed, SMALLEST_BUFFER)
    entries = []
    while reader.stall is None:
        entries += on.publish("x" * 2000)
        await turns(2)
    return reader, peer, entries


# --- the simulation


@pytest.mark.parametrize("seed", range(12))
def test_every_reader_gets_every_frame_once_and_in_order_unless_a_gap_says_otherwise(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(server.broadcaster, "BATCH", chance.choice((1, 2, 3)))

    async def main() -> None:
        crowd = Crowd(
            chance,
            slice_seconds=0.0,
            span_bytes=chance.choice((300, 6000, 100_000)),
            lag_events=chance.choice((5, 40)),
            lag_bytes=chance.choice((4000, 30_000)),
        )
        try:
            for _ in range(400):
                await crowd.step()
            await until(crowd.settled)
            crowd.check_feeds()
            for member in crowd.members:
                crowd.check_member(member)
            assert crowd.stalls  # else it was too kind to show anything
        finally:
            crowd.close()
        ended = [reader for reader, _ in crowd.ends]
        assert len(ended) == len(set(ended)) == len(crowd.members)
        assert crowd.broadcaster.readers == 0
        assert crowd.channel.feeds == {}

    run(main)


@pytest.mark.parametrize("seed", range(4))
def test_readers_that_are_never_told_of_a_gap_have_got_everything_until_they_are_ended(seed: int) -> None:
    chance = random.Random(seed)

    async def main() -> None:
        options = {"lag_policy": "disconnect", "lag_events": 10, "lag_bytes": 20_000}
        crowd = Crowd(chance, slice_seconds=0.0, span_bytes=5000, **options)
        try:
            for _ in range(300):
                await crowd.step()
                for reader in crowd.broadcaster.stalled_since(0.0):
                    crowd.broadcaster.close(reader, SLOW)
            await until(crowd.settled)
            for member in crowd.members:
                crowd.check_member(member)
            assert crowd.gaps == 0
            assert any(ending is SLOW for _, ending in crowd.ends)
        finally:
            crowd.close()

    run(main)


# --- one thing at a time


@pytest.mark.parametrize("encoding", [Encoding.CHUNKED, Encoding.PLAIN])
def test_a_reader_that_is_many_spans_behind_gets_all_of_them(encoding: Encoding) -> None:
    async def main() -> None:
        with stage(span_bytes=100) as on:
            _, peer = on.add(enter(on, encoding))
            entries = on.publish(*(f"{number:090}" for number in range(20)))
            await turns()
            text = peer.read_all()
            accounted(entries, unchunked(text)[0] if encoding is Encoding.CHUNKED else text, whole=True)

    run(main)


def test_readers_of_one_feed_at_different_cursors_each_get_what_they_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.broadcaster, "BATCH", 1)

    async def main() -> None:
        with stage(slice_seconds=0.0) as on:
            feed = enter(on)
            peers = [on.add(feed)[1] for _ in range(5)]
            for _ in range(4):
                feed.members += 1
            entries = []
            for number in range(10):  # one visit a turn: the sweep is always somewhere in the middle
                entries += on.publish(str(number))
                await turns(1)
            await until(lambda: not feed.dirty)
            for peer in peers:
                accounted(entries, peer.read_all(), whole=True)

    run(main)


def test_events_that_came_together_go_out_in_one_write() -> None:
    async def main() -> None:
        with stage() as on:
            _, peer = on.add(enter(on, Encoding.CHUNKED))
            entries = on.publish("1", "2", "3")
            await turns()
            joined = b"".join(one.frame for one in entries)
            assert peer.read_all() == b"%x\r\n%b\r\n" % (len(joined), joined)
            assert (on.broadcaster.count.writes, on.broadcaster.count.delivered) == (1, 3)

    run(main)


def test_a_reader_that_takes_no_bytes_holds_up_nobody_else() -> None:
    async def main() -> None:
        with stage() as on:
            feed = enter(on)
            slow, slow_peer, before = await stalled(on, feed)
            quick, quick_peer = on.add(enter(on))
            entries = on.publish("1", "2")
            await turns()
            accounted(entries, quick_peer.read_all(), whole=True)
            assert slow.index == -1
            assert quick.index == 0
            assert on.broadcaster.stalled == 1
            assert on.broadcaster.lag_of(on.channel) == 2

            def caught_up() -> bool:
                slow_peer.read()
                return slow.stall is None and slow.cursor == feed.ring.head

            await until(caught_up)
            accounted([*before, *entries], slow_peer.read_all(), whole=True)
            assert (on.broadcaster.stalled, on.broadcaster.count.gaps) == (0, 0)

    run(main)


def test_a_reader_too_far_behind_goes_on_after_a_gap_between_what_it_had_and_what_it_gets() -> None:
    async def main() -> None:
        with stage(lag_events=3) as on:
            feed = enter(on)
            slow, peer, before = await stalled(on, feed)
            entries = on.publish(*map(str, range(10)))
            await turns()
            assert len(feed.ring) <= 3

            def caught_up() -> bool:
                peer.read()
                return slow.stall is None

            await until(caught_up)
            await turns()
            [gap] = accounted(before + entries, peer.read_all(), whole=True)
            assert (gap.since, gap.to) == (before[-1].position, entries[6].position)
            assert json.loads(peer.received.split(b"event: gap\ndata: ")[1].split(b"\n")[0])["reason"] == "lag"
            assert (on.broadcaster.count.gaps, on.broadcaster.count.dropped) == (1, 7)

    run(main)


def test_with_the_disconnect_policy_a_reader_too_far_behind_is_found_and_ended() -> None:
    async def main() -> None:
        with stage(lag_policy="disconnect", lag_events=3) as on:
            slow, peer, before = await stalled(on, enter(on))
            assert on.broadcaster.stalled_since(0.0) == []
            entries = on.publish(*map(str, range(10)))
            await turns()
            assert on.broadcaster.stalled_since(0.0) == [slow]

            def ended() -> bool:
                peer.read()
                return peer.ended

            await until(ended)
            assert on.ends == [(slow, SLOW)]
            # Its socket took bytes again before anybody looked: there was room for a farewell.
            text, farewell = peer.received.split(b"retry: ")
            assert accounted(before + entries, text, whole=False) == []
            assert b"event: slow\n" in farewell

    run(main)


def test_a_reader_without_progress_since_a_time_is_found() -> None:
    async def main() -> None:
        with stage() as on:
            slow, _, _ = await stalled(on, enter(on))
            since = slow.stall.since if slow.stall else 0.0
            assert on.broadcaster.stalled_since(since) == []
            assert on.broadcaster.stalled_since(since + 0.001) == [slow]

    run(main)


def test_the_frames_of_a_stalled_reader_are_forgotten_when_it_is_gone() -> None:
    async def main() -> None:
        with stage() as on:
            feed = enter(on)
            slow, _, _ = await stalled(on, feed)
            on.add(enter(on))
            on.publish("1", "2")
            await turns()
            assert len(feed.ring) >= 2
            on.broadcaster.close(slow)
            on.publish("3")
            await turns()
            assert len(feed.ring) == 0

    run(main)


@pytest.mark.parametrize("encoding", [Encoding.CHUNKED, Encoding.PLAIN])
def test_a_farewell_is_the_last_that_a_reader_gets(encoding: Encoding) -> None:
    async def main() -> None:
        with stage() as on:
            reader, peer = on.add(enter(on, encoding))
            on.broadcaster.close(reader, DRAINING, retry_ms=700)
            assert peer.read_all() == encoding.wrap(DRAINING.farewell(700)) + encoding.end
            assert peer.ended
            assert on.ends == [(reader, DRAINING)]
            on.broadcaster.close(reader, DRAINING)
            assert len(on.ends) == 1

    run(main)


def test_a_stalled_reader_gets_no_farewell_in_the_middle_of_a_block() -> None:
    async def main() -> None:
        with stage() as on:
            slow, peer, entries = await stalled(on, enter(on))
            on.broadcaster.close(slow, DRAINING)
            accounted(entries, peer.read_all(), whole=False)
            assert b"draining" not in peer.received
            assert on.broadcaster.stalled == 0

    run(main)


def test_a_peer_that_goes_away_ends_its_reader() -> None:
    async def main() -> None:
        with stage() as on:
            reader, peer = on.add(enter(on))
            peer.close()
            await until(lambda: on.ends)
            assert on.ends == [(reader, None)]
            assert on.channel.feeds == {}

    run(main)


def test_bytes_after_the_request_end_the_reader() -> None:
    async def main() -> None:
        with stage() as on:
            reader, peer = on.add(enter(on))
            peer.socket.send(b"more")
            await until(lambda: on.ends)
            assert on.ends == [(reader, None)]
            assert on.broadcaster.count.surplus == 1

    run(main)


def test_a_peer_that_is_gone_when_the_sweep_comes_costs_the_others_nothing() -> None:
    async def main() -> None:
        with stage() as on:
            feed = enter(on)
            on.add(feed)[1].close()
            peers = [on.add(enter(on))[1] for _ in range(3)]
            entries = on.publish("1")
            await until(lambda: len(on.ends) == 1)
            await turns()
            for peer in peers:
                accounted(entries, peer.read_all(), whole=True)

    run(main)


def test_a_heartbeat_goes_only_to_readers_that_take_bytes() -> None:
    async def main() -> None:
        with stage() as on:
            reader, peer = on.add(enter(on))
            on.broadcaster.heartbeat([reader], COMMENT_HEARTBEAT)
            slow, slow_peer, _ = await stalled(on, enter(on))
            on.broadcaster.heartbeat([slow], COMMENT_HEARTBEAT)
            assert peer.read_all().startswith(COMMENT_HEARTBEAT)
            assert COMMENT_HEARTBEAT not in slow_peer.read_all()

    run(main)


def test_a_slice_gives_the_loop_back_before_all_readers_were_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.broadcaster, "BATCH", 2)

    async def main() -> None:
        with stage(slice_seconds=0.0) as on:
            peers = [on.add(enter(on))[1] for _ in range(10)]
            on.publish("1")
            await turns(1)
            served = [peer for peer in peers if peer.read()]
            assert 2 <= len(served) < 10
            await until(lambda: all(peer.read_all() for peer in peers))

    run(main)


def test_two_feeds_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.broadcaster, "BATCH", 1)

    async def main() -> None:
        with stage(slice_seconds=0.0) as on:
            feeds = [Selection(), Selection(frozenset([parse_selector("a")]))]
            groups = [[on.add(on.channel.enter(feed, Encoding.PLAIN))[1] for _ in range(6)] for feed in feeds]
            on.publish("1")
            await until(lambda: all(sum(bool(peer.read_all()) for peer in group) >= 2 for group in groups))
            assert not all(peer.received for group in groups for peer in group)

    run(main)


def test_a_slice_gives_the_loop_back_between_feeds_of_one_reader_too() -> None:
    async def main() -> None:
        with stage(slice_seconds=0.0) as on:
            texts = [f"a/{number}" for number in range(10)]
            wanted = [Selection(frozenset([parse_selector("a"), parse_selector(text)])) for text in texts]
            peers = [on.add(on.channel.enter(one, Encoding.PLAIN))[1] for one in wanted]
            on.publish("1")
            await turns(1)
            assert 1 <= sum(bool(peer.read()) for peer in peers) < 10
            await until(lambda: all(peer.read_all() for peer in peers))

    run(main)


# --- defects of ours


class BrokenRing(Ring):
    def span(self, cursor: int, max_bytes: int) -> tuple[bytes, int]:
        raise RuntimeError("a defect")


def test_a_sweep_that_fails_ends_its_feeds_readers_and_nobody_elses() -> None:
    async def main() -> None:
        with stage() as on, structlog.testing.capture_logs() as lines:
            broken, sound = enter(on), on.channel.enter(Selection(frozenset([parse_selector("a")])), Encoding.PLAIN)
            cut = [on.add(broken)[0], on.add(enter(on))[0]]
            _, peer = on.add(sound)
            broken.ring = BrokenRing()
            entries = on.publish("1")
            await until(lambda: len(on.ends) == 2)
            assert {reader for reader, _ in on.ends} == set(cut)
            entries += on.publish("2")
            await turns()
            accounted(entries, peer.read_all(), whole=True)
            assert [line["event"] for line in lines] == ["sweep_failed"]

    run(main)


def test_a_reader_that_fails_does_not_keep_news_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with stage() as on, structlog.testing.capture_logs() as lines:
            first, second = on.add(enter(on)), on.add(enter(on))
            told: list[Reader] = []

            def closed(reader: Reader, _ending: Ending | None) -> None:
                told.append(reader)
                if reader is first[0]:
                    raise RuntimeError("a defect")

            monkeypatch.setattr(on.broadcaster, "_on_closed", closed)
            first[1].close()
            second[1].close()
            await until(lambda: len(told) == 2)
            assert [line["event"] for line in lines] == ["reader_failed"]

    run(main)


# --- the backlog


async def backlogged(on: Stage) -> Feed:
    """A feed with more unsent bytes than may be."""
    feed = enter(on)
    on.add(feed)
    on.publish("x" * 600)
    on.publish("x" * 600)
    return feed


def test_publishers_wait_while_more_than_the_backlog_is_unsent() -> None:
    async def main() -> None:
        with stage(backlog_bytes=1000) as on:
            await backlogged(on)
            assert on.broadcaster.backlogged
            assert await on.broadcaster.room(10)
            assert not on.broadcaster.backlogged
            assert await on.broadcaster.room(0)

    run(main)


def test_waiting_for_room_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with stage(backlog_bytes=1000) as on:
            monkeypatch.setattr(Broadcaster, "_run_slice", lambda self: None)
            await backlogged(on)
            assert not await on.broadcaster.room(0.01)

    run(main)


def test_a_slow_reader_that_is_gone_leaves_room_for_publishers() -> None:
    async def main() -> None:
        with stage(backlog_bytes=20_000, lag_bytes=1 << 20) as on:
            feed = enter(on)
            slow, _, _ = await stalled(on, feed)
            on.add(enter(on))  # somebody who can be written to, or nothing is swept
            while feed.ring.size <= 20_000:
                on.publish("x" * 2000)
            on.publish("x")
            await turns()
            on.broadcaster.close(slow, SLOW)
            await turns()
            assert await on.broadcaster.room(1.0)

    run(main)


def test_a_slow_reader_keeps_no_publisher_waiting() -> None:
    async def main() -> None:
        with stage(backlog_bytes=20_000, lag_bytes=1 << 20) as on:
            feed = enter(on)
            await stalled(on, feed)
            on.add(enter(on))
            while feed.ring.size <= 20_000:
                on.publish("x" * 2000)
            on.publish("x")
            await turns()  # everybody but the slow one has everything
            assert await on.broadcaster.room(0.2)

    run(main)


def test_delivery_latency_is_counted_in_the_first_bucket_that_holds_it() -> None:
    count = Counters()
    for seconds in (0.0005, 0.001, 0.003, 99.0):
        count.observe_latency(seconds)
    assert count.latency_buckets[:3] == [2, 0, 1]
    assert (sum(count.latency_buckets), count.latency_count) == (3, 4)
