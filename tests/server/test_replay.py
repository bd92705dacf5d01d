"""Replay: readers that come back get what they missed, join the live stream without a hole or a repetition, and share
the work of it.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from server.frames import Encoding, cursor_block
from server.ids import format_id
from server.log import Log
from server.relay.protocol import Entry, Stretch
from server.replay import Page, Replayer, gap_frame
from server.shards import Shards
from tests.server.engine import EPOCH, SMALLEST_BUFFER, accounted, turns, until
from tests.server.library import ALL, ONLY_A, Library, with_library


@pytest.mark.parametrize("seed", range(10))
def test_replay_and_live_stream_meet_without_a_hole_or_a_repetition(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr("server.history.HISTORY_PAGES", 1000)

    async def check(library: Library) -> None:
        for _ in range(120):
            for _ in range(chance.randint(0, 3)):
                library.publish(*["x" * chance.randint(0, 600)] * chance.randint(1, 5), topic=chance.choice("ab"))
            if chance.random() < 0.3:
                library.resume(
                    chance.choice([0, library.mark, library.mark // 2, max(0, library.mark - 200)]),
                    selection=chance.choice([ALL, ONLY_A]),
                    buffer_bytes=chance.choice([SMALLEST_BUFFER, 20_000, 300_000]),
                )
            for peer, _, _ in chance.sample(library.peers, min(4, len(library.peers))):
                peer.read(chance.choice([100, 5000, 1 << 20]))
            await turns(chance.randint(0, 4))
        await library.settled()
        assert len(library.peers) > 20
        for peer, position, feedback in library.peers:
            library.check(peer, position, feedback.selection)

    with_library(
        check, ring=chance.choice([5, 40, 10_000]), span_bytes=chance.choice([1500, 10_000]), slice_seconds=0.0
    )


@pytest.mark.parametrize("encoding", [Encoding.CHUNKED, Encoding.PLAIN])
def test_the_joint_is_marked_by_a_cursor_after_the_last_old_event(encoding: Encoding) -> None:
    async def check(library: Library) -> None:
        first, second = library.publish("1", "2")
        peer = library.resume(first.position, encoding=encoding)
        await library.settled()
        cursor = f"id: {format_id(EPOCH, library.mark)}\n\n".encode()
        assert peer.read_all() == encoding.wrap(second.frame) + encoding.wrap(cursor)

    with_library(check)


def test_a_reader_that_has_everything_gets_the_cursor_alone() -> None:
    async def check(library: Library) -> None:
        library.publish("1", topic="b")
        peer = library.resume(0, selection=ONLY_A)
        await library.settled()
        assert peer.read_all() == f"id: {format_id(EPOCH, library.mark)}\n\n".encode()
        assert library.replayer.replayed == 0

    with_library(check)


@pytest.mark.parametrize("events", [2, 20])  # less than a page, and several
def test_readers_with_one_cursor_share_the_pages(events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    build = Replayer._build

    def counted(self: Replayer, feed: Any, position: int, entries: list[Entry], deadline: float, **more: Any) -> Page:
        built.append(position)
        return build(self, feed, position, entries, deadline, **more)

    monkeypatch.setattr(Replayer, "_build", counted)

    async def check(library: Library) -> None:
        library.publish(*["x" * 1000] * events)
        for _ in range(30):
            library.resume(0, buffer_bytes=300_000)
        await library.settled()
        for peer, position, feedback in library.peers:
            library.check(peer, position, feedback.selection)
        assert library.replayer.replayed == 30 * events
        # One page a span for all of them; only the last look, which finds nothing more, is each reader's own.
        assert len(built) - built.count(library.mark) < 10

    with_library(check)


def test_more_readers_with_different_cursors_than_there_are_pages_all_come_to_an_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.history.HISTORY_PAGES", 3)

    async def check(library: Library) -> None:
        library.publish(*map(str, range(100)))
        for number in range(5):
            library.resume(number * 10)
        await library.settled(4)
        for peer, position, feedback in library.peers:
            library.check(peer, position, feedback.selection)

    with_library(check, ring=10, slice_seconds=0.0)


def test_what_memory_has_dropped_is_read_from_the_relay_once_for_all_who_wait() -> None:
    async def check(library: Library) -> None:
        library.publish(*map(str, range(50)))
        library.gate.clear()
        for _ in range(5):
            library.resume(0)
        await until(lambda: library.asked)
        await turns()
        assert len(library.asked) == 1
        library.gate.set()
        await library.settled()
        for peer, position, feedback in library.peers:
            library.check(peer, position, feedback.selection)
        assert len(library.asked) == len(set(library.asked))

    with_library(check, ring=10)


def test_what_is_published_while_the_relay_is_read_comes_after_it_and_once() -> None:
    async def check(library: Library) -> None:
        library.publish(*map(str, range(50)))
        library.gate.clear()
        peer = library.resume(0)
        await until(lambda: library.asked)
        library.publish(*map(str, range(50, 200)))  # more than memory holds: what it was to join has moved on
        library.gate.set()
        await library.settled()
        library.publish("last")
        await library.settled()
        library.check(peer, 0, ALL)

    with_library(check, ring=10)


def test_readers_whose_history_cannot_be_read_are_ended_and_others_go_on() -> None:
    async def check(library: Library) -> None:
        library.publish(*map(str, range(50)))
        library.broken = True
        lost, fine = library.resume(0), library.resume(library.mark)
        await until(lambda: library.ends)
        await library.settled()
        lost.read_all()
        assert lost.ended
        assert not fine.ended
        library.broken = False
        again = library.resume(0)
        await library.settled()
        library.check(again, 0, ALL)

    with_library(check, ring=10)


def test_a_reader_that_left_while_the_relay_was_read_is_forgotten() -> None:
    async def check(library: Library) -> None:
        library.publish(*map(str, range(50)))
        library.gate.clear()
        library.resume(0).close()
        await until(lambda: library.ends)
        library.gate.set()
        await turns()
        assert not library.replayer.busy

    with_library(check, ring=10)


def test_a_declared_gap_comes_before_the_first_event_after_the_hole() -> None:
    async def check(library: Library) -> None:
        library.publish("1", topic="b")
        [second] = library.publish("2")
        peer = library.resume(0, selection=ONLY_A, gap=("epoch", "old"))
        await library.settled()
        to = format_id(EPOCH, second.position - 1)
        assert peer.read_all().startswith(gap_frame("epoch", "old", to) + second.frame)
        assert peer.received.count(b"event: gap") == 1

    with_library(check)


def test_a_declared_gap_with_nothing_after_it_ends_at_the_present() -> None:
    async def check(library: Library) -> None:
        library.publish("1", topic="b")
        peer = library.resume(0, selection=ONLY_A, gap=("unknown", None))
        await library.settled()
        now = format_id(EPOCH, library.mark)
        assert peer.read_all() == gap_frame("unknown", None, now) + f"id: {now}\n\n".encode()

    with_library(check)


def test_a_replay_that_retention_overtakes_declares_a_gap() -> None:
    async def check(library: Library) -> None:
        first = library.publish(*["x" * 3000 for _ in range(60)])
        peer = library.resume(0, buffer_bytes=SMALLEST_BUFFER)
        await until(lambda: library.broadcaster.stalled)
        library.publish(*["y" * 3000 for _ in range(100)])
        await library.settled()
        expected = [one for one in library.entries if one.position > 0]
        [gap] = accounted(expected, peer.read_all(), whole=True)
        assert gap.since is not None
        assert first[0].position <= gap.since < gap.to < library.mark

    with_library(check, ring=20, retain=70, span_bytes=6000)


def test_a_page_that_leads_nowhere_is_asked_for_again_later_and_not_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever others do meanwhile, for whom pages are kept."""

    async def check(library: Library) -> None:
        library.publish(*map(str, range(50)))
        history, reads, gate = library.replayer.history, list[int](), asyncio.Event()

        async def nothing(name: str, after: int, limit: int, shards: Shards) -> Stretch:
            reads.append(after)
            if after:
                await gate.wait()
                return await library.read(name, after, limit, shards)
            return Stretch([], after)

        monkeypatch.setattr(history, "_read", nothing)
        library.resume(10)
        for _ in range(3):
            library.resume(0)
        for count in (1, 2):
            await until(lambda count=count: reads.count(0) == count)
            await turns(20)
            assert (reads.count(0), library.replayer.busy) == (count, False)
            library.resume(library.mark)
            assert library.replayer.busy
            library.replayer.forget()
        await turns(20)
        monkeypatch.setattr(history, "_read", library.read)
        gate.set()
        library.replayer.forget()
        await library.settled()
        for peer, position, _ in library.peers:
            library.check(peer, position, ALL)

    with_library(check, ring=10)


