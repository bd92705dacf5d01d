"""A publisher and reader of one channel, for tests: keeps its connection, tells what an acknowledgement said, and
records streams in the background. Over several nodes its connections go to each in turn.

Knows the channel API of docs/protocol.md and nothing of the server behind it.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.harness.process import Node, wait_until
from tests.harness.stream import Block, Stream

JSON = "application/json"
NDJSON = "application/x-ndjson"

MARK = "mark"
CONTROL = {
    "hello", "gap", "heartbeat", "overloaded", "too_many", "rate_limited", "draining", "unavailable", "uncertain",
    "max_age", "idle", "slow", "auth_expired", "revoked", "finished", "unauthorized", "forbidden", "not_found",
    "bad_request",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer to a publish."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def fields(self) -> dict[str, object]:
        return dict(json.loads(self.body))

    @property
    def ids(self) -> list[str]:
        """The ids of an acknowledged publish."""
        assert self.status == 200, self
        ids = self.fields["ids"]
        assert isinstance(ids, list), self
        return ids


class Publisher:
    """One kept-alive connection to a channel. Not for several threads at once."""

    def __init__(self, port: int, channel: str = "c", token: str | None = None) -> None:
        self.path = f"/channels/{channel}/events"
        self.credentials = {"Authorization": f"Bearer {token}"} if token else {}
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def post(self, body: bytes | str, content_type: str, **headers: str) -> Answer:
        """Send exactly this body."""
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        self.connection.request("POST", self.path, body, {"Content-Type": content_type} | self.credentials | named)
        answer = self.connection.getresponse()
        return Answer(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())

    def offer(self, event: object, **headers: str) -> Answer:
        """Publish one event, whatever the answer."""
        return self.post(json.dumps(event), JSON, **headers)

    def offer_all(self, events: Iterable[object], **headers: str) -> Answer:
        """Publish many in one request, whatever the answer."""
        return self.post("\n".join(map(json.dumps, events)), NDJSON, **headers)

    def publish(self, data: object = "", **fields: object) -> str:
        """Publish one event; its id."""
        [event_id] = self.offer({"data": data} | fields).ids
        return event_id

    def publish_all(self, events: Iterable[object]) -> list[str]:
        """Publish many in one request; their ids."""
        return self.offer_all(events).ids

    def close(self) -> None:
        self.connection.close()


class Channel:
    """A channel of one node, as one token's holder sees it; with `others` of several, to which connections go in turn,
    beginning at `node`.
    """

    def __init__(self, node: Node, name: str = "c", token: str | None = None, others: Sequence[Node] = ()) -> None:
        self.node = node
        self.nodes = [node, *others]
        self.name = name
        self.token = token
        self.opened: list[Stream | Publisher] = []
        self._turns = itertools.cycle(self.nodes)

    def close(self) -> None:
        """Close every connection that was opened here."""
        for one in self.opened:
            one.close()

    def publisher(self) -> Publisher:
        """A new publishing connection."""
        one = Publisher(next(self._turns).port, self.name, self.token)
        self.opened.append(one)
        return one

    def beside(self, *, name: str | None = None, token: str | None = None) -> Channel:
        """Another channel of the same nodes, or the same one as another token's holder sees it; closed with this one,
        and its connections take turns with this one's.
        """
        other = Channel(self.node, name or self.name, token or self.token, self.nodes[1:])
        other.opened, other._turns = self.opened, self._turns
        return other

    def each(self) -> list[Channel]:
        """The same channel of each node alone."""
        alone = [Channel(node, self.name, self.token) for node in self.nodes]
        for one in alone:
            one.opened = self.opened
        return alone

    def stream(self, query: str = "", **headers: str) -> Stream:
        """A stream, of whatever status."""
        if self.token:
            headers = {"Authorization": f"Bearer {self.token}"} | headers
        return self.stream_at(f"/channels/{self.name}/events?{query}", **headers)

    def stream_at(self, path: str, **headers: str) -> Stream:
        """A streaming GET of any path, with these headers only."""
        one = Stream(next(self._turns).port, path, **headers)
        self.opened.append(one)
        return one

    def history(self, query: str = "", **headers: str) -> list[Block]:
        """Every retained event that the query selects, in order, without control events."""
        parts = [query, f"topic={MARK}" if "topic=" in query else "", "last_event_id=earliest"]
        with self.stream("&".join(filter(None, parts)), **headers) as stream:
            return [event for event in until(stream, self.mark()) if event.data != MARK]

    def publish(self, data: object = "", **fields: object) -> str:
        """Publish one event on a connection of its own; its id."""
        [event_id] = self.offer({"data": data} | fields).ids
        return event_id

    def offer(self, event: object, **headers: str) -> Answer:
        """Publish one event on a connection of its own, whatever the answer."""
        with contextlib.closing(self.publisher()) as publisher:
            return publisher.offer(event, **headers)

    def publish_all(self, events: Iterable[object]) -> list[str]:
        """Publish many in one request on a connection of its own; their ids."""
        with contextlib.closing(self.publisher()) as publisher:
            return publisher.publish_all(events)

    def mark(self) -> str:
        """Publish a public event on the topic of marks; its id."""
        return self.publish(MARK, topic=MARK)


def until(stream: Stream, event_id: str, seconds: float | None = None) -> list[Block]:
    """The events of a stream before the one with this id, without control events."""
    found = []
    while (block := stream.next_event(seconds)).id != event_id:
        found.append(block)
    return [block for block in found if block.type not in CONTROL]


def control(stream: Stream, seconds: float | None = None) -> tuple[str, dict[str, object]]:
    """The next event, which must be a control event: its type and its facts."""
    block = stream.next_event(seconds)
    assert block.type in CONTROL, block
    return block.type, dict(json.loads(block.data or ""))


class Recorder:
    """Reads one stream in a thread of its own until it ends or is stopped; keeps the events and when each came."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.events: list[Block] = []
        self.times: list[float] = []
        self.failure: BaseException | None = None
        self._stopping = False
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            while not self._stopping and (block := self.stream.next_block(60)) is not None:
                if block.data is not None:
                    self.times.append(time.monotonic())
                    self.events.append(block)
        except (OSError, AssertionError) as error:
            self.failure = None if self._stopping else error

    @property
    def ids(self) -> list[str | None]:
        """The ids of what came, control events left out."""
        return [block.id for block in self.events if block.type not in CONTROL]

    def wait_for(self, event_id: str, seconds: float = 20) -> None:
        """Until the event with this id has come; fails at once if the stream broke."""
        wait_until(lambda: self.failure or (self.events and event_id in self.ids[-200:]), seconds, f"event {event_id}")
        assert self.failure is None, self.failure

    def stop(self) -> None:
        """Hang up and wait for the thread."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self.stream.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join(10)
        self.stream.close()
