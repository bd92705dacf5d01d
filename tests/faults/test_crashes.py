"""kill -9, damaged files, full disks: what the sqlite log survives, and what it says where it can't."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.faults.witnesses import Scene
from tests.harness.process import Node, wait_until
from tests.harness.stream import Stream
from tests.threats.conftest import Start, finish
from tests.threats.wire import Wire, answered, ask, request

JSON = {"Content_Type": "application/json"}


def publish(node: Node, data: str) -> int:
    """Publish one event; the status."""
    body = json.dumps({"topic": "t", "data": data}).encode()
    return answered(node.port, request("POST", "/channels/main/events", body, **JSON)).status


def replayed(node: Node) -> list[str]:
    """The data of all that is retained, read until a mark that is published now."""
    mark = f"mark {time.monotonic()}"
    assert publish(node, mark) == 200
    found: list[str] = []
    with Stream(node.port, "/channels/main/events", Last_Event_ID="earliest") as stream:
        while (block := stream.next_event()).data != mark:
            if block.type == "message":
                found.append(block.data or "")
    return found


def test_kill_nine_at_random_moments_loses_nothing_that_was_acknowledged(
    start: Start, tmp_path: Path, seed: int
) -> None:
    """FLT-09, FLT-22: the node is killed six times under load and comes back; subscribers resume; the checker finds
    nothing.
    """
    node = start(relay=f"sqlite:{tmp_path / 'log.db'}", idempotency_seconds=60)
    rng = random.Random(seed)
    with Scene(node.port) as scene:
        for _ in range(6):
            scene.wait_for(rng.randrange(5, 60))
            node.kill()
            node.start()
            scene.healed()
    assert scene.history.problems(needless_gaps=True) == []
    assert sum(outcome == "ok" for outcome in scene.history.outcomes.values()) > 100
    assert all(subscriber.connections >= 2 for subscriber in scene.subscribers)


def test_kill_nine_with_the_log_in_memory_is_a_declared_gap(start: Start, seed: int) -> None:
    """FLT-01 for one node: a log that is lost means a new epoch, and every subscriber is told once."""
    node = start()
    with Scene(node.port) as scene:
        scene.wait_for(random.Random(seed).randrange(10, 100))
        node.kill()
        node.start()
        scene.healed()
        scene.wait_for(30)
    assert scene.history.problems(needless_gaps=True) == []
    for log in scene.history.seen.values():
        assert [json.loads(entry.id)["reason"] for entry in log if entry.gap] == ["epoch"]


def test_a_publisher_that_lost_the_answer_and_tries_again_publishes_once(start: Start, seed: int) -> None:
    """FLT-15: the answer never reaches the publisher; the same key yields the same id, another body is a conflict."""
    rng = random.Random(seed)
    node = start()
    headers = JSON | {"Idempotency_Key": "order-1"}
    raw = request("POST", "/channels/main/events", b'{"topic": "t", "data": "once"}', **headers)
    for _ in range(5):
        connection = Wire(node.port)
        connection.send(raw)
        time.sleep(rng.uniform(0, 0.005))  # the answer is on its way, or not yet
        connection.close()
    first, second = answered(node.port, raw), answered(node.port, raw)
    assert first.status == second.status == 200 and first.body == second.body
    assert second.header("Idempotency-Replayed") == "true"
    other = answered(node.port, request("POST", "/channels/main/events", b'{"topic": "t", "data": "other"}', **headers))
    assert other.status == 409
    assert replayed(node) == ["once"]


def filled(node: Node, limit_bytes: int) -> None:
    """From now on no file of the server grows beyond the limit: a full disk, as far as the process can tell."""
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))


def test_a_full_disk_refuses_publishes_and_keeps_serving_readers(start: Start, tmp_path: Path, seed: int) -> None:
    """FLT-21: 503 `unavailable` with Retry-After, not ok; readers stay and replay; with room again all works; nothing
    refused arrives.
    """
    node = start(relay=f"sqlite:{tmp_path / 'log.db'}")
    with Scene(node.port, every=0.005) as scene:
        scene.wait_for(random.Random(seed).randrange(10, 60))
        filled(node, 1)
        scene.broken(node.port)
        wait_until(lambda: publish(node, "while full") == 503, 5, "a refusal")
        body = json.dumps({"topic": "t", "data": "while full"}).encode()
        refused = answered(node.port, request("POST", "/channels/main/events", body, **JSON))
        assert (
            refused.status == 503
            and json.loads(refused.body)["code"] == "unavailable"
            and refused.header("Retry-After")
        )
        assert answered(node.port, request("GET", "/health")).status == 200
        assert answered(node.port, request("GET", "/ready")).status == 503
        with Stream(node.port, "/channels/main/events?topic=witness", Last_Event_ID="earliest") as stream:
            assert len(stream.events(10)) == 10
        wait_until(lambda: "fail" in scene.history.outcomes.values(), 5, "a refusal of the witness")
        filled(node, resource.RLIM_INFINITY)
        scene.healed()
        wait_until(lambda: publish(node, "room again") == 200, 10, "a publish accepted again")
        scene.wait_for(20)
    assert scene.history.problems() == []
    assert "fail" in scene.history.outcomes.values()
    node.kill()
    node.start()
    assert "while full" not in replayed(node)


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, seed: int) -> None:
    """FLT-21: the disk is full for the log lines only: publishing, reading and stopping go on."""
    node = Node(tmp_path, drain_seconds=0, log_level="debug")
    node.log_path.write_bytes(b"\n" * 100_000)
    node.start()
    try:
        filled(node, random.Random(seed).randrange(1, 100_000))
        with Stream(node.port, "/channels/main/events") as stream:
            stream.next_event()
            for number in range(20):
                assert publish(node, str(number)) == 200
            assert [block.data for block in stream.events(20)] == [str(number) for number in range(20)]
        ask(node.port, b"garbage\r\n\r\n")
        assert answered(node.port, request("GET", "/health")).status == 200
    finally:
        finish(node)


DAMAGES = [
    "flip a bit",
    "cut the file short",
    "cut the log short",
    "garbage at the head",
    "an empty file",
    "no file",
]


def damage(folder: Path, how: str, rng: random.Random) -> None:
    """Harm the stopped log, in a place of chance."""
    main, side = folder / "log.db", folder / "log.db-wal"
    target = side if how == "cut the log short" and side.exists() else main
    data = bytearray(target.read_bytes())
    if how.startswith("flip"):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif how.startswith("cut"):
        data = data[: rng.randrange(1, len(data))]
    elif how.startswith("garbage"):
        data[: rng.randrange(20, 200)] = rng.randbytes(100)
    else:
        data = bytearray()
    target.write_bytes(data)
    if how == "no file":
        for path in (main, side, folder / "log.db-shm"):
            path.unlink(missing_ok=True)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_noticed_and_never_a_silent_hole(tmp_path: Path, how: str, seed: int) -> None:
    """FLT-22: after damage the node either refuses to start, in words, or what it replays to a resuming reader is whole
    or behind a gap.
    """
    node = Node(tmp_path, drain_seconds=0, relay=f"sqlite:{tmp_path / 'log.db'}").start()
    with Stream(node.port, "/channels/main/events") as stream:
        cursor = str(stream.next_event().id)
    sent = [f"{number} " + "x" * 2000 for number in range(60)]
    for data in sent:
        assert publish(node, data) == 200
    node.kill()
    damage(tmp_path, how, random.Random(seed))
    try:
        node.start()
    except AssertionError:
        assert "Traceback" not in node.log()
        assert node.process is not None and node.process.poll() not in (None, 0)
        return
    try:
        _whole_or_declared(node, cursor, sent)
    finally:
        finish(node)


def _whole_or_declared(node: Node, cursor: str, sent: list[str]) -> None:
    assert publish(node, "end") == 200
    blocks = []
    with Stream(node.port, "/channels/main/events", Last_Event_ID=cursor) as stream:
        while (block := stream.next_event()).data != "end":
            blocks.append(block)
    whole = [block.data for block in blocks if block.type == "message"] == sent
    assert whole or any(block.type == "gap" for block in blocks)


def test_a_copy_of_the_log_made_under_load_can_be_used(start: Start, tmp_path: Path, seed: int) -> None:
    """FLT-22: the files as a kill at that moment would leave them, taken while events are written, open without loss of
    what came before.
    """
    node = start(relay=f"sqlite:{tmp_path / 'log.db'}")
    with Scene(node.port) as scene:
        scene.wait_for(random.Random(seed).randrange(20, 100))
        before = scene.publisher.next - 1
        os.kill(node.pid, signal.SIGSTOP)
        copy = tmp_path / "copy"
        copy.mkdir()
        for path in tmp_path.glob("log.db*"):
            shutil.copy(path, copy)
        os.kill(node.pid, signal.SIGCONT)
        scene.healed()
    second = start(relay=f"sqlite:{copy / 'log.db'}")
    assert replayed(second)[:before] == [str(number) for number in range(before)]
