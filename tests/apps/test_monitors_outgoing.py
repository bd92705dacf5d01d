"""The queue of what tenants are to be told (M3), and the nodes' part of it, by their rules: outgoing.py, teller.py."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import column, insert, table
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from apps.monitors import outgoing as rules
from apps.monitors import teller as telling
from apps.monitors.accounts import Accounts
from apps.monitors.broadcasts import key_of
from apps.monitors.incidents import IncidentStore
from apps.monitors.model import CHECK, NewMonitor, NewRule, Outcome, Said
from apps.monitors.outgoing import BATCH, Outgoing
from apps.monitors.recorder import Recorder
from apps.monitors.store import MonitorStore
from apps.monitors.teller import Teller
from apps.monitors.tenancy import hold_tenant
from bridges.database import MIGRATIONS, Database, url_of
from server.event import Event, InvalidEvent
from server.hub import Hub
from server.relay.protocol import Appended, Key, RelayUnavailable
from tests.apps.monitor_board import Board
from tests.harness.databases import DATABASES, new_database


class Log:
    """Stands in for the hub: what was appended, once for each key. What is `away` takes nothing."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.keys: list[Key] = []
        self.away = False
        self.too_large = ""

    async def open(self, channel: str) -> str:
        return channel

    async def publish(self, _: str, events: Sequence[Event], key: Key) -> Appended:
        if self.away:
            raise RelayUnavailable("away")
        if self.too_large and self.too_large in events[0].data:
            raise InvalidEvent("data", "is too large")
        again = key in self.keys
        if not again:
            self.keys.append(key)
            self.events += events
        return Appended(("1",), again)

    def names(self) -> list[str]:
        return [json.loads(event.data)["data"]["monitor_id"] for event in self.events]


class House:
    """A tenant of its own in a database, a node's part of the queue and a worker's, and a teller into a log."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.node, self.worker = (Outgoing(self.database, by_node=by_node) for by_node in (True, False))
        self.accounts = Accounts(self.database, self.node)
        self.log = Log()
        self.teller = Teller(self.node, cast(Hub, self.log), "monitors")
        self.tenant = 0

    async def put(self, queue: Outgoing, *names: str, tenant: int = 0) -> None:
        async with self.database.writing() as connection:
            await hold_tenant(connection, tenant or self.tenant)
            await queue.put(connection, [Said(tenant or self.tenant, CHECK, {"monitor_id": name}) for name in names])
        queue.wake()

    async def another(self) -> int:
        return (await self.accounts.register(f"{uuid.uuid4().hex}@example.com", "", "Tenant")).tenant

    async def left(self) -> list[Any]:
        return list(await self.node.of_tenant(self.tenant, 2**62))

    async def sendable(self) -> list[str]:
        """What a worker may send of it now."""
        return [json.loads(row.body)["data"]["monitor_id"] for row in await self.worker.of_workers()]


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return new_database(request, request.param, tmp_path_factory.mktemp("outgoing"))


@asynccontextmanager
async def house(url: str) -> AsyncIterator[House]:
    made = House(url)
    await made.database.start()
    made.tenant = await made.another()
    try:
        yield made
    finally:
        await made.database.stop()


@asynccontextmanager
async def at_work(*tellers: Teller) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(teller.run()) for teller in tellers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what it waits for is another's
            await asyncio.sleep(0.01)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        await work()

    asyncio.run(all_of_it())


def test_what_waited_before_the_upgrade_has_its_tenant(url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = make_url(url_of(url))
    command.upgrade(config, "0008")
    row = {"key": "k", "type": CHECK, "body": Said(7, CHECK, {"monitor_id": "1"}).body(), "created": 1.0}

    async def work() -> None:
        engine = create_async_engine(url_of(url))
        async with engine.begin() as connection:
            columns = [column(name) for name in row]
            await connection.execute(insert(table("monitor_outgoing", *columns)).values(row))
        await engine.dispose()
        async with house(url) as made:
            [found] = await made.node.of_tenant(7, 2**62)
            assert (found.key, found.by_node) == ("k", False)
            assert await made.sendable() == ["1"]

    run(work)


def test_numbers_follow_the_order_of_the_commits(url: str) -> None:
    """Two transactions of one tenant stand one behind the other, or the later event could have the smaller number."""

    async def work() -> None:
        async with house(url) as made:
            held = asyncio.Event()

            async def early() -> None:
                async with made.database.writing() as connection:
                    await hold_tenant(connection, made.tenant)
                    held.set()
                    await asyncio.sleep(0.2)  # for the other to overtake it, if it could
                    await made.node.put(connection, [Said(made.tenant, CHECK, {"monitor_id": "early"})])

            first = asyncio.create_task(early())
            await held.wait()
            await made.put(made.worker, "late")
            await first
            assert [json.loads(row.body)["data"]["monitor_id"] for row in await made.left()] == ["early", "late"]

    run(work)


def test_a_worker_sends_nothing_past_what_a_node_has_to_tell(url: str) -> None:
    """What was changed is told before what was found later; other tenants wait for nothing."""

    async def work() -> None:
        async with house(url) as made:
            other = await made.another()
            await made.put(made.worker, "1")
            await made.put(made.node, "2")
            await made.put(made.worker, "3")
            await made.put(made.worker, "of another", tenant=other)
            assert await made.sendable() == ["1", "of another"]
            for row in (await made.left())[:2]:
                made.node.settle(row)
            await made.node.forget()
            assert await made.sendable() == ["3", "of another"]

    run(work)


def test_a_node_leaves_the_worker_its_time_and_then_tells_all_in_order_under_the_same_keys(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "WORKER_SECONDS", 0.3)

    async def work() -> None:
        async with house(url) as made, at_work(made.teller):
            await made.put(made.node, "0")
            await until(lambda: made.log.names() == ["0"])
            await made.put(made.worker, "1", "2")
            rows = await made.left()
            began = time.monotonic()
            await made.put(made.node, "3")
            await made.put(made.worker, "4")
            await until(lambda: len(made.log.events) > 1)
            assert time.monotonic() - began >= 0.3
            await until(lambda: made.log.names() == ["0", "1", "2", "3"])
            assert made.log.keys[1:3] == [key_of(row.key, row.body.encode()) for row in rows[-2:]]
            assert all(event.private and event.topics == (f"tenants/{made.tenant}",) for event in made.log.events)
            async with asyncio.timeout(30):
                while await made.sendable() != ["4"]:  # noqa: ASYNC110 - until the others are deleted
                    await asyncio.sleep(0.01)

    run(work)


def test_what_the_log_does_not_take_now_is_told_later_and_what_it_never_takes_holds_nothing_up(url: str) -> None:
    async def work() -> None:
        async with house(url) as made:
            made.log.away, made.log.too_large = True, "large"
            await made.put(made.node, "1", "large", "2")
            async with at_work(made.teller):
                await until(lambda: made.teller.state == "away")
                made.log.away = False
                await until(lambda: made.log.names() == ["1", "2"])
                await until(lambda: made.teller.state == "ok")
            assert await made.left() == []

    run(work)


def test_several_nodes_tell_one_story(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number may be at it: each event once, in order."""
    monkeypatch.setattr(telling, "WORKER_SECONDS", 0.0)

    async def work() -> None:
        async with house(url) as made:
            log = cast(Hub, made.log)
            others = [Teller(Outgoing(made.database, by_node=True), log, "monitors") for _ in range(2)]
            async with at_work(made.teller, *others):
                names = [str(number) for number in range(BATCH + 50)]
                for start in range(0, len(names), 10):
                    await made.put((made.node, made.worker)[start % 3 == 1], *names[start : start + 10])
                await made.put(made.node, "last")
                await until(lambda: made.log.names()[-1:] == ["last"])
            assert made.log.names() == [*names, "last"]

    run(work)


