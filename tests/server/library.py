"""A channel whose older entries are in a relay, and readers that come back to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from server.admission import Holder
from server.broadcaster import Broadcaster
from server.channel import Channel, Policy
from server.frames import Encoding
from server.log import Log
from server.reader import Reader
from server.relay.protocol import Entry, RelayUnavailable, Retention, Stretch
from server.replay import Replay, Replayer
from server.selection import Selection
from server.selectors import parse_selector
from server.shards import Shards
from tests.server.engine import EPOCH, UNBOUNDED, Peer, accounted, entry, run, turns, until

ALL = Selection()
ONLY_A = Selection(frozenset([parse_selector("a")]))


class Library:
    """A relay's history and a channel that remembers the newest part of it, before a real broadcaster.

    `peers` are the readers' far ends with what they had; `asked` is what was read from the history.
    """

    def __init__(self, *, ring: int = 0, retain: int = 0, span_bytes: int = 4000, slice_seconds: float = 1.0) -> None:
        self.entries: list[Entry] = []
        self.retain = retain
        self.asked: list[tuple[int, int]] = []
        self.broken = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.peers: list[tuple[Peer, int, Feedback]] = []
        self.ends: list[Reader] = []
        bound = Retention(ring, 0, 0) if ring else UNBOUNDED
        self.channel = Channel("main", Policy(lag_events=1 << 20, lag_bytes=1 << 30), EPOCH, Log(bound, 0))
        self.broadcaster = Broadcaster(
            asyncio.get_running_loop(),
            lambda reader, ending: self.ends.append(reader),
            slice_seconds=slice_seconds,
            span_bytes=span_bytes,
            backlog_bytes=1 << 30,
        )
        self.replayer = Replayer(self.broadcaster, self.read, lambda _: self.mark, lambda *_: self.floor)
        self.broadcaster.replayer = self.replayer

    @property
    def mark(self) -> int:
        return self.entries[-1].position if self.entries else 0

    @property
    def floor(self) -> int:
        return self.entries[-self.retain - 1].position if 0 < self.retain < len(self.entries) else 0

    async def read(self, name: str, after: int, limit: int, _shards: Shards) -> Stretch:
        self.asked.append((after, limit))
        await self.gate.wait()
        if self.broken:
            raise RelayUnavailable("no disk")
        found = [one for one in self.entries if max(after, self.floor) < one.position][:limit]
        return Stretch(found, found[-1].position if found else self.mark)

    def publish(self, *texts: str, topic: str = "a") -> list[Entry]:
        added = [entry(self.mark + 10 * number, text, topic) for number, text in enumerate(texts, 1)]
        self.entries += added
        self.broadcaster.publish(self.channel.accept(added, time.monotonic()))
        return added

    def resume(
        self,
        position: int,
        *,
        selection: Selection = ALL,
        gap: tuple[str, str | None] | None = None,
        last: int = 0,
        buffer_bytes: int = 0,
        encoding: Encoding = Encoding.PLAIN,
    ) -> Peer:
        """A reader that has everything up to `position`, but for the `last` before it."""
        peer = Peer(buffer_bytes)
        feed = self.channel.enter(selection, encoding)
        reader = Reader(peer.fd, feed, Holder(""), None)
        reader.cursor = feed.ring.head
        reader.replay = Replay(position, 0, gap, last)
        self.broadcaster.add(reader)
        self.replayer.resume(reader)
        self.peers.append((peer, position, Feedback(reader, selection)))
        return peer

    def check(self, peer: Peer, position: int, selection: Selection) -> None:
        expected = [one for one in self.entries if one.position > position and selection.wants(one.event)]
        accounted(expected, peer.read_all(), whole=True)

    async def settled(self, seconds: float = 10.0) -> None:
        """Reads everything until nothing more comes."""

        def quiet() -> bool:
            got = sum(peer.read() for peer, _, feedback in self.peers if feedback.reader.fd >= 0)
            caught_up = all(f.reader.fd < 0 or f.reader.index >= 0 for _, _, f in self.peers)
            return not got and caught_up and not self.broadcaster.stalled

        await until(quiet, seconds)
        await turns()

    def close(self) -> None:
        self.broadcaster.shut()
        for peer, _, _ in self.peers:
            peer.close()


class Feedback:
    """A reader and what it selected."""

    def __init__(self, reader: Reader, selection: Selection) -> None:
        self.reader = reader
        self.selection = selection


def with_library(doing: Callable[[Library], Any], **options: Any) -> None:
    async def main() -> None:
        library = Library(**options)
        try:
            await doing(library)
        finally:
            library.close()

    run(main)
