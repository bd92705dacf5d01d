"""`sqlite:` as a log that outlives its process: what a restart finds, how appends share commits, what reads see."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs

from server.ids import format_id
from server.relay.positions import LEASE_US
from server.relay.protocol import Appended, KeyConflict, RelayUnavailable, Retention
from server.relay.sqlite import SqliteRelay
from server.relay.sqlite_log import StoredLog
from server.relay.sqlite_writer import LogWriter, Outcome, Write
from tests.server.relay.bench import START, UNBOUNDED, Clock, Delivered, event, key, never_turned, run, started, until

START_US = int(START * 1e6)


def make(path: Path, clock: Clock | None = None, synchronous: str = "NORMAL") -> SqliteRelay:
    return SqliteRelay(str(path), synchronous, 120, 100, clock or Clock())


class Gate:
    """Holds the writer's thread before each transaction until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self.calls = 0
        write = LogWriter.write

        def held(writer: LogWriter, writes: Sequence[Write], ceilings: Mapping[StoredLog, int]) -> list[Outcome]:
            self.calls += 1
            assert self.opened.wait(30)
            return write(writer, writes, ceilings)

        monkeypatch.setattr(LogWriter, "write", held)

    async def reached(self) -> None:
        await until(lambda: self.calls)


# --- restarts ---


def test_a_log_is_the_same_after_a_restart(path: Path) -> None:
    async def first() -> tuple[str, Delivered, Appended]:
        relay = make(path)
        delivered = Delivered()
        await relay.start(delivered, never_turned)
        epoch = (await relay.open("main", Retention(5, 0, 0), 0)).epoch
        for number in range(7):
            await relay.append("main", [event(str(number), "mine" if number == 6 else None)], None)
        keyed = await relay.append("main", [event("keyed"), event("too", "mine")], key("k"))
        await relay.close()
        return epoch, delivered, keyed

    async def second(epoch: str, before: Delivered, keyed: Appended) -> None:
        relay = make(path)
        delivered = Delivered()
        await relay.start(delivered, never_turned)
        state = await relay.open("main", Retention(5, 0, 0), 3)
        assert state.epoch == epoch
        assert state.floor == relay.floor("main") == before.entries[3].position
        assert state.recent == before.entries[-3:]
        assert list(await relay.read("main", 0, 100)) == before.entries[-5:]
        assert list(await relay.find("main", "mine")) == [before.entries[6], before.entries[8]]
        assert await relay.append("main", [event("keyed"), event("too", "mine")], key("k")) == Appended(keyed.ids, True)
        with pytest.raises(KeyConflict):
            await relay.append("main", [event("other")], key("k", b"2"))
        assert delivered.entries == []
        await relay.close()

    run(second(*run(first())))


def test_positions_stay_above_every_cursor_though_the_clock_is_set_back(path: Path) -> None:
    async def first() -> int:
        clock = Clock()
        relay = make(path, clock)
        await started(relay)
        clock.now += 3
        mark = relay.mark("main")
        assert mark == START_US + 3_000_000
        await relay.close()
        return mark

    async def second(mark: int) -> None:
        relay = make(path, Clock(START - 86_400))
        delivered = await started(relay)
        assert relay.mark("main") >= mark
        await relay.append("main", [event("x")], None)
        assert delivered.entries[0].position > mark
        await relay.close()

    run(second(run(first())))


def test_a_clean_stop_leaves_no_positions_ahead_of_the_clock(path: Path) -> None:
    async def once(now: float) -> int:
        relay = make(path, Clock(now))
        await started(relay)
        mark = relay.mark("main")
        await relay.close()
        return mark

    assert run(once(START)) == START_US
    assert run(once(START + 1)) == START_US + 1_000_000


def test_a_mark_waits_for_its_lease_and_never_blocks(path: Path) -> None:
    async def main() -> None:
        clock = Clock()
        relay = make(path, clock)
        await started(relay)
        clock.now += 60
        assert relay.mark("main") == START_US + LEASE_US
        await until(lambda: relay.mark("main") == START_US + 60_000_000)
        await relay.close()

    run(main())