def test_what_a_node_that_died_has_left_is_told_by_another(url: str) -> None:
    """It is woken by nothing."""

    async def work() -> None:
        async with house(url) as made:
            dead = Outgoing(made.database, by_node=True)
            await made.put(made.node, "1")
            async with at_work(made.teller):
                await until(lambda: made.log.names() == ["1"])
                await made.put(dead, "2")
                await until(lambda: made.log.names() == ["1", "2"])

    run(work)


def test_what_was_read_long_ago_is_read_again_before_it_is_sent(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another may have told it meanwhile, and the log may have forgotten the key."""

    async def work() -> None:
        async with house(url) as made:
            monkeypatch.setattr(rules, "FRESH_SECONDS", 0.0)
            await made.put(made.node, "1")
            async with at_work(made.teller):
                await until(lambda: made.teller.oldest_seconds > 0.1)
                assert made.log.names() == []
                monkeypatch.setattr(rules, "FRESH_SECONDS", 30.0)
                await until(lambda: made.log.names() == ["1"])

    run(work)


def test_changes_and_checks_at_once_are_one_story_whoever_commits_first(url: str, seed: int) -> None:
    """M3, M5: monitors and rules come and go while checks of two workers are recorded; nobody waits for ever for
    another's lock, and who reads the queue in order knows what is so."""
    rng = random.Random(seed)

    async def work() -> None:
        async with house(url) as made:
            store = MonitorStore(made.database, made.node, most=100, host_per_minute=10_000)
            incidents = IncidentStore(made.database, made.node)
            new = [NewMonitor(name=name, url="http://a.example/") for name in "abc"]
            monitors = [str((await store.create(made.tenant, one, "a.example"))["id"]) for one in new]
            gone: set[str] = set()
            over = asyncio.Event()

            async def check(recorder: Recorder) -> None:
                while not over.is_set():
                    success = rng.random() < 0.4
                    await recorder.record(rng.choice(monitors), Outcome(time.time(), success, 200 if success else 500))

            async def change() -> None:
                for _ in range(25):
                    fields = {"name": "Down", "trigger_type": "down", "breaches": 1, "recoveries": 1}
                    rule = (await incidents.create_rule(made.tenant, NewRule.model_validate(fields), 100))["id"]
                    monitor = rng.choice(monitors)
                    await store.change(made.tenant, monitor, {"enabled": False})
                    await incidents.change_rule(made.tenant, rule, {"enabled": rng.random() < 0.5})
                    await store.change(made.tenant, monitor, {"enabled": True})
                    await incidents.delete_rule(made.tenant, rule)

            workers = [asyncio.create_task(check(Recorder(made.database, made.worker.put, 100))) for _ in range(2)]
            await asyncio.gather(change(), change())
            for monitor in monitors:
                assert await store.delete(made.tenant, monitor)
                gone.add(monitor)
            over.set()
            await asyncio.gather(*workers)
            board = Board()
            last = 0
            while rows := [row for row in await made.left() if row.id > last]:
                for row in rows:
                    board.apply(row.body)
                    made.node.settle(row)
                last = rows[-1].id
                await made.node.forget()
            assert (board.wrong, board.open) == ([], set())
            assert board.unwatched == gone
            assert board.kinds.count("incident_created") > 5

    run(work)
