"""Section 3 of the contract: a replay of 100,000 events in slices, while publishing goes on and memory stays where it
was.
"""

from __future__ import annotations

import re
import threading
import time

from tests.contract.client import Channel
from tests.contract.conftest import StartChannel
from tests.harness.process import wait_until
from tests.harness.stream import Stream
from tests.threats.process_facts import rss_bytes

EVENTS = 100_000
READERS = 5
ID_LINE = re.compile(rb"^id: (\S+)\ndata", re.MULTILINE)


class Bulk:
    """A stream of which not a byte is read until `go`; then its raw bytes up to an event, and the ids of what came."""

    def __init__(self, stream: Stream, last: str) -> None:
        self.stream = stream
        self.last = last.encode()
        self.pieces = [stream.received]
        self.thread = threading.Thread(target=self._read, daemon=True)

    def go(self) -> None:
        """Begin to read, in a thread of its own."""
        self.thread.start()

    def _read(self) -> None:
        self.stream.socket.settimeout(30)
        tail = b""
        while self.last not in tail and (piece := self.stream.socket.recv(1 << 18)):
            self.pieces.append(piece)
            tail = tail[-64:] + piece

    def ids(self) -> list[str]:
        """With the chunks' sizes cut out."""
        body = dechunked(b"".join(self.pieces))
        return [found.decode() for found in ID_LINE.findall(body)]


def dechunked(body: bytes) -> bytes:
    """The content of a chunked body, whose last chunk may be cut."""
    parts, at = [], 0
    while (end := body.find(b"\r\n", at)) >= 0:
        size = int(body[at:end], 16)
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts)


def fill(channel: Channel) -> list[str]:
    """A long history in few requests."""
    publisher = channel.publisher()
    batch = [{"data": "x" * 40}] * 10_000
    return [event_id for _ in range(EVENTS // 10_000) for event_id in publisher.publish_all(batch)]


def test_a_long_replay_goes_out_in_slices(channel: StartChannel, relay: str) -> None:
    """3.10: five readers take 100,000 events each; a publish never waits for them, a live reader neither, and memory
    stays bounded.
    """
    c = channel(relay=relay, ring_events=EVENTS * 2, ring_bytes=1 << 28, write_stall_seconds=60)
    ids = fill(c)
    live, publisher = c.stream(), c.publisher()
    assert live.next_event().type == "hello"
    before = rss_bytes(c.node.pid)
    readers = [Bulk(c.stream(Last_Event_ID=ids[0]), ids[-1]) for _ in range(READERS)]
    for reader in readers:
        reader.go()
    delays, peak = [], 0
    while any(reader.thread.is_alive() for reader in readers):
        begin = time.monotonic()
        event_id = publisher.publish("live")
        assert live.next_event(10).id == event_id
        delays.append(time.monotonic() - begin)
        peak = max(peak, rss_bytes(c.node.pid))
    assert all(reader.ids()[: EVENTS - 1] == ids[1:] for reader in readers)
    assert max(delays) < 1, sorted(delays)[-5:]
    assert peak - before < 40 << 20, f"{(peak - before) >> 20} MiB more during the replay"


def test_readers_that_stop_in_a_replay_hold_no_memory(channel: StartChannel, relay: str) -> None:
    """3.10: twenty replays that nobody reads; each would be some ten megabytes."""
    c = channel(relay=relay, ring_events=EVENTS * 2, ring_bytes=1 << 28, write_stall_seconds=60)
    ids = fill(c)
    before = rss_bytes(c.node.pid)
    readers = [Bulk(c.stream(Last_Event_ID=ids[0]), ids[-1]) for _ in range(20)]
    for _ in range(20):
        c.publish("live")
    assert rss_bytes(c.node.pid) - before < 40 << 20
    readers[7].go()
    wait_until(lambda: not readers[7].thread.is_alive(), 30, "the end of one replay among those that stopped")
    assert readers[7].ids()[: EVENTS - 1] == ids[1:]
