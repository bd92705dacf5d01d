"""A node with one channel and memory for a relay, and peers whose streams are taken apart."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from server.channel import Policy
from server.event import Event
from server.frames import Encoding
from server.node import Limits, Node
from server.opening import Subscription
from server.reader import Reader
from server.relay.memory import MemoryRelay
from server.selection import Selection
from tests.server.engine import Peer, run, turns, unchunked, until


class Stream:
    """What a peer got, taken apart."""

    def __init__(self, received: bytes) -> None:
        self.head, _, body = received.partition(b"\r\n\r\n")
        first, *fields = self.head.decode().split("\r\n")
        self.status = first
        self.headers: dict[str, str] = {}
        for line in fields:
            name, _, value = line.partition(": ")
            assert name not in self.headers
            self.headers[name] = value
        self.body = unchunked(body)[0] if "Transfer-Encoding" in self.headers else body
        self.blocks = [block.decode() for block in self.body.split(b"\n\n")[:-1]]

    @property
    def hello(self) -> dict[str, Any]:
        facts = json.loads(self.blocks[0].partition("data: ")[2])
        assert isinstance(facts, dict)
        return facts

    @property
    def data(self) -> list[str]:
        return [block.partition("data: ")[2] for block in self.blocks[1:] if "data: " in block and "gap" not in block]


class House:
    """A node with one channel, on a running loop."""

    def __init__(self, limits: dict[str, Any], policy: dict[str, Any]) -> None:
        self.node = Node(MemoryRelay(120, 100), lambda name: Policy(**policy), Limits(100, **limits))
        self.peers: list[Peer] = []

    @property
    def channel(self) -> Any:
        return self.node.hub.channels["main"]

    def publish(self, *texts: str, topic: str = "a", **fields: Any) -> tuple[str, ...]:
        events = [Event((topic,), text, **fields) for text in texts]
        return self.node.hub.publish(self.channel, events).ids  # type: ignore[union-attr]

    def wanted(self, cursor: str | None = None, **fields: Any) -> Subscription:
        values: dict[str, Any] = {
            "selection": Selection(), "last": 0, "subject": "", "expires": None, "origin": None,
            "remote": "192.0.2.1", "encoding": Encoding.CHUNKED,
        }  # fmt: skip
        return Subscription(channel=self.channel, cursor=cursor, **(values | fields))

    def open(self, cursor: str | None = None, *, buffer_bytes: int = 0, **fields: Any) -> Peer:
        wanted = self.wanted(cursor, **fields)
        start = self.node.opener.locate(wanted)
        assert start is not None
        peer = Peer(buffer_bytes)
        self.peers.append(peer)
        self.node.opener.open(peer.fd, wanted, start)
        return peer

    async def stream(self, cursor: str | None = None, **fields: Any) -> Stream:
        """What a new stream has got once nothing more is to come."""
        peer = self.open(cursor, **fields)
        await self.settled()
        return Stream(peer.read_all())

    async def settled(self) -> None:
        await until(lambda: not self.node.replayer.busy)
        await turns()

    @property
    def readers(self) -> list[Reader]:
        return self.node.broadcaster.all_readers()


def with_house(
    doing: Callable[[House], Awaitable[None]], *, limits: dict[str, Any] | None = None, **policy: Any
) -> None:
    """Run with a house that is pulled down in the end."""

    async def main() -> None:
        house = House(limits or {}, policy)
        await house.node.start(["main"])
        try:
            await doing(house)
        finally:
            await house.node.stop()
            for peer in house.peers:
                peer.close()

    run(main)