def test_a_crash_of_the_machine_begins_a_new_epoch_unless_every_commit_was_synced(path: Path) -> None:
    async def epoch(synchronous: str) -> str:
        relay = make(path, synchronous=synchronous)
        await relay.start(Delivered(), never_turned)
        found = (await relay.open("main", UNBOUNDED, 0)).epoch
        await relay.close()
        return found

    def crash(synchronous: str) -> None:
        with sqlite3.connect(path) as connection:
            facts = {"open": 1, "boot": "an earlier one", "synchronous": synchronous}
            connection.executemany("REPLACE INTO facts VALUES (?, ?)", facts.items())
        connection.close()

    first = run(epoch("FULL"))
    crash("FULL")
    assert run(epoch("NORMAL")) == first
    crash("NORMAL")
    second = run(epoch("NORMAL"))
    assert second != first
    assert run(epoch("NORMAL")) == second


def test_files_are_for_their_owner_alone(path: Path) -> None:
    async def main() -> None:
        relay = make(path)
        await started(relay)
        await relay.append("main", [event("x")], None)
        for name in os.listdir(path.parent):
            assert stat.S_IMODE((path.parent / name).stat().st_mode) == 0o600, name
        await relay.close()

    run(main())


# --- transactions ---


def test_appends_of_one_turn_and_of_one_commit_share_transactions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)

    async def main() -> None:
        relay = make(path)
        delivered = await started(relay)
        appends = [asyncio.create_task(relay.append("main", [event(f"first {number}")], None)) for number in range(10)]
        await gate.reached()
        appends += [asyncio.create_task(relay.append("main", [event(f"then {number}")], None)) for number in range(30)]
        await until(lambda: relay.state()["waiting_events"] == 30)
        gate.opened.set()
        await asyncio.gather(*appends)
        assert gate.calls == relay.state()["transactions"] == 2
        assert delivered.data == [f"first {number}" for number in range(10)] + [
            f"then {number}" for number in range(30)
        ]
        await relay.close()

    run(main())


