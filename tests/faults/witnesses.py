"""A publisher and subscribers that write down what happens to them, each in a thread of its own.

The publisher numbers its events and repeats one that got no answer under its idempotency key, as the contract asks. A
subscriber reconnects with its last cursor, whatever happens, until the publisher's last event has come. With several
nodes both go on to the next one when theirs does not answer or has ended their stream.
"""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Sequence

from tests.faults.checker import History, Seen
from tests.harness.stream import Block, Stream

TOPIC = "witness"


class Attempt(Stream):
    """A stream that may fail to open; its socket is closed then."""

    def __init__(self, port: int, path: str, *, seconds: float = 10, **headers: str) -> None:
        try:
            super().__init__(port, path, seconds=seconds, **headers)
        except (AssertionError, OSError):
            if hasattr(self, "socket"):
                self.close()
            raise


class Publisher:
    """Publishes `data = number` on one topic."""

    def __init__(self, ports: Sequence[int], history: History, *, every: float = 0.0, keyed: bool = True) -> None:
        self.ports, self.history, self.every, self.keyed = itertools.cycle(ports), history, every, keyed
        self.port = next(self.ports)
        self.next = 0
        self.last: int | None = None
        self.leaving = threading.Event()
        self.connection: http.client.HTTPConnection | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.leaving.wait(self.every):
            self.publish()

    def publish(self) -> str:
        """Publish the next event until there is an answer; the outcome. Without a key it is tried once and may stay
        unknown.
        """
        number, self.next = self.next, self.next + 1
        # An event can reach subscribers before its acknowledgement reaches us.
        self.history.outcomes[number] = "unknown"
        outcome = self._try(number)
        doubtful = outcome == "unknown"
        while outcome == "unknown" and self.keyed and not self.leaving.is_set():
            time.sleep(0.02)
            outcome = self._try(number)
        # Refused at a later try is not refused at the first: that one may have been published.
        self.history.outcomes[number] = "unknown" if doubtful and outcome == "fail" else outcome
        return outcome

    def request(self, number: int) -> tuple[str, str, str]:
        """Method, path and body that publish this event."""
        return "POST", "/channels/main/events", f'{{"topic": "{TOPIC}", "data": "{number}"}}'

    def _try(self, number: int) -> str:
        method, path, body = self.request(number)
        headers = {"Content-Type": "application/json"} | (
            {"Idempotency-Key": f"{id(self)}-{number}"} if self.keyed else {}
        )
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
            answer.read()
            return {200: "ok", 502: "unknown", 504: "unknown"}.get(answer.status, "fail")
        except (OSError, http.client.HTTPException):
            if self.connection is not None:
                self.connection.close()
            self.connection = None
            self.port = next(self.ports)
            return "unknown"

    def finish(self) -> int:
        """Stop, and publish one last event that is sure to be acknowledged; its number."""
        self.leaving.set()
        if self.thread.is_alive():
            self.thread.join(10)
        end = time.monotonic() + 20
        while self.publish() != "ok":
            assert time.monotonic() < end, "no publish succeeds any more"
            time.sleep(0.02)
        if self.connection is not None:
            self.connection.close()
        self.last = self.next - 1
        return self.last


class Subscriber:
    """Reads the topic, over as many connections as it takes. `pause` between blocks makes it slow."""

    path = f"/channels/main/events?topic={TOPIC}"
    type = "message"

    def __init__(
        self,
        ports: Sequence[int],
        history: History,
        name: str,
        publisher: Publisher,
        *,
        pause: float = 0.0,
        **headers: str,
    ) -> None:
        self.ports, self.publisher, self.pause, self.headers = itertools.cycle(ports), publisher, pause, headers
        self.log = history.seen.setdefault(name, [])
        self.cursor: str | None = None
        self.connections = 0
        self.endings: list[str] = []
        self.opened = threading.Event()
        self.broken: str | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        end = time.monotonic() + 60
        try:
            while time.monotonic() < end and not self._done():
                try:
                    self._connect()
                except OSError:
                    time.sleep(0.02)
        except Exception as error:
            self.broken = repr(error)

    def _done(self) -> bool:
        return self.publisher.last is not None and bool(self.log) and self.log[-1].number == self.publisher.last

    def _connect(self) -> None:
        headers = self.headers | ({"Last_Event_ID": self.cursor} if self.cursor else {})
        try:
            stream = Attempt(next(self.ports), self.path, seconds=20, **headers)
        except AssertionError:
            time.sleep(0.02)
            return
        self.connections += 1
        with stream:
            while not self._done() and (block := self._next(stream)) is not None:
                self._take(block)
                self.opened.set()
                time.sleep(self.pause)  # the slowness that was asked for

    def _next(self, stream: Stream) -> Block | None:
        try:
            return stream.next_block(0.25)
        except AssertionError as error:
            if "no block in time" not in str(error):
                raise
            return Block()

    def _take(self, block: Block) -> None:
        if block.data is not None:
            if block.type == "gap":
                self.log.append(Seen(-1, block.data))
            elif block.type == self.type:
                self.log.append(Seen(self.number_of(block.data), block.id or ""))
            elif block.type != "hello":
                self.endings.append(block.type)
        if block.id is not None:
            self.cursor = block.id

    def number_of(self, data: str) -> int:
        """The number of the event with this data."""
        return int(data)

    def finish(self) -> None:
        """Wait until the last event has come."""
        self.thread.join(30)
        assert self.broken is None, self.broken
        assert not self.thread.is_alive(), f"the last event did not come; seen {self.log[-3:]}"


def _from(ports: Sequence[int], number: int) -> Sequence[int]:
    """The ports in turn, beginning at one of them."""
    first = number % len(ports)
    return (*ports[first:], *ports[:first])


class Scene:
    """A publisher and some subscribers, from before the fault until all is said. With several nodes the subscribers
    begin at each in turn."""

    publisher_of: type[Publisher] = Publisher
    subscriber_of: type[Subscriber] = Subscriber

    def __init__(
        self, *ports: int, subscribers: int = 4, every: float = 0.002, keyed: bool = True, pause: float = 0.0
    ) -> None:
        self.history = History()
        self.publisher = self.publisher_of(ports, self.history, every=every, keyed=keyed)
        self.subscribers = [
            self.subscriber_of(_from(ports, i), self.history, f"subscriber {i}", self.publisher, pause=pause)
            for i in range(subscribers)
        ]
        for subscriber in self.subscribers:
            assert subscriber.opened.wait(10)

    def __enter__(self) -> Scene:
        self.publisher.thread.start()
        return self

    def wait_for(self, more: int, seconds: float = 15) -> None:
        """Until `more` further events were acknowledged."""
        goal = self.publisher.next + more
        end = time.monotonic() + seconds
        while self.publisher.next <= goal:
            assert time.monotonic() < end, f"{self.publisher.next} publishes in {seconds} s, {goal} were due"
            time.sleep(0.005)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            self.publisher.leaving.set()
            return
        self.publisher.finish()
        for subscriber in self.subscribers:
            subscriber.finish()
