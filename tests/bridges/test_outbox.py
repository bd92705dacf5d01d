"""The outbox over SQLite and PostgreSQL: a change and its event cannot part, and an event enters once and in order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import func, select

from bridges.database import Database, DatabaseUnavailable
from bridges.outbox import Outbox, outbox
from server.event import Event
from server.relay.protocol import Appended, RelayUnavailable
from tests.faults.checker import History, Seen
from tests.harness.databases import DATABASES, new_database
from tests.harness.postgres import PostgresServer
from tests.harness.process import ROOT
from tests.server.relay.bench import run


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The setting of an empty database."""
    return new_database(request, request.param, tmp_path)


class Channelled:
    """A hub that notes what is published, once for each key, and fails when told to."""

    def __init__(self) -> None:
        self.data: list[str] = []
        self.events: list[Event] = []
        self.keys: dict[str, int] = {}
        self.failing = 0

    async def open(self, name: str) -> str:
        return name

    def publish(self, channel: str, events: Sequence[Event], key: Any) -> Awaitable[Appended]:
        return self._publish(channel, events, key)

    async def _publish(self, channel: str, events: Sequence[Event], key: Any) -> Appended:
        await asyncio.sleep(0)
        if self.failing:
            self.failing -= 1
            raise RelayUnavailable("no log")
        replayed = key.key in self.keys
        self.keys[key.key] = self.keys.get(key.key, 0) + 1
        if not replayed:
            self.data += [f"{channel} {event.data}" for event in events]
            self.events += events
        return Appended(tuple("x" for _ in events), replayed)


@asynccontextmanager
async def running(database: str, *nodes: str) -> AsyncIterator[tuple[Database, Channelled, list[Outbox]]]:
    """Outboxes of several nodes over one database and one log."""
    shared = Database(database)
    hub: Any = Channelled()
    with structlog.testing.capture_logs():
        await shared.start()
        several = [Outbox(shared, hub, node) for node in nodes or ("one",)]
        tasks = [asyncio.create_task(one.run()) for one in several]
        try:
            yield shared, hub, several
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for one in several:
                await one.stop()
            await shared.stop()


async def put(shared: Database, one: Outbox, *texts: str, channel: str = "main") -> None:
    async with shared.writing() as connection:
        await one.put(connection, channel, [Event(("t",), text) for text in texts])
    one.wake()


async def _put_and_fail(shared: Database, one: Outbox) -> None:
    async with shared.writing() as connection:
        await one.put(connection, "main", [Event(("t",), "never")])
        raise ZeroDivisionError


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is what another task has done
            await asyncio.sleep(0.005)


async def rows(shared: Database) -> int:
    async with shared.reading() as connection:
        return (await connection.execute(select(func.count()).select_from(outbox))).scalar() or 0


def test_what_is_committed_is_appended_in_order_and_then_gone(database: str) -> None:
    async def main() -> None:
        async with running(database) as (shared, hub, (one,)):
            for number in range(30):
                await put(shared, one, f"{number}a", f"{number}b")
            await until(lambda: len(hub.data) == 60)
            assert hub.data == [f"main {number}{letter}" for number in range(30) for letter in "ab"]
            await until(lambda: one.appended == 60)
            assert await rows(shared) == 0

    run(main())


def test_an_event_comes_out_as_it_went_in(database: str) -> None:
    events = [
        Event(("a", "b"), "x\n\x00/\u2028é", "t", "mine", 7, True, (0.1 + 0.2, -179.99999999999997)),
        Event(location=(-90, 0)),
        Event(("a",), "x"),
    ]

    async def main() -> None:
        async with running(database) as (shared, hub, (one,)):
            async with shared.writing() as connection:
                await one.put(connection, "main", events)
            one.wake()
            await until(lambda: hub.events == events)

    run(main())


def test_what_is_undone_was_never_said(database: str) -> None:
    async def main() -> None:
        async with running(database) as (shared, hub, (one,)):
            with pytest.raises(ZeroDivisionError):
                await _put_and_fail(shared, one)
            await put(shared, one, "said")
            await until(lambda: hub.data)
            assert hub.data == ["main said"]

    run(main())