@pytest.mark.parametrize("ring", [0, 10], ids=["memory", "relay"])
def test_nothing_of_a_log_that_is_gone_is_replayed(ring: int) -> None:
    """Its pages may still be there, and positions of the new one begin where its own did."""

    async def check(library: Library) -> None:
        old = library.publish(*map(str, range(50)))
        library.resume(0)
        await library.settled()
        assert library.replayer._built
        assert bool(library.replayer.history.pages) == bool(ring)
        new = library.publish("new")
        library.entries = new
        library.channel.turn("other1", Log(library.channel.policy.ring, old[-1].position), "epoch", old[-1].position)
        library.channel.log.append(new[0])
        peer = library.resume(0, gap=("epoch", "old"))
        await library.settled()
        assert peer.read_all().count(b"data: ") == 2
        assert new[0].frame in peer.received

    with_library(check, ring=ring)


def test_a_page_that_comes_while_something_else_is_on_its_way_waits_for_that() -> None:
    """A heartbeat, for one that waits for the relay, and whose socket takes nothing."""

    async def check(library: Library) -> None:
        library.publish(*map(str, range(50)))
        library.gate.clear()
        peer = library.resume(0, buffer_bytes=SMALLEST_BUFFER)
        await until(lambda: library.asked)
        reader = library.peers[0][2].reader
        comments = b":\n" * 100_000
        assert not library.broadcaster.write(reader, comments, 0)
        library.gate.set()
        await until(lambda: library.replayer.history.pages)
        await turns(10)
        assert not library.replayer.history._woken  # others may have their pages read
        await library.settled()
        assert peer.read_all().startswith(comments)
        peer.received = peer.received[len(comments) :]
        library.check(peer, 0, ALL)

    with_library(check, ring=10)


