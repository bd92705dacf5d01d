"""`sqlite:` when something is wrong: with the file, with the disk, with a thread. And how the file stays small."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server.relay.protocol import RelayUnavailable, Retention
from server.relay.sqlite import SqliteRelay
from server.relay.sqlite_reader import LogReader
from server.relay.sqlite_writer import LogWriter, Tidied
from tests.server.relay.bench import UNBOUNDED, Clock, Delivered, event, key, never_turned, run, started, until


@pytest.fixture(autouse=True)
def no_threads_stay() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def make(path: Path, clock: Clock | None = None) -> SqliteRelay:
    return SqliteRelay(str(path), "NORMAL", 120, 100, clock or Clock())


def size_of(path: Path) -> int:
    return path.stat().st_size


def reason_not_to_start(path: Path) -> str:
    async def main() -> str:
        with pytest.raises(RelayUnavailable) as refused:
            await make(path).start(Delivered(), never_turned)
        return refused.value.reason

    return run(main())


# --- files that are refused ---


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.write_text("a letter to a friend\n" * 100)
    assert reason_not_to_start(path) == f"{path}: the file is not an SQLite database"
    assert path.read_text() == "a letter to a friend\n" * 100


def test_the_database_of_another_program_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE letters (text)")
    connection.close()
    before = path.read_bytes()
    assert reason_not_to_start(path) == f"{path}: the database of another program"
    assert path.read_bytes() == before


def test_a_log_of_another_version_is_refused(path: Path) -> None:
    async def create() -> None:
        relay = make(path)
        await started(relay)
        await relay.close()

    run(create())
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    assert "written by another version" in reason_not_to_start(path)


def test_a_folder_that_is_not_there_is_said(folder: Path) -> None:
    path = folder / "missing" / "log.db"
    assert reason_not_to_start(path) == f"{path}: no such file or directory"


def test_two_servers_cannot_share_a_file(path: Path) -> None:
    async def main() -> None:
        relay = make(path)
        await started(relay)
        other = path.with_name("other.db")
        os.symlink(path, other)
        for name in (path, other):
            with pytest.raises(RelayUnavailable, match="in use by another server"):
                await make(name).start(Delivered(), never_turned)
        await relay.close()
        again = make(path)
        await started(again)
        await again.close()

    run(main())


def test_a_file_that_another_process_has_locked_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.relay.sqlite_file.BUSY_SECONDS", 0.05)
    locker = sqlite3.connect(path, isolation_level=None)
    locker.execute("CREATE TABLE t (x)")
    locker.execute("BEGIN EXCLUSIVE")
    assert reason_not_to_start(path) == f"{path}: the log is locked by another process"
    locker.close()


# --- a disk that refuses ---


class SmallDisk:
    """A limit on the size of the database, which the test moves; None for no limit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pages: int | None = None
        for name in ("write", "tidy"):
            self._limit(monkeypatch, name)

    def _limit(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        original = getattr(LogWriter, name)

        def limited(writer: LogWriter, *arguments: object) -> object:
            writer._connection.execute(f"PRAGMA max_page_count = {self.pages or 1 << 30}")
            return original(writer, *arguments)

        monkeypatch.setattr(LogWriter, name, limited)


def test_a_full_disk_refuses_publishes_and_keeps_serving_reads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SmallDisk(monkeypatch)
    monkeypatch.setattr("server.relay.sqlite.TIDY_SECONDS", 0.02)

    async def main() -> None:
        relay = make(path)
        delivered = await started(relay)
        await relay.append("main", [event("before")], key("k"))
        disk.pages = 1
        answers = await asyncio.gather(
            *(relay.append("main", [event("x" * 50_000)], key(str(number))) for number in range(5)),
            return_exceptions=True,
        )
        assert [str(answer) for answer in answers] == ["the disk is full"] * 5
        assert {type(answer) for answer in answers} == {RelayUnavailable}
        assert relay.state()["ok"] is False
        assert relay.state()["reason"] == "the disk is full"
        assert delivered.data == ["before"]
        assert list(await relay.read("main", 0, 10)) == delivered.entries
        assert relay.mark("main") >= delivered.entries[0].position
        disk.pages = None

        async def works_again() -> bool:
            return relay.state()["ok"] is True

        await until(works_again)
        assert not (await relay.append("main", [event("after")], key("0"))).replayed
        assert delivered.data == ["before", "after"]
        assert list(await relay.read("main", 0, 10)) == delivered.entries
        assert relay.state()["events"] == 2
        await relay.close()

    with capture_logs() as logs:
        run(main())
    assert [line["event"] for line in logs] == ["log_refuses_events", "log_takes_events"]
    assert logs[0]["reason"] == "the disk is full"


def test_what_was_refused_is_not_there_after_a_restart(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SmallDisk(monkeypatch)

    async def main() -> list[str]:
        relay = make(path)
        await started(relay)
        await relay.append("main", [event("kept")], None)
        disk.pages = 1
        with pytest.raises(RelayUnavailable):
            await relay.append("main", [event("y"), event("x" * 50_000)], None)
        await relay.close()
        disk.pages = None
        again = make(path)
        await started(again)
        data = [entry.event.data for entry in await again.read("main", 0, 10)]
        await again.close()
        return data

    assert run(main()) == ["kept"]


# --- threads that die ---


def test_the_death_of_the_writer_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise SystemExit

    async def main() -> None:
        relay = make(path)
        delivered = await started(relay)
        await relay.append("main", [event("before")], None)
        monkeypatch.setattr(LogWriter, "write", die)
        answers = await asyncio.gather(
            *(relay.append("main", [event("x")], None) for _ in range(3)), return_exceptions=True
        )
        assert {type(answer) for answer in answers} == {RelayUnavailable}
        with pytest.raises(RelayUnavailable, match="stopped"):
            await relay.append("main", [event("x")], None)
        assert relay.state()["ok"] is False
        assert delivered.data == ["before"]
        assert list(await relay.read("main", 0, 10)) == delivered.entries
        await relay.close()

    with capture_logs() as logs:
        run(main())
    assert ("log_thread_died", "writing") in [(line["event"], line.get("purpose")) for line in logs]


def test_the_death_of_the_reader_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise SystemExit

    async def main() -> None:
        relay = make(path)
        await started(relay)
        await relay.append("main", [event("before")], None)
        monkeypatch.setattr(LogReader, "read", die)
        with pytest.raises(RelayUnavailable, match="stopped"):
            await relay.read("main", 0, 10)
        assert relay.state()["ok"] is False
        await relay.close()

    with capture_logs() as logs:
        run(main())
    assert ("log_thread_died", "reading") in [(line["event"], line.get("purpose")) for line in logs]


def test_a_disk_that_does_not_answer_is_not_ready(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.relay.sqlite.STALL_SECONDS", 0.05)
    answering = threading.Event()
    write = LogWriter.write

    def stalled(writer: LogWriter, *arguments: object) -> object:
        assert answering.wait(30)
        return write(writer, *arguments)  # type: ignore[arg-type]

    async def main() -> None:
        relay = make(path)
        await started(relay)
        monkeypatch.setattr(LogWriter, "write", stalled)
        flying = asyncio.create_task(relay.append("main", [event("x")], None))

        async def not_ready() -> bool:
            return relay.state().get("reason") == "the disk does not answer"

        await until(not_ready)
        answering.set()
        await flying
        assert relay.state()["ok"] is True
        await relay.close()

    run(main())


# --- the file's size ---


def test_the_file_shrinks_when_events_leave(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.relay.sqlite.TIDY_SECONDS", 0.02)

    async def main() -> None:
        clock = Clock()
        relay = make(path, clock)
        await started(relay, retention=Retention(events=0, bytes=0, seconds=60))
        for _ in range(10):
            await relay.append("main", [event("x" * 5000) for _ in range(200)], None)
        clock.now += 61

        async def small() -> bool:
            return relay.state()["events"] == 0 and size_of(path) < 2_000_000

        assert size_of(path) + size_of(path.with_name("log.db-wal")) > 8_000_000
        await until(small)
        await relay.close()

    run(main())


def test_a_log_that_drops_as_much_as_it_takes_stays_of_one_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.relay.sqlite.TIDY_SECONDS", 0.02)
    monkeypatch.setattr("server.relay.sqlite_checkpoints.CHECKPOINT_BYTES", 1 << 18)

    async def main() -> None:
        relay = make(path)
        await started(relay, retention=Retention(events=0, bytes=1_000_000, seconds=0))
        for _ in range(300):
            await relay.append("main", [event("x" * 4000) for _ in range(10)], key("k"))
            await relay.append("main", [event("y" * 4000) for _ in range(10)], None)
        state = relay.state()
        assert 900_000 < int(str(state["bytes"])) < 1_050_000
        await relay.close()
        assert size_of(path) < 3_000_000

    run(main())


def no_checkpoints_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.relay.sqlite_checkpoints.Checkpoints.tick", lambda checkpoints: None)


def test_the_writer_empties_a_write_ahead_log_that_grows_too_far(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_checkpoints_beside(monkeypatch)
    monkeypatch.setattr("server.relay.sqlite.TIDY_SECONDS", 60)
    monkeypatch.setattr("server.relay.sqlite_wal.WAL_MOST_BYTES", 2_000_000)
    monkeypatch.setattr("server.relay.sqlite_wal._LOOK_BYTES", 200_000)

    async def main() -> None:
        relay = make(path)
        delivered = await started(relay, retention=Retention(events=0, bytes=500_000, seconds=0))
        largest = 0
        for _ in range(100):
            await relay.append("main", [event("x" * 1000) for _ in range(100)], None)
            largest = max(largest, size_of(path.with_name("log.db-wal")))
        assert 2_000_000 < largest < 3_000_000
        assert size_of(path) < 3_000_000
        entries = await relay.read("main", relay.floor("main"), 1000)
        assert list(entries) == delivered.entries[-len(entries) :]
        await relay.close()

    run(main())


def test_a_large_write_ahead_log_is_emptied_at_rest(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.relay.sqlite.TIDY_SECONDS", 1.0)
    monkeypatch.setattr("server.relay.sqlite_wal.WAL_REST_BYTES", 500_000)

    async def main() -> None:
        relay = make(path)
        delivered = await started(relay)

        async def emptied() -> bool:
            return relay.state()["wal_bytes"] == 0

        await relay.append("main", [event("x" * 20_000) for _ in range(50)], None)
        assert not await emptied()
        await until(emptied)
        assert list(await relay.read("main", 0, 100)) == delivered.entries
        await relay.append("main", [event("y")], None)
        await until(lambda: relay.read("main", delivered.entries[49].position, 1))
        assert not await emptied()
        await relay.close()

    run(main())


def test_a_log_that_somebody_reads_for_long_grows_and_is_emptied_afterwards(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.relay.sqlite.TIDY_SECONDS", 0.02)
    monkeypatch.setattr("server.relay.sqlite_wal.WAL_MOST_BYTES", 1_000_000)
    monkeypatch.setattr("server.relay.sqlite_wal.WAL_REST_BYTES", 500_000)
    monkeypatch.setattr("server.relay.sqlite_wal._LOOK_BYTES", 100_000)
    monkeypatch.setattr("server.relay.sqlite_wal._READ_SECONDS", 0.02)

    async def main() -> None:
        relay = make(path)
        await started(relay)
        reading = sqlite3.connect(path, isolation_level=None)
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM events").fetchone()
        for _ in range(30):
            await relay.append("main", [event("x" * 10_000) for _ in range(10)], None)
        assert size_of(path.with_name("log.db-wal")) > 3_000_000
        reading.close()

        async def emptied() -> bool:
            return relay.state()["wal_bytes"] == 0

        await until(emptied)
        assert relay.state()["ok"] is True
        assert size_of(path) > 3_000_000
        await relay.close()

    run(main())


def test_a_log_opened_with_less_retention_shrinks_step_by_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.relay.sqlite.TIDY_SECONDS", 0.02)

    async def main() -> None:
        relay = make(path)
        delivered = await started(relay)
        for _ in range(3):
            await relay.append("main", [event("x") for _ in range(1000)], None)
        await relay.open("main", Retention(events=10, bytes=0, seconds=0), 0)

        async def trimmed() -> bool:
            # The counts move before the commit; what is read, with it.
            return relay.state()["events"] == 10 and len(await relay.read("main", 0, 100)) == 10

        await until(trimmed)
        assert list(await relay.read("main", 0, 100)) == delivered.entries[-10:]
        assert relay.floor("main") == delivered.entries[-11].position
        await relay.close()

    run(main())


def test_expired_keys_leave_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.relay.sqlite.TIDY_SECONDS", 0.02)
    tidied: list[Tidied] = []
    tidy = LogWriter.tidy

    def watched(writer: LogWriter, probing: bool) -> Tidied:
        tidied.append(tidy(writer, probing))
        return tidied[-1]

    monkeypatch.setattr(LogWriter, "tidy", watched)

    async def main() -> None:
        clock = Clock()
        relay = make(path, clock)
        await started(relay, retention=UNBOUNDED)
        for number in range(50):
            await relay.append("main", [event("x")], key(str(number)))
        clock.now += 121

        async def wrote() -> bool:
            return any(step.wrote for step in tidied)

        await until(wrote)
        await relay.close()

    run(main())
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM keys").fetchone() == (0,)
    connection.close()
