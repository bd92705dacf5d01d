"""Replay: readers that come back get what they missed, join the live stream without a hole or a repetition, and share
the work of it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from server.admission import Holder
from server.broadcaster import Broadcaster
from server.channel import Channel, Policy
from server.frames import Encoding
from server.ids import format_id
from server.log import Log
from server.reader import Reader
from server.relay.protocol import Entry, RelayUnavailable, Retention
from server.replay import Page, Replay, Replayer, gap_frame
from server.selection import Selection
from server.selectors import parse_selector
from tests.server.engine import (
    EPOCH,
    SMALLEST_BUFFER,
    UNBOUNDED,
    Peer,
    accounted,
    entry,
    run,
    turns,
    until,
)

ALL = Selection()
ONLY_A = Selection(frozenset([parse_selector("a")]))


class Library:
    """A relay's history and a channel that remembers the newest part of it, before a real broadcaster.

    `peers` are the readers' far ends with what they had; `asked` is what was read from the history.
    """

    def __init__(self, *, ring: int = 0, retain: int = 0, span_bytes: int = 4000, slice_seconds: float = 1.0) -> None:
        self.entries: list[Entry] = []
        self.retain = retain
        self.asked: list[tuple[int, int]] = []
        self.broken = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.peers: list[tuple[Peer, int, Feedback]] = []
        self.ends: list[Reader] = []
        bound = Retention(ring, 0, 0) if ring else UNBOUNDED
        self.channel = Channel("main", Policy(lag_events=1 << 20, lag_bytes=1 << 30), EPOCH, Log(bound, 0))
        self.broadcaster = Broadcaster(
            asyncio.get_running_loop(),
            lambda reader, ending: self.ends.append(reader),
            slice_seconds=slice_seconds,
            span_bytes=span_bytes,
            backlog_bytes=1 << 30,
        )
        self.replayer = Replayer(self.broadcaster, self.read, lambda name: self.mark, lambda name: self.floor)
        self.broadcaster.replayer = self.replayer

    @property
    def mark(self) -> int:
        return self.entries[-1].position if self.entries else 0

    @property
    def floor(self) -> int:
        return self.entries[-self.retain - 1].position if 0 < self.retain < len(self.entries) else 0

    async def read(self, name: str, after: int, limit: int) -> Sequence[Entry]:
        self.asked.append((after, limit))
        await self.gate.wait()
        if self.broken:
            raise RelayUnavailable("no disk")
        return [one for one in self.entries if max(after, self.floor) < one.position][:limit]

    def publish(self, *texts: str, topic: str = "a") -> list[Entry]:
        added = [entry(self.mark + 10 * number, text, topic) for number, text in enumerate(texts, 1)]
        self.entries += added
        self.broadcaster.publish(self.channel.accept(added, time.monotonic()))
        return added

    def resume(
        self,
        position: int,
        *,
        selection: Selection = ALL,
        gap: tuple[str, str | None] | None = None,
        buffer_bytes: int = 0,
        encoding: Encoding = Encoding.PLAIN,
    ) -> Peer:
        """A reader that has everything up to `position`."""
        peer = Peer(buffer_bytes)
        feed = self.channel.enter(selection, encoding)
        reader = Reader(peer.fd, feed, Holder(""), None)
        reader.cursor = feed.ring.head
        reader.replay = Replay(position, gap)
        self.broadcaster.add(reader)
        self.replayer.resume(reader)
        self.peers.append((peer, position, Feedback(reader, selection)))
        return peer

    def check(self, peer: Peer, position: int, selection: Selection) -> None:
        expected = [one for one in self.entries if one.position > position and selection.wants(one.event)]
        accounted(expected, peer.read_all(), whole=True)

    async def settled(self, seconds: float = 10.0) -> None:
        """Reads everything until nothing more comes."""

        def quiet() -> bool:
            got = sum(peer.read() for peer, _, feedback in self.peers if feedback.reader.fd >= 0)
            caught_up = all(f.reader.fd < 0 or f.reader.index >= 0 for _, _, f in self.peers)
            return not got and caught_up and not self.broadcaster.stalled

        await until(quiet, seconds)
        await turns()

    def close(self) -> None:
        self.broadcaster.shut()
        for peer, _, _ in self.peers:
            peer.close()


class Feedback:
    """A reader and what it selected."""

    def __init__(self, reader: Reader, selection: Selection) -> None:
        self.reader = reader
        self.selection = selection


def with_library(doing: Callable[[Library], Any], **options: Any) -> None:
    async def main() -> None:
        library = Library(**options)
        try:
            await doing(library)
        finally:
            library.close()

    run(main)


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

    def counted(self: Replayer, feed: Any, position: int, entries: list[Entry], *, more: bool) -> Page:
        built.append(position)
        return build(self, feed, position, entries, more=more)

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
