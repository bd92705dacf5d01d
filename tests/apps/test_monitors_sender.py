"""The worker's sending (M3) to servers that follow a script: what is tried again, under which key, in which order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import copy
from typing import Any

import pytest

from apps.monitors.model import CHECK, CREATED, Said
from apps.monitors.outgoing import remove
from apps.monitors.sender import Sender
from apps.monitors.tables import outgoing
from bridges.database import Database, DatabaseUnavailable, migrate, url_of
from tests.harness.process import free_port

SECRET = "a secret of the worker"


class Script:
    """A server. `answers` are its next answers: a status, `None` to take the request and say nothing, `...` to hang up
    without a word, seconds (a float) to take that long; then 200 for all."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, str]] = []  # key, secret, body
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            body = (await reader.readexactly(int(fields["Content-Length"]))).decode()
            assert head.startswith("POST /internal/broadcast ")
            self.requests.append((fields["Idempotency-Key"], fields.get("X-Internal-Secret", ""), body))
            answer = self.answers.pop(0) if self.answers else 200
            if answer is None:
                await reader.read()
            elif isinstance(answer, float):
                await asyncio.sleep(answer)
                answer = 200
            if isinstance(answer, int):
                writer.write(f"HTTP/1.1 {answer} So\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
        writer.close()


@asynccontextmanager
async def script(*answers: Any) -> AsyncIterator[Script]:
    made = Script(*answers)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


@pytest.fixture(scope="module")
def with_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables and nothing in them."""
    path = tmp_path_factory.mktemp("sender") / "empty.db"
    migrate(url_of(f"sqlite:{path}"))
    return path


@pytest.fixture
def folder(tmp_path: Path, with_tables: Path) -> Path:
    """Where the test's database is."""
    copy(with_tables, tmp_path / "sender.db")
    return tmp_path


@asynccontextmanager
async def sending(folder: Path, *ports: int, keep: int = 100, seconds: float = 5.0) -> AsyncIterator[Sender]:
    """A sender at work."""
    database = Database(f"sqlite:{folder}/sender.db")
    await database.start()
    servers = [f"http://127.0.0.1:{port}" for port in ports]
    sender = Sender(database, servers, SECRET, seconds=seconds, keep=keep)
    task = asyncio.create_task(sender.run(lambda: True))
    yield sender
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    sender.close()
    await database.stop()


async def put(sender: Sender, *names: str, kind: str = CHECK) -> None:
    async with sender._database.writing() as connection:
        await sender.put(connection, [Said(7, kind, {"monitor_id": name}) for name in names])
    sender.wake()


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what it waits for is another's
            await asyncio.sleep(0.01)


def names_of(server: Script) -> list[str]:
    return [json.loads(body)["data"]["monitor_id"] for _, _, body in server.requests]


def run(work: Awaitable[None]) -> None:
    async def all_of_it() -> None:
        await work

    asyncio.run(all_of_it())


def test_results_go_out_in_order_each_once_with_a_key_and_the_secret(folder: Path) -> None:
    async def work() -> None:
        async with script() as server, sending(folder, server.port) as sender:
            await put(sender, "a", "b")
            await put(sender, "c")
            await until(lambda: sender.sent == 3)
            assert names_of(server) == ["a", "b", "c"]
            assert len({key for key, _, _ in server.requests}) == 3
            assert {secret for _, secret, _ in server.requests} == {SECRET}
            assert json.loads(server.requests[0][2]) == {
                "type": "monitor_check", "data": {"monitor_id": "a"}, "tenant_id": 7,
            }  # fmt: skip

    run(work())


@pytest.mark.parametrize("answer", [..., None, 500, 503, 504, 429, 401, 404])
def test_what_may_have_been_taken_is_sent_again_under_the_same_key(folder: Path, answer: Any) -> None:
    """And nothing that comes after it goes before it."""

    async def work() -> None:
        async with script(200, answer, answer) as server, sending(folder, server.port, seconds=2) as sender:
            await put(sender, "a", "b", "c")
            await until(lambda: sender.sent == 3)
            assert names_of(server) == ["a", "b", "b", "b", "c"]
            keys = [key for key, _, _ in server.requests]
            assert keys[1] == keys[2] == keys[3] and len(set(keys)) == 3
            assert sender.state == "ok"

    run(work())


@pytest.mark.parametrize("answer", [400, 409, 413, 422])
def test_what_is_wrong_for_ever_holds_nothing_up(folder: Path, answer: int) -> None:
    async def work() -> None:
        async with script(answer) as server, sending(folder, server.port) as sender:
            await put(sender, "a", "b")
            await until(lambda: sender.sent == 1)
            assert names_of(server) == ["a", "b"]
            assert sender.refused == 1

    run(work())


def test_a_redirect_is_not_followed(folder: Path) -> None:
    """The secret goes to nobody but the servers that the operator named."""

    async def work() -> None:
        async with script(302) as server, sending(folder, server.port) as sender:
            await put(sender, "a")
            await until(lambda: sender.sent == 1)
            assert names_of(server) == ["a", "a"]

    run(work())


def test_a_request_has_a_limit_and_nobody_waits_for_it(folder: Path) -> None:
    """M3: while it hangs, more is put into the queue."""

    async def work() -> None:
        async with script(None) as server, sending(folder, server.port, seconds=4) as sender:
            await put(sender, "a")
            await until(lambda: server.requests)
            began = time.monotonic()
            await put(sender, "b")
            assert time.monotonic() - began < 3
            await until(lambda: sender.sent == 2)
            assert names_of(server) == ["a", "a", "b"]

    run(work())


def test_another_server_is_asked_when_one_is_away(folder: Path) -> None:
    async def work() -> None:
        async with script() as server, sending(folder, free_port(), server.port) as sender:
            await put(sender, "a", "b")
            await until(lambda: sender.sent == 2)
            assert names_of(server) == ["a", "b"]

    run(work())


def test_too_much_goes_the_oldest_checks_first_and_incidents_last(folder: Path) -> None:
    """M3: bounded, in order, and counted."""

    async def work() -> None:
        async with sending(folder, free_port(), keep=4) as sender:
            await put(sender, "i1", kind=CREATED)
            await until(lambda: sender.state != "ok")
            await put(sender, *(f"c{number}" for number in range(8)))
            await sender.bound()
            assert (sender.dropped, sender.waiting) == (5, 4)
            await put(sender, *(f"i{number}" for number in range(2, 7)), kind=CREATED)
            await sender.bound()
            assert (sender.dropped, sender.waiting) == (10, 4)
            assert "did not answer" in sender.state or "does not answer" in sender.state
        async with script() as server, sending(folder, server.port, keep=4) as sender:
            await until(lambda: sender.sent == 4)
            assert names_of(server) == ["i3", "i4", "i5", "i6"]

    run(work())


def test_what_a_worker_before_has_left_is_sent(folder: Path) -> None:
    async def work() -> None:
        async with sending(folder, free_port()) as sender:
            await put(sender, "a", "b")
        async with script() as server, sending(folder, server.port) as sender:
            await until(lambda: sender.sent == 2)
            assert names_of(server) == ["a", "b"]

    run(work())


def test_what_was_read_long_ago_is_read_again_before_it_is_sent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another may have told it while this process stood still, and the node may have forgotten the keys by then."""

    async def work() -> None:
        async with script(1.0) as server, sending(folder, server.port) as sender:
            monkeypatch.setattr("apps.monitors.outgoing.FRESH_SECONDS", 0.5)
            await put(sender, "1", "2", "3")
            await until(lambda: server.requests)
            async with sender._database.writing() as connection:
                await remove(connection, outgoing.c.body.contains('"2"'))  # as a node does that has told it
            await until(lambda: sender.sent == 2)
            assert names_of(server) == ["1", "3"]

    run(work())


def test_what_was_taken_is_not_sent_again_however_long_the_database_is_away(folder: Path) -> None:
    """M3: the node may have forgotten the keys by then."""

    async def work() -> None:
        async with script() as server, sending(folder, server.port) as sender:
            writing = sender._database.writing
            away = asyncio.Event()

            @asynccontextmanager
            async def refusing() -> AsyncIterator[Any]:
                if server.requests:
                    away.set()
                    raise DatabaseUnavailable("away")
                async with writing() as connection:
                    yield connection

            sender._database.writing = refusing  # type: ignore[method-assign]
            await put(sender, "1")
            await away.wait()
            sender._database.writing = writing  # type: ignore[method-assign]
            again = asyncio.create_task(sender.run(lambda: True))  # as the worker does after an error
            await put(sender, "2")
            await until(lambda: len(server.requests) > 1 and not sender._queue._settled)
            again.cancel()
            await asyncio.gather(again, return_exceptions=True)
            assert names_of(server) == ["1", "2"]

    run(work())