def test_replays_give_the_loop_back_between_their_slices() -> None:
    async def check(library: Library) -> None:
        library.publish(*["x" * 900] * 100)
        for _ in range(20):
            library.resume(0, buffer_bytes=300_000)
        began = library.replayer.replayed
        await turns(2)
        assert began <= library.replayer.replayed < 20 * 100
        await library.settled()
        assert library.replayer.replayed == 20 * 100

    with_library(check, slice_seconds=0.0)


def test_a_selection_that_matches_little_is_looked_for_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.replay.SCAN_ENTRIES", 10)

    async def check(library: Library) -> None:
        library.publish(*["no"] * 95, topic="b")
        library.publish("yes")
        peer = library.resume(0, selection=ONLY_A)
        await library.settled()
        library.check(peer, 0, ONLY_A)

    with_library(check, slice_seconds=0.0)


def test_shared_pages_are_dropped_once_nobody_replays() -> None:
    async def check(library: Library) -> None:
        library.publish(*["x" * 1000] * 50)
        library.resume(0)
        await library.settled()
        assert library.replayer._built
        assert library.replayer.history.pages
        library.replayer.forget()
        assert not library.replayer._built
        assert not library.replayer.history.pages

    with_library(check, ring=10)


def test_pages_are_kept_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.replay.BUILT_PAGES", 4)
    monkeypatch.setattr("server.history.HISTORY_PAGES", 2)
    monkeypatch.setattr("server.history.HISTORY_ENTRIES", 5)

    async def check(library: Library) -> None:
        library.publish(*["x" * 1000] * 100)
        for position in range(0, 900, 30):
            library.resume(position, buffer_bytes=300_000)
        await library.settled()
        assert len(library.replayer._built) <= 4
        assert library.replayer.history.pages <= 2
        for peer, position, feedback in library.peers:
            library.check(peer, position, feedback.selection)

    with_library(check, ring=10)


@pytest.mark.parametrize(("since", "origin"), [(None, b"null"), ("k3x9q1-0", b'"k3x9q1-0"')])
def test_a_gap_is_an_event_without_an_id(since: str | None, origin: bytes) -> None:
    assert gap_frame("lag", since, "x") == b'event: gap\ndata: {"reason":"lag","from":%b,"to":"x"}\n\n' % origin


# --- the last few


@pytest.mark.parametrize("step_seconds", [0.0, 1.0])
@pytest.mark.parametrize(("count", "data"), [(1, "4"), (2, "34"), (3, "134"), (4, "134"), (1000, "134")])
def test_the_last_few_are_those_that_the_selection_wants(
    count: int, data: str, step_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.replay.STEP_SECONDS", step_seconds)

    async def check(library: Library) -> None:
        library.publish("1")
        library.publish("2", topic="b")
        library.publish("3", "4")
        library.publish("5", topic="b")
        peer = library.resume(library.mark, selection=ONLY_A, last=count)
        await library.settled()
        frames = [one.frame for one in library.entries if one.event.data in data]
        assert peer.read_all() == b"".join(frames) + cursor_block(format_id(EPOCH, library.mark))

    with_library(check)


def test_what_is_published_while_the_last_few_are_looked_for_comes_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.replay.STEP_SECONDS", 0.0)

    async def check(library: Library) -> None:
        old = library.publish(*map(str, range(20)))
        peer = library.resume(library.mark, last=15)
        await turns(3)
        new = library.publish("new", "newer")
        await library.settled()
        live = library.publish("newest")
        await library.settled()
        accounted(old[5:] + new + live, peer.read_all(), whole=True)

    with_library(check, slice_seconds=0.0)


def test_what_is_dropped_while_the_last_few_are_looked_for_is_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.replay.STEP_SECONDS", 0.0)

    async def check(library: Library) -> None:
        library.publish(*map(str, range(10)))
        peer = library.resume(library.mark, last=10)
        await turns(3)
        library.publish(*map(str, range(10, 20)))
        await library.settled()
        assert accounted(library.entries[10:], peer.read_all(), whole=True) == []

    with_library(check, ring=10, slice_seconds=0.0)