def test_an_append_that_cannot_be_written_fails_alone(path: Path) -> None:
    async def main() -> None:
        relay = make(path)
        delivered = await started(relay)
        bad = key("bad", cast(bytes, object()))
        answers = await asyncio.gather(
            relay.append("main", [event("a")], None),
            relay.append("main", [event("b"), event("c")], bad),
            relay.append("main", [event("d")], key("k")),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [Appended, sqlite3.ProgrammingError, Appended]
        assert delivered.data == ["a", "d"]
        assert list(await relay.read("main", 0, 10)) == delivered.entries
        assert relay.state()["events"] == 2
        assert relay.state()["ok"]
        await relay.close()

    run(main())


def test_close_finishes_what_is_in_flight(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)

    async def main() -> list[str]:
        relay = make(path)
        delivered = await started(relay)
        appends = [asyncio.create_task(relay.append("main", [event("flying")], None))]
        await gate.reached()
        appends.append(asyncio.create_task(relay.append("main", [event("waiting")], None)))
        await until(lambda: relay.state()["waiting_events"] == 1)
        closing = asyncio.create_task(relay.close())
        await until(lambda: not relay.state()["ok"])
        gate.opened.set()
        await closing
        for append in appends:
            assert not (await append).replayed
        return delivered.data

    assert run(main()) == ["flying", "waiting"]


def test_a_publisher_that_goes_away_leaves_its_events(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)

    async def main() -> None:
        relay = make(path)
        delivered = await started(relay)
        flying = asyncio.create_task(relay.append("main", [event("flying")], None))
        await gate.reached()
        gone = asyncio.create_task(relay.append("main", [event("gone")], None))
        await until(lambda: relay.state()["waiting_events"] == 1)
        flying.cancel()
        gone.cancel()
        gate.opened.set()
        await relay.append("main", [event("here")], None)
        assert delivered.data == ["flying", "gone", "here"]
        await relay.close()

    run(main())


def test_too_many_waiting_publishes_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    monkeypatch.setattr("server.relay.waiting.MAX_WAITING_EVENTS", 10)

    async def main() -> None:
        relay = make(path)
        delivered = await started(relay)
        flying = asyncio.create_task(relay.append("main", [event("flying")], None))
        await gate.reached()
        waiting = [asyncio.create_task(relay.append("main", [event("x")], None)) for _ in range(10)]
        await until(lambda: relay.state()["waiting_events"] == 10)
        with pytest.raises(RelayUnavailable, match="too many publishes are waiting"):
            await relay.append("main", [event("one more")], None)
        gate.opened.set()
        await asyncio.gather(flying, *waiting)
        await relay.append("main", [event("again")], None)
        assert len(delivered.entries) == 12
        assert relay.state()["waiting_events"] == relay.state()["waiting_bytes"] == 0
        await relay.close()

    run(main())


def test_a_delivery_that_fails_does_not_fail_the_publish(path: Path) -> None:
    async def main() -> None:
        relay = make(path)

        def broken(channel: str, entries: object) -> None:
            raise ValueError("broken")

        await relay.start(broken, never_turned)
        await relay.open("main", UNBOUNDED, 0)
        assert (await relay.append("main", [event("x")], None)).ids
        await relay.close()

    with capture_logs() as logs:
        run(main())
    assert [line["event"] for line in logs] == ["delivery_failed"]


# --- reading ---


def test_a_replay_goes_on_while_a_transaction_is_held_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        relay = make(path)
        delivered = await started(relay)
        await relay.append("main", [event("x")], None)
        with monkeypatch.context() as patch:
            gate = Gate(patch)
            flying = asyncio.create_task(relay.append("main", [event("y")], None))
            await gate.reached()
            assert list(await relay.read("main", 0, 10)) == delivered.entries
            gate.opened.set()
            await flying
        await relay.close()

    run(main())


def test_nothing_is_read_before_it_is_delivered(path: Path) -> None:
    async def main() -> None:
        relay = make(path)
        delivered = await started(relay)
        done = False

        async def publish() -> None:
            nonlocal done
            for number in range(200):
                await relay.append("main", [event(str(number), "mine")], None)
            done = True

        publishing = asyncio.create_task(publish())
        while not done:
            entries = await relay.read("main", 0, 1000)
            assert list(entries) == delivered.entries[: len(entries)]
            found = await relay.find("main", "mine")
            assert list(found) == delivered.entries[: len(found)]
        await publishing
        await relay.close()

    run(main())


def test_a_slice_of_large_events_is_bounded_by_bytes(path: Path) -> None:
    async def main() -> None:
        relay = make(path)
        delivered = await started(relay)
        for _ in range(6):
            await relay.append("main", [event("x" * 400_000)], None)
        assert list(await relay.read("main", 0, 100)) == delivered.entries[:2]
        assert list(await relay.read("main", delivered.entries[1].position, 1)) == delivered.entries[2:3]
        await relay.append("main", [event("y" * 2_000_000)], None)
        assert list(await relay.read("main", delivered.entries[5].position, 100)) == delivered.entries[6:]
        await relay.close()

    run(main())


@pytest.mark.parametrize(("bound", "asked"), [(1_000, 0), (1_000, 2_000), (1 << 20, 1_000)])
def test_what_is_left_out_of_the_newest_entries_is_below_the_floor(
    path: Path, monkeypatch: pytest.MonkeyPatch, bound: int, asked: int
) -> None:
    monkeypatch.setattr("server.relay.sqlite_reader.RECENT_BYTES", bound)

    async def main() -> None:
        relay = make(path)
        delivered = await started(relay)
        for _ in range(10):
            await relay.append("main", [event("x" * 300)], None)
        state = await relay.open("main", UNBOUNDED, 100, asked)
        assert 0 < len(state.recent) < 4
        assert state.recent == delivered.entries[-len(state.recent) :]
        assert state.floor == state.recent[0].position - 1
        assert relay.floor("main") == 0
        await relay.close()

    run(main())


def test_data_of_any_characters_comes_back_as_it_was(path: Path) -> None:
    texts = [
        "",
        "\x00",
        'a"b\\c',
        "\x1f\x7f\x85\u2028\u2029",
        "\U0001f600 ü",
        "\ufeff",
        "a\r\nb\rc\n",
        "{}[]'",
        "\ufffd\uffff",
    ]

    async def main() -> None:
        relay = make(path)
        delivered = await started(relay)
        await relay.append("main", [event(text) for text in texts], None)
        assert [entry.event.data for entry in await relay.read("main", 0, 100)] == texts
        assert list(await relay.read("main", 0, 100)) == delivered.entries
        await relay.close()

    run(main())


def write_some(path: Path, texts: Sequence[str]) -> list[int]:
    """A closed log with these events; their positions."""

    async def main() -> list[int]:
        relay = make(path)
        delivered = await started(relay)
        for text in texts:
            await relay.append("main", [event(text, "mine")], None)
        await relay.close()
        return [entry.position for entry in delivered.entries]

    return run(main())


def damage(path: Path, text: bytes, by: Callable[[bytes], bytes]) -> None:
    whole = path.read_bytes()
    assert whole.count(text) == 1
    path.write_bytes(whole.replace(text, by(text)))


@pytest.mark.parametrize(
    "flip", [lambda text: b"?" + text[1:], lambda text: b"\xff" + text[1:], lambda text: b'"' + text[1:]]
)
def test_a_damaged_row_is_a_gap_and_not_a_lie(path: Path, flip: Callable[[bytes], bytes]) -> None:
    positions = write_some(path, ["one", "two", "a telling text", "four", "five"])
    damage(path, b"a telling text", flip)

    async def main() -> None:
        relay = make(path)
        await relay.start(Delivered(), never_turned)
        state = await relay.open("main", UNBOUNDED, 0)
        assert state.floor == 0
        assert [entry.event.data for entry in await relay.read("main", 0, 100)] == ["one", "two"]
        assert relay.floor("main") == 0
        assert [entry.event.data for entry in await relay.read("main", positions[1], 100)] == ["four", "five"]
        assert relay.floor("main") == positions[2]
        assert [entry.event.data for entry in await relay.find("main", "mine")] == ["one", "two", "four", "five"]
        state = await relay.open("main", UNBOUNDED, 5)
        assert [entry.event.data for entry in state.recent] == ["four", "five"]
        await relay.close()

    with capture_logs() as logs:
        run(main())
    assert {(line["event"], line["position"]) for line in logs} == {("row_damaged", positions[2])}


def test_ids_are_the_epoch_and_the_position(path: Path) -> None:
    async def main() -> None:
        relay = make(path)
        delivered = Delivered()
        await relay.start(delivered, never_turned)
        epoch = (await relay.open("main", UNBOUNDED, 0)).epoch
        appended = await relay.append("main", [event("x")], None)
        assert appended.ids == (format_id(epoch, delivered.entries[0].position),)
        await relay.close()

    run(main())


@pytest.mark.parametrize("how", ["backup", "vacuum"])
def test_a_copy_made_while_the_log_is_in_use_is_a_log(path: Path, how: str) -> None:
    copy = path.with_name("copy.db")

    def back_up() -> None:
        source = sqlite3.connect(path)
        if how == "backup":
            target = sqlite3.connect(copy)
            source.backup(target)
            target.close()
        else:
            source.execute("VACUUM INTO ?", (str(copy),))
        source.close()

    async def main() -> None:
        relay = make(path)
        delivered = await started(relay)
        await relay.append("main", [event("before")], None)
        back_up()
        await relay.append("main", [event("after")], None)
        await relay.close()
        with sqlite3.connect(copy) as connection:
            connection.execute("UPDATE channels SET epoch = lower(hex(randomblob(3)))")
        connection.close()
        restored = make(copy)
        await restored.start(Delivered(), never_turned)
        state = await restored.open("main", UNBOUNDED, 10)
        assert [entry.event.data for entry in state.recent] == ["before"]
        assert state.recent[0].id == format_id(state.epoch, delivered.entries[0].position)
        assert state.recent[0].id != delivered.entries[0].id
        await restored.append("main", [event("again")], None)
        await restored.close()
        connection = sqlite3.connect(copy)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        connection.close()

    run(main())
