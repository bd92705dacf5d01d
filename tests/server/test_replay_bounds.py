"""Replay in bounds: what a look at the log may take of the loop, and what a reader may hold, whatever it asks for."""

from __future__ import annotations

import time

import pytest

from server.event import Event
from server.frames import cursor_block
from server.history import HISTORY_ENTRIES
from server.ids import format_id
from server.replay import PAGE_BYTES, gap_frame
from server.selection import Selection
from tests.server.engine import EPOCH, SMALLEST_BUFFER, turns, until
from tests.server.library import ALL, Library, with_library

# --- selections that cost much


class Dear(Selection):
    """A selection of nothing that takes its time, and counts."""

    __slots__ = ("looks", "seconds")

    def __init__(self, name: str, seconds: float = 0.0) -> None:
        super().__init__(types=frozenset([name]))
        self.seconds = seconds
        self.looks = 0

    def wants(self, event: Event) -> bool:
        self.looks += 1
        time.sleep(self.seconds)  # what it costs
        return False


@pytest.mark.parametrize(("ring", "last"), [(0, 0), (10, 0), (0, 5)], ids=["memory", "relay", "backwards"])
def test_a_look_at_the_log_ends_with_its_time(ring: int, last: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.replay.STEP_SECONDS", 0.0)

    async def check(library: Library) -> None:
        library.publish(*map(str, range(500)))
        dear = Dear("x")
        peer = library.resume(library.mark if last else 0, selection=dear, last=last)
        await until(lambda: dear.looks)
        await turns(5)
        assert dear.looks < 30
        await library.settled()
        assert dear.looks >= 500
        assert peer.read_all() == cursor_block(format_id(EPOCH, library.mark))
        assert len(library.asked) <= 1  # what is looked at in steps is read once

    with_library(check, ring=ring, slice_seconds=0.0)


def test_readers_whose_selections_cost_much_let_the_others_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.replay.STEP_SECONDS", 0.01)

    async def check(library: Library) -> None:
        library.publish(*["x" * 900] * 40)  # ten pages
        dear = [Dear(str(number), 0.012) for number in range(10)]
        for one in dear:
            library.resume(0, selection=one)
        library.resume(0, buffer_bytes=300_000)
        reader = library.peers[-1][2].reader
        await until(lambda: reader.index >= 0)
        # Each was looked at once before it was known, then one of them in each slice. In turn it would be 100.
        assert 10 < sum(one.looks for one in dear) < 60
        before = sum(one.looks for one in dear)
        await until(lambda: sum(one.looks for one in dear) > before + 10)

    with_library(check, slice_seconds=0.0)


def test_who_leaves_as_its_page_comes_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.history.HISTORY_PAGES", 1)

    async def check(library: Library) -> None:
        library.publish(*map(str, range(50)))
        library.resume(0)
        peer = library.resume(10)
        await until(lambda: library.asked)
        library.broadcaster.replayer = None
        await until(lambda: library.replayer.busy)  # the page has come and was not taken yet
        library.broadcaster.close(library.peers[0][2].reader)
        library.broadcaster.replayer = library.replayer
        library.broadcaster.wake()
        await library.settled()
        library.check(peer, 10, ALL)

    with_library(check, ring=10)


# --- what slow readers hold


def stalled(library: Library) -> list[memoryview]:
    rests = [feedback.reader.stall.rest for _, _, feedback in library.peers if feedback.reader.stall is not None]
    assert len(rests) == len(library.peers)
    return rests


def test_readers_with_cursors_of_their_own_hold_small_pages() -> None:
    async def check(library: Library) -> None:
        library.publish(*["x" * 1000] * 300)
        for number in range(10):
            library.resume(number * 10, buffer_bytes=SMALLEST_BUFFER)
        await until(lambda: library.broadcaster.stalled == 10)
        assert max(len(rest.obj) for rest in stalled(library)) <= PAGE_BYTES + 20
        await library.settled()
        for peer, position, feedback in library.peers:
            library.check(peer, position, feedback.selection)

    with_library(check, span_bytes=1 << 20)


def test_readers_with_gaps_of_their_own_share_the_page_behind_them() -> None:
    async def check(library: Library) -> None:
        library.publish(*["x" * 1000] * 30)
        for number in range(10):
            library.resume(0, gap=("epoch", str(number)), buffer_bytes=SMALLEST_BUFFER)
        await until(lambda: library.broadcaster.stalled == 10)
        assert len({id(rest.obj) for rest in stalled(library)}) == 1
        await library.settled()
        for number, (peer, _, _) in enumerate(library.peers):
            gap = gap_frame("epoch", str(number), format_id(EPOCH, library.entries[0].position - 1))
            assert peer.read_all().startswith(gap + library.entries[0].frame)

    with_library(check, span_bytes=1 << 20)


def test_a_page_of_the_relay_that_goes_out_in_parts_is_read_once() -> None:
    async def check(library: Library) -> None:
        library.publish(*["x" * 1000] * 100)
        peer = library.resume(0, buffer_bytes=300_000)
        await library.settled()
        library.check(peer, 0, ALL)
        assert library.asked == [(0, HISTORY_ENTRIES)]

    with_library(check, ring=10)