def test_each_channel_keeps_its_order_and_a_batch_holds_one_channel(database: str) -> None:
    async def main() -> None:
        async with running(database) as (shared, hub, (one,)):
            async with shared.writing() as connection:
                for number in range(20):
                    await one.put(connection, "ab"[number // 3 % 2], [Event(("t",), str(number))])
            one.wake()
            await until(lambda: len(hub.data) == 20)
            assert hub.data == [f"{'ab'[number // 3 % 2]} {number}" for number in range(20)]

    run(main())


def test_a_log_that_is_away_delays_and_loses_nothing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridges.outbox.RETRY_SECONDS", 0.05)

    async def main() -> None:
        async with running(database) as (shared, hub, (one,)):
            hub.failing = 1_000
            await put(shared, one, "first")
            await put(shared, one, "second")
            await until(lambda: one.state == "no log" and one.failures >= 3)
            refused, hub.failing = 1_000 - hub.failing, 0
            await until(lambda: len(hub.data) == 2)
            assert hub.data == ["main first", "main second"]
            await until(lambda: one.state == "ok")
            assert one.failures == refused

    run(main())


def test_a_batch_that_was_appended_and_not_deleted_is_the_same_batch_again(database: str) -> None:
    """As after kill -9 between the two: the next that looks repeats it under its key, whatever has been added since."""

    async def main() -> None:
        shared = Database(database)
        await shared.start()
        hub: Any = Channelled()
        dying = Outbox(shared, hub, "dying")
        for text in ("one", "two"):
            await put(shared, dying, text)
        batch = await dying._next()
        assert batch is not None
        await dying._append(batch)
        await put(shared, dying, "three")
        next_one = Outbox(shared, hub, "next")
        again = await next_one._next()
        assert again == batch
        await next_one._append(again)
        rest = await next_one._next()
        assert rest is not None
        await next_one._append(rest)
        assert await next_one._next() is None
        assert hub.data == ["main one", "main two", "main three"]
        assert hub.keys[batch.name] == 2
        await shared.stop()

    run(main())


def test_two_that_both_believe_it_their_turn_claim_the_same_batch(database: str) -> None:
    """As when the holder of the lease stood still for longer than it lasts."""

    async def main() -> None:
        databases = [Database(database) for _ in range(2)]
        hub: Any = Channelled()
        for each in databases:
            await each.start()
        first, other = (Outbox(each, hub, str(number)) for number, each in enumerate(databases))
        await put(databases[0], first, "a", "b")
        one, same = await asyncio.gather(first._next(), _retried(other))
        assert one is not None
        assert one == same
        for each in databases:
            await each.stop()

    run(main())


async def _retried(one: Outbox) -> object:
    """The next batch; SQLite may say once that another process was faster."""
    try:
        return await one._next()
    except DatabaseUnavailable:
        return await one._next()


def test_what_was_appended_is_not_appended_again_however_long_the_database_is_away(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the log has forgotten the batch's key by then."""
    monkeypatch.setattr("bridges.outbox.RETRY_SECONDS", 0.01)

    class Forgetful(Channelled):
        async def _publish(self, channel: str, events: Sequence[Event], key: Any) -> Appended:
            self.keys.clear()
            away.set()
            return await super()._publish(channel, events, key)

    class AwayAfterwards(Database):
        @asynccontextmanager
        async def writing(self) -> AsyncIterator[Any]:
            if away.is_set():
                raise DatabaseUnavailable("away")
            async with super().writing() as connection:
                yield connection

    away = asyncio.Event()

    async def main() -> None:
        shared = AwayAfterwards(database)
        await shared.start()
        hub: Any = Forgetful()
        one = Outbox(shared, hub, "one")
        await put(shared, one, "once")
        task = asyncio.create_task(one.run())
        await until(lambda: one.failures > 3)
        assert (one.state, one.appended) == ("away", 0)
        away.clear()
        await until(lambda: one.appended == 1)
        await put(shared, one, "then")
        await until(lambda: one.failures > 5 and hub.data[1:])
        away.clear()
        await until(lambda: one.appended == 2)
        assert hub.data == ["main once", "main then"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await shared.stop()

    run(main())


def test_of_several_nodes_one_appends_and_another_goes_on_when_it_leaves(database: str) -> None:
    async def main() -> None:
        shared = Database(database)
        await shared.start()
        hub: Any = Channelled()
        first, other = Outbox(shared, hub, "one"), Outbox(shared, hub, "two")
        tasks = [asyncio.create_task(first.run())]
        await put(shared, first, *map(str, range(50)))
        await until(lambda: first.appended == 50)
        tasks.append(asyncio.create_task(other.run()))
        await put(shared, other, "more")
        first.wake()
        await until(lambda: first.appended == 51)
        assert other.appended == 0
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        await first.stop()
        await put(shared, other, "and more")
        await until(lambda: other.appended == 1)
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        assert hub.data[-2:] == ["main more", "main and more"]
        await shared.stop()

    run(main())


def test_writers_at_the_same_time_wait_for_each_other(database: str) -> None:
    async def main() -> None:
        async with running(database) as (shared, hub, (one,)):
            await asyncio.gather(*[put(shared, one, str(number)) for number in range(100)])
            await until(lambda: len(hub.data) == 100)
            assert sorted(hub.data) == sorted(f"main {number}" for number in range(100))

    run(main())


def test_the_schema_is_brought_up_to_date_once_by_whoever_comes_first(database: str) -> None:
    """Nodes are processes, and may all start at the same moment."""
    script = f"from bridges.database import migrate, url_of; migrate(url_of({database!r}))"
    command = [sys.executable, "-c", script]
    several = [
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
        for _ in range(1 if database.startswith("sqlite") else 3)
    ]
    assert [one.communicate(timeout=30)[1] for one in several] == [b""] * len(several)

    async def main() -> None:
        again = Database(database)
        await again.start()
        assert await rows(again) == 0
        await again.stop()

    run(main())


def test_a_postgresql_that_is_away_is_an_error_in_words() -> None:
    async def main() -> None:
        gone = Database("postgresql://nobody@127.0.0.1:1/nothing")
        with pytest.raises(DatabaseUnavailable, match="does not answer"):
            await gone.start()
        await gone.stop()

    run(main())


@pytest.mark.fault
def test_a_postgresql_that_comes_back_is_used_again(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """What was committed is in the log once and in order, also what was on its way when the database died. What got no
    answer may have been committed."""
    monkeypatch.setattr("bridges.outbox.RETRY_SECONDS", 0.1)
    moments = random.Random(seed)
    server = PostgresServer().start()
    history = History()

    async def main() -> None:
        async with running(server.url("comes_back")) as (shared, hub, (one,)):
            writing = asyncio.create_task(_write(shared, one, history))
            enough = moments.randrange(5, 100)
            await until(lambda: len(hub.data) > enough)
            server.kill()
            await until(lambda: "unknown" in list(history.outcomes.values())[:-1])
            await until(lambda: one.state != "ok")
            await asyncio.sleep(moments.uniform(0, 1))  # for so long there is none
            await asyncio.to_thread(server.start)
            before = len(hub.data)
            await until(lambda: len(hub.data) > before + 20)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await put(shared, one, str(len(history.outcomes)))
            history.outcomes[len(history.outcomes)] = "ok"
            await until(lambda: hub.data[-1] == f"main {max(history.outcomes)}")
            numbers = [int(text.removeprefix("main ")) for text in hub.data]
            history.seen["log"] = [Seen(number, f"{place:014}") for place, number in enumerate(numbers)]

    try:
        run(main())
    finally:
        server.stop()
    assert history.problems() == []


async def _write(shared: Database, one: Outbox, history: History) -> None:
    """Commit one number after the other, and write down what became of each."""
    for number in itertools.count():
        history.outcomes[number] = "unknown"
        with contextlib.suppress(DatabaseUnavailable):
            await put(shared, one, str(number))
            history.outcomes[number] = "ok"
        await asyncio.sleep(0.002)


def test_kill_nine_after_the_commit_leaves_the_event_to_the_next(tmp_path: Path) -> None:
    """The process dies with the row written and nothing appended."""
    script = (
        "import asyncio, sys\n"
        "from bridges.database import Database\n"
        "from bridges.outbox import Outbox\n"
        "from server.event import Event\n"
        "async def main():\n"
        "    shared = Database('sqlite:test.db')\n"
        "    await shared.start()\n"
        "    async with shared.writing() as connection:\n"
        "        await Outbox(shared, None, 'x').put(connection, 'main', [Event(('t',), 'left')])\n"
        "    print('committed', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"committed\n"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()

    async def main() -> None:
        async with running(f"sqlite:{tmp_path}/test.db") as (_, hub, _outboxes):
            await until(lambda: hub.data and not _count(tmp_path / "test.db"))
            assert hub.data == ["main left"]

    run(main())


def _count(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        found: int = connection.execute("SELECT count(*) FROM outbox").fetchone()[0]
        return found
    finally:
        connection.close()
