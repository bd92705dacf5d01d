"""History: a page is read once for all who want it, stays until they have it, and no more are kept than fit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import structlog

from server.admission import Holder
from server.feed import Feed
from server.frames import Encoding
from server.history import READS_AT_A_TIME, History, Place
from server.reader import Reader
from server.relay.protocol import Entry, RelayUnavailable, Stretch
from server.replay import Replay
from server.selection import Selection
from server.shards import Shards
from tests.server.engine import EPOCH, channel, entry, run, turns

MAIN = "main"


class Desk:
    """A history whose reads wait for `gate`, and what became of those who asked."""

    def __init__(self) -> None:
        self.feed: Feed = channel().enter(Selection(), Encoding.PLAIN)
        self.reads: list[int] = []
        self.most_at_once = self.at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.woken: list[Reader] = []
        self.failed: list[Reader] = []
        self.history = History(self.read, self.woken.append, self.failed.append)

    async def read(self, _channel: str, position: int, _limit: int, _shards: Shards) -> Stretch:
        self.reads.append(position)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.gate.wait()
        self.at_once -= 1
        if self.failure is not None:
            raise self.failure
        return Stretch([entry(position + 1, str(position))], position + 1)

    def reader(self, position: int) -> Reader:
        reader = Reader(5, self.feed, Holder(""), None)
        reader.replay = Replay(position, 0, None)
        return reader

    def ask(self, reader: Reader) -> list[Entry] | None:
        assert reader.replay is not None
        return self.history.page(reader, Place(MAIN, EPOCH, reader.replay.position))


def with_desk(doing: Callable[[Desk], Awaitable[None]]) -> None:
    async def main() -> None:
        await doing(Desk())

    run(main)


def test_a_page_is_read_once_for_all_who_ask_for_it() -> None:
    async def check(desk: Desk) -> None:
        readers = [desk.reader(10) for _ in range(5)]
        assert [desk.ask(reader) for reader in readers] == [None] * 5
        await turns()
        assert (desk.reads, desk.woken) == ([10], readers)
        assert [desk.ask(reader) for reader in readers] == [[entry(11, "10")]] * 5
        assert desk.ask(desk.reader(10)) == [entry(11, "10")]
        assert desk.reads == [10]

    with_desk(check)


def test_only_so_many_pages_are_read_at_a_time() -> None:
    async def check(desk: Desk) -> None:
        desk.gate.clear()
        for position in range(10):
            desk.ask(desk.reader(position))
        await turns()
        assert desk.reads == list(range(READS_AT_A_TIME))
        desk.gate.set()
        await turns(40)
        assert desk.reads == list(range(10))
        assert desk.most_at_once == READS_AT_A_TIME

    with_desk(check)


def test_a_page_stays_until_those_who_waited_for_it_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.history.HISTORY_PAGES", 2)

    async def check(desk: Desk) -> None:
        readers = [desk.reader(position) for position in range(6)]
        for reader in readers:
            desk.ask(reader)
        await turns(20)
        assert desk.woken == readers[:2]
        served = 0
        while served < 6:
            for reader in desk.woken[served:]:
                assert desk.ask(reader) is not None
                served += 1
            await turns(20)
            assert desk.history.pages <= 3
        assert sorted(desk.reads) == list(range(6))

    with_desk(check)


def be_found_gone(desk: Desk, reader: Reader) -> None:
    reader.fd, reader.replay = -1, None
    desk.history.forget()


def say_goodbye(desk: Desk, reader: Reader) -> None:
    desk.history.left(reader)


@pytest.mark.parametrize("leave", [be_found_gone, say_goodbye])
def test_who_leaves_while_its_page_waits_for_it_lets_the_next_be_read(
    leave: Callable[[Desk, Reader], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.history.HISTORY_PAGES", 1)

    async def check(desk: Desk) -> None:
        gone, other = desk.reader(1), desk.reader(2)
        desk.ask(gone)
        desk.ask(other)
        await turns(20)
        assert desk.woken == [gone]
        leave(desk, gone)
        await turns(20)
        assert desk.woken == [gone, other]
        assert desk.ask(other) is not None

    with_desk(check)


def test_a_reader_that_left_before_its_page_came_is_not_woken() -> None:
    async def check(desk: Desk) -> None:
        desk.gate.clear()
        gone = desk.reader(1)
        desk.ask(gone)
        await turns()
        gone.fd, gone.replay = -1, None
        desk.gate.set()
        await turns()
        assert desk.woken == []

    with_desk(check)


def test_a_crowd_that_has_left_before_its_turn_is_read_nothing_for() -> None:
    async def check(desk: Desk) -> None:
        desk.gate.clear()
        crowd = [desk.reader(position) for position in range(100)]
        for reader in crowd:
            desk.ask(reader)
        for reader in crowd:
            reader.fd, reader.replay = -1, None
        stays = desk.reader(1000)
        desk.ask(stays)
        desk.gate.set()
        await turns(20)
        assert desk.reads == [*range(READS_AT_A_TIME), 1000]
        assert desk.woken == [stays]
        desk.ask(desk.reader(50))
        await turns(20)
        assert desk.reads[-1] == 50

    with_desk(check)


def test_the_rest_of_a_page_that_was_not_used_up_is_not_read_again() -> None:
    async def check(desk: Desk) -> None:
        entries = Stretch([entry(position) for position in range(1, 6)], 5)
        desk.history.keep_rest(Place(MAIN, EPOCH, 0), entries, 3)
        assert desk.ask(desk.reader(3)) == entries[3:]
        desk.history.keep_rest(Place(MAIN, EPOCH, 0), entries, 5)
        assert desk.ask(desk.reader(5)) is None
        await turns()
        assert desk.reads == [5]

    with_desk(check)


@pytest.mark.parametrize("failure", [RelayUnavailable("no disk"), RuntimeError("a defect")])
def test_readers_whose_page_cannot_be_read_are_given_up_and_the_page_is_asked_for_again(failure: Exception) -> None:
    async def check(desk: Desk) -> None:
        desk.failure = failure
        reader, other = desk.reader(1), desk.reader(1)
        with structlog.testing.capture_logs() as lines:
            desk.ask(reader)
            desk.ask(other)
            await turns()
        assert desk.failed == [reader, other]
        assert [line["event"] for line in lines] == ["history_not_read"]
        desk.failure = None
        desk.ask(desk.reader(1))
        await turns()
        assert desk.reads == [1, 1]
        assert len(desk.woken) == 1

    with_desk(check)


def test_what_nobody_waits_for_is_forgotten() -> None:
    async def check(desk: Desk) -> None:
        reader = desk.reader(1)
        desk.ask(reader)
        await turns()
        desk.history.forget()
        assert desk.history.pages == 1  # somebody was woken for it
        desk.ask(reader)
        desk.history.forget()
        assert desk.history.pages == 0

    with_desk(check)
