"""Servers that bridges bring messages from, and nodes that do; each ends with its test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.nats import NatsServer
from tests.harness.process import Node, wait_until
from tests.harness.pubsub import PubSubEmulator
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PubSubEmulator]:
    """One for all tests: each takes topics of its own."""
    server = PubSubEmulator(tmp_path_factory.mktemp("pubsub")).start()
    yield server
    server.stop()


def bridge(kind: str, name: str, *mappings: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A bridge as settings have it."""
    return {"kind": kind, "name": name, "mappings": list(mappings)} | fields


def mapping(source: str, topic: str = "t", **fields: Any) -> dict[str, Any]:
    """A mapping to the channel `main`."""
    return {"source": source, "channel": "main", "topics": [topic]} | fields


def settings(*bridges: dict[str, Any], **others: object) -> dict[str, object]:
    """Settings for a node with these bridges."""
    return {"bridges": json.dumps(bridges), "drain_seconds": 0} | others


def facts(node: Node, name: str) -> dict[str, Any]:
    """What /stats says of a bridge."""
    found: dict[str, Any] = json.loads(node.get("/stats")[2])["bridges"][name]
    return found


def state(node: Node, name: str) -> str:
    """What /ready says of a bridge."""
    return str(json.loads(node.get("/ready")[2])["checks"][f"bridge_{name}"])


def until_active(node: Node, *names: str) -> None:
    """Wait until this node reads these sources."""
    for name in names:
        wait_until(lambda name=name: facts(node, name)["active"], 20, f"bridge {name} of {node.url}")


def listen(node: Node, topic: str = "t", **headers: str) -> Stream:
    """A stream of a topic of `main`, from now on."""
    stream = Stream(node.port, f"/channels/main/events?topic={topic}", seconds=20, **headers)
    assert stream.next_event().type == "hello"
    return stream


def data(stream: Stream, count: int) -> list[str]:
    """The data of the next events."""
    return [str(event.data) for event in stream.events(count, 30)]


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until another task has made `condition` come true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.002)
