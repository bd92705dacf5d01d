"""Publishers whose answers are lost, or whose server goes away and comes back: all is published once, in order."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ringcast import Publisher, RedisPublisher, make_event
from tests.harness.process import Node, wait_until
from tests.harness.redis import RedisServer
from tests.harness.stream import Block, Stream
from tests.threats.conftest import finish

EVENTS = "/channels/main/events?topic=t"
KEPT: dict[str, Any] = {"appendonly": "yes", "appendfsync": "always"}
_RESET = struct.pack("ii", 1, 0)


class Swallower:
    """A proxy that ends the connection in place of an answer, `losses` times, to requests with the mark."""

    def __init__(self, target: int, mark: bytes) -> None:
        self.target, self.mark = target, mark
        self.losses = 0
        self.lost = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._run)]
        self._threads[0].start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(near,)))
                self._threads[-1].start()

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", self.target), timeout=10) as far:
                self._carry(near, far)

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        swallows = False
        while True:
            for source in select.select([near, far], [], [])[0]:
                data = source.recv(1 << 16)
                if not data:
                    return
                if source is near:
                    swallows = swallows or (self.losses > 0 and self.mark in data)
                    far.sendall(data)
                elif swallows:
                    self.losses -= 1
                    self.lost += 1
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    return
                else:
                    near.sendall(data)

    def close(self) -> None:
        """Wait until the clients have hung up."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, **KEPT).start()
    yield server
    server.stop()


@pytest.fixture
def node(redis: RedisServer, tmp_path: Path) -> Iterator[Node]:
    one = Node(tmp_path, relay=redis.url, drain_seconds=0).start()
    yield one
    finish(one)


@contextlib.contextmanager
def swallowing(target: int, mark: bytes) -> Iterator[Swallower]:
    with closing(Swallower(target, mark)) as one:
        yield one


@contextlib.contextmanager
def reading(node: Node) -> Iterator[Stream]:
    with Stream(node.port, EVENTS, seconds=20) as stream:
        assert stream.next_event().type == "hello"
        yield stream


def told(blocks: list[Block]) -> list[tuple[str | None, str | None]]:
    return [(block.id, block.data) for block in blocks]


def published_with_losses(publisher: Publisher | RedisPublisher, proxy: Swallower, seed: int) -> list[tuple[str, str]]:
    """Publish one by one and several at once; before each some answers are doomed. Their ids, with their data."""
    rng = random.Random(seed)
    ids: list[tuple[str, str]] = []
    for number in range(8):
        proxy.losses = rng.choice((0, 1, 1, 2))
        texts = [f"{number}.{part}" for part in range(rng.choice((1, 1, 3)))]
        ids += zip(publisher.publish_many([make_event("t", text) for text in texts]), texts, strict=True)
        assert proxy.losses == 0
    assert proxy.lost >= 2
    return ids


@pytest.mark.fault
def test_an_answer_of_redis_that_is_lost_publishes_nothing_twice(node: Node, redis: RedisServer, seed: int) -> None:
    """FLT-15: Redis has appended, and who asked for it never hears so."""
    with swallowing(redis.port, b"EVAL") as proxy, reading(node) as stream:
        with closing(RedisPublisher(f"redis://127.0.0.1:{proxy.port}/0")) as publisher:
            ids = published_with_losses(publisher, proxy, seed)
            publisher.publish("t", "the last")
        assert told(stream.events(len(ids))) == ids
        assert stream.events(1)[0].data == "the last"


@pytest.mark.fault
def test_an_answer_of_a_node_that_is_lost_publishes_nothing_twice(node: Node, seed: int) -> None:
    """FLT-15: the same over HTTP."""
    notes: list[str] = []
    with swallowing(node.port, b"POST ") as proxy, reading(node) as stream:
        with Publisher(f"http://127.0.0.1:{proxy.port}", note=notes.append) as publisher:
            ids = published_with_losses(publisher, proxy, seed)
            publisher.publish("t", "the last")
        assert len(notes) == proxy.lost
        assert told(stream.events(len(ids))) == ids
        assert stream.events(1)[0].data == "the last"


class Steady:
    """Publishes numbers, one after the other, for as long as it is let."""

    def __init__(self, publish: Callable[[str], str]) -> None:
        self.published: list[tuple[str, str]] = []
        self._publish = publish
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._failed: Exception | None = None
        self._thread.start()

    def _run(self) -> None:
        number = 0
        try:
            while not self._leaving.wait(0.001):
                self.published.append((self._publish(str(number)), str(number)))
                number += 1
        except Exception as error:
            self._failed = error

    def more(self, count: int) -> None:
        """Wait until so many more are acknowledged."""
        goal = len(self.published) + count
        wait_until(lambda: self._failed or len(self.published) >= goal, 20, f"{count} more")
        assert self._failed is None, self._failed

    def close(self) -> None:
        self._leaving.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.mark.fault
def test_a_redis_that_is_killed_and_comes_back_in_time_gets_everything_once_and_in_order(
    node: Node, redis: RedisServer, seed: int
) -> None:
    """FLT-02, FLT-15: its death may fall between the append and the answer."""
    rng = random.Random(seed)
    with closing(RedisPublisher(redis.url)) as publisher:
        with reading(node) as stream, closing(Steady(lambda text: publisher.publish("t", text))) as steady:
            for _ in range(3):
                steady.more(rng.randrange(5, 60))
                redis.kill()
                redis.start()
            steady.more(20)
            steady.close()
            assert told(stream.events(len(steady.published))) == steady.published


@pytest.mark.fault
def test_a_node_that_is_killed_and_comes_back_in_time_gets_everything_once_and_in_order(
    tmp_path: Path, seed: int
) -> None:
    """FLT-09, FLT-15: its file has the keys as well as the events."""
    rng = random.Random(seed)
    node = Node(tmp_path, relay=f"sqlite:{tmp_path / 'log.db'}", drain_seconds=0).start()
    try:
        with Publisher(node.url, note=lambda _: None) as publisher:
            with closing(Steady(lambda text: publisher.publish("t", text))) as steady:
                for _ in range(2):
                    steady.more(rng.randrange(5, 60))
                    node.kill()
                    node.start()
                steady.more(20)
                steady.close()
        with Stream(node.port, EVENTS, Last_Event_ID="earliest") as stream:
            assert told(stream.events(len(steady.published))) == steady.published
            node.request("POST", EVENTS, '{"topic": "t", "data": "the last"}', Content_Type="application/json")
            assert stream.events(1)[0].data == "the last"
    finally:
        finish(node)
