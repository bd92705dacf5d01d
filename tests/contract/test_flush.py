"""Section 1 of the contract: what an acknowledgement waits for, seen at the server's own flushes to the disk."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.contract.client import Channel
from tests.contract.flushes import Flushes
from tests.harness.process import Node, wait_until


class Publishing:
    """One publish in the background."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.ids: list[str] = []
        self.thread = threading.Thread(target=self._publish, daemon=True)
        self.thread.start()

    def _publish(self) -> None:
        self.ids.append(self.channel.publish("waits"))


def test_with_full_an_acknowledgement_waits_for_the_disk(tmp_path: Path, sqlite: str) -> None:
    """1.4: while the flush is held back there is no answer, though the server goes on; when it is done there is."""
    node = Node(tmp_path, relay=sqlite, sqlite_synchronous="FULL", heartbeat_seconds=0.2)
    flushes = Flushes(node)
    try:
        channel = Channel(node)
        for _ in range(3):
            before = flushes.count
            channel.publish("flows")
            assert flushes.count > before, "each acknowledgement has a flush of its own"
        with channel.stream() as beside:
            assert beside.next_event().type == "hello"
            flushes.hold()
            publishing = Publishing(channel)
            wait_until(lambda: flushes.waiting, 5, "the flush of a publish")
            heartbeats = [beside.next_block() for _ in range(3)]
        assert [block and block.data for block in heartbeats] == [None] * 3, "neither an answer nor an event"
        assert publishing.ids == []
        flushes.release()
        publishing.thread.join(10)
        assert len(publishing.ids) == 1
    finally:
        flushes.release()
        node.kill()


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_otherwise_it_does_not_wait(tmp_path: Path, sqlite: str, synchronous: str) -> None:
    """1.4: publishes are acknowledged though no flush is let through."""
    node = Node(tmp_path, relay=sqlite, sqlite_synchronous=synchronous)
    flushes = Flushes(node)
    try:
        channel = Channel(node)
        channel.publish("the first one makes the file")
        flushes.hold()
        assert [channel.publish(number) for number in range(20)]
    finally:
        flushes.release()
        node.kill()
