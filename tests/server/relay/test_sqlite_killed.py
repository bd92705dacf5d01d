"""A process killed with SIGKILL at any point loses nothing that it acknowledged, and its log goes on."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from server.ids import parse_id
from server.relay.protocol import Entry
from server.relay.sqlite import SqliteRelay
from tests.harness.process import ROOT
from tests.server.relay.appender import events_of, key_of
from tests.server.relay.bench import Clock, Delivered, event, run, started

pytestmark = pytest.mark.fault

ROUNDS = 6


def killed_after(path: Path, number: int, acknowledgements: int) -> list[list[str]]:
    """Run an appender, kill it when it has acknowledged so many publishes; the words of all it told."""
    command = [sys.executable, "-m", "tests.server.relay.appender", str(path), str(number)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        told = []
        while acknowledgements > 0:
            line = process.stdout.readline()
            assert line, "the appender ended by itself"
            told.append(line)
            acknowledgements -= line.startswith(b"ack")
        process.kill()
        told += process.stdout.readlines()
    return [line.decode().split() for line in told if line.endswith(b"\n")]


async def read_all(relay: SqliteRelay) -> list[Entry]:
    entries: list[Entry] = []
    while part := await relay.read("main", entries[-1].position if entries else 0, 1000):
        entries += part
    return entries


def check(entries: list[Entry], acknowledged: dict[str, list[str]]) -> None:
    positions = [entry.position for entry in entries]
    assert positions == sorted(set(positions))
    publishes: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        publishes[entry.event.data.split("/")[0]].append(entry)
    for name, parts in publishes.items():
        assert [entry.event for entry in parts] == events_of(name), f"publish {name} is torn or doubled"
    for name, ids in acknowledged.items():
        assert [entry.id for entry in publishes[name]] == ids


def test_nothing_acknowledged_is_lost_by_kill_9(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    acknowledged: dict[str, list[str]] = {}
    known = 0

    async def look(number: int) -> None:
        nonlocal known
        # The clock of the one that takes over is an hour behind: only what is on disk keeps positions above the
        # clients' cursors.
        relay = SqliteRelay(str(path), "NORMAL", 3600, 100_000, Clock(time.time() - 3600))
        delivered = await started(relay)
        entries = await read_all(relay)
        check([entry for entry in entries if not entry.event.data.startswith("after")], acknowledged)
        assert relay.state()["events"] == len(entries)
        assert relay.state()["bytes"] == sum(len(entry.frame) for entry in entries)
        await publish_again(relay, delivered, entries)
        await relay.append("main", [event(f"after/{number}")], None)
        assert delivered.entries[-1].position > known
        known = delivered.entries[-1].position
        await relay.close()

    for number in range(ROUNDS):
        for word, first, *ids in killed_after(path, number, chance.randint(1, 120)):
            if word == "mark":
                known = max(known, int(first))
            else:
                acknowledged[first] = ids
                known = max([known, *(cursor[1] for cursor in map(parse_id, ids) if cursor)])
        run(look(number))


async def publish_again(relay: SqliteRelay, delivered: Delivered, entries: list[Entry]) -> None:
    """A publisher that did not hear of its success tries again under its key."""
    names = list(dict.fromkeys(entry.event.data.split("/")[0] for entry in entries))
    for name in [name for name in names if name[0].isdigit() and key_of(name)][-3:]:
        again = await relay.append("main", events_of(name), key_of(name))
        assert again.replayed
        assert list(again.ids) == [entry.id for entry in entries if entry.event.data.startswith(f"{name}/")]
    assert delivered.entries == []


def test_a_torn_write_ahead_log_leaves_a_beginning_of_what_was_written(folder: Path, seed: int) -> None:
    source, copy = folder / "log.db", folder / "copy.db"
    chance = random.Random(seed)

    async def write() -> list[Entry]:
        relay = SqliteRelay(str(source), "NORMAL", 120, 100)
        delivered = await started(relay)
        for number in range(60):
            await relay.append("main", [event(f"{number}.{part}") for part in range(3)], None)
        shutil.copy(source, folder / "kept.db")
        shutil.copy(f"{source}-wal", folder / "kept.db-wal")
        shutil.copy(f"{source}-shm", folder / "kept.db-shm")
        await relay.close()
        return delivered.entries

    async def reread() -> tuple[list[Entry], dict[str, object]]:
        relay = SqliteRelay(str(copy), "NORMAL", 120, 100)
        await started(relay)
        entries, state = await read_all(relay), relay.state()
        await relay.close()
        return entries, state

    def put_back() -> None:
        for end in ("", "-wal", "-shm"):
            shutil.copy(f"{folder / 'kept.db'}{end}", f"{copy}{end}")

    written = run(write())
    whole = (folder / "kept.db-wal").stat().st_size
    for _ in range(10):
        put_back()
        with open(f"{copy}-wal", "r+b") as wal:
            if chance.random() < 0.5:
                wal.truncate(chance.randrange(whole // 2, whole))
            else:
                wal.seek(chance.randrange(whole // 2, whole))
                wal.write(b"\xff" * 8)
        entries, state = run(reread())
        assert [entry.event for entry in entries] == [entry.event for entry in written[: len(entries)]]
        assert len(entries) % 3 == 0
        assert state["events"] == len(entries)
        # What is gone is not passed over in silence: cursors of the old epoch are answered with a gap.
        assert len(entries) == len(written) or not {entry.id for entry in entries} & {entry.id for entry in written}
    put_back()
    assert run(reread())[0] == written
