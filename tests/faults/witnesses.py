"""A publisher and subscribers that write down what happens to them, each in a thread of its own.

The publisher numbers its events and repeats one that got no answer under its idempotency key, as the contract asks. A
subscriber reconnects with its last cursor, whatever happens, until the publisher's last event has come. With several
nodes both go on to the next one when theirs does not answer or has ended their stream.

Owns what clients do. Must know no fault, and judges nothing: that is for the checker. Invariants: a log has one writer;
an event is in `outcomes` before anybody can see it; what a subscriber draws comes from its seed. Cost: a thread each.
"""

from __future__ import annotations

import http.client
import itertools
import random
import socket
import struct
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from tests.faults.checker import History, Seen
from tests.faults.vital_signs import Watch, left_behind, streams
from tests.harness.process import wait_until
from tests.harness.stream import Block, Stream
from tests.rounds import FIRST_SEED

TOPIC = "witness"
ELSEWHERE = "elsewhere"
ELSEWHERE_EVERY = 8  # of so many events of a scene one is for other readers, and private
SLOW_SECONDS = 0.01  # between two blocks: longer than between two events
SLOW_BUFFER_BYTES = 4096
HASTE_BUFFER_BYTES = 1 << 20  # of a slow one that has to come to an end
BUSY_SECONDS = 2.0  # for a machine that has other work
# docs/relays.md: each second a mark has to come through the log, and after three without the node is not ready. So the
# mark that is missing was due after one second, and is waited for two intervals more. A Redis that refuses is noticed
# with the next mark. Not taken from the server: it would allow itself more.
NOTICED_SECONDS = 3.0 + BUSY_SECONDS
# A node tries again after 2 s at the most, and without `redis_durable` waits up to 4 s for others that may know more of
# what Redis had; both with answers on the way.
RESUMED_SECONDS = 8.0 + BUSY_SECONDS
ANSWERED_MEANWHILE = 20  # of the publishes of a scene while nothing can be taken, at least
STAYS_BLOCKS = 100  # at most, who hangs up by chance
PATIENCE_SECONDS = 150.0  # of a subscriber, for the whole of a test
BACK_SECONDS = 0.1  # until somebody who was sent away comes back
_RESET = struct.pack("ii", 1, 0)


class Attempt(Stream):
    """A stream that may fail to open; its socket is closed then."""

    def __init__(
        self,
        port: int,
        path: str,
        *,
        seconds: float = 10,
        connection: socket.socket | None = None,
        request: bytes | None = None,
        **headers: str,
    ) -> None:
        try:
            super().__init__(port, path, seconds=seconds, connection=connection, request=request, **headers)
        except (AssertionError, OSError):
            if hasattr(self, "socket"):
                self.close()
            raise


class Publisher:
    """Publishes `data = number` on one topic, and each number that `elsewhere_every` divides on another one."""

    def __init__(
        self,
        ports: Sequence[int],
        history: History,
        *,
        every: float = 0.0,
        keyed: bool = True,
        elsewhere_every: int = 0,
        **headers: str,
    ) -> None:
        self.ports, self.history, self.every, self.keyed = itertools.cycle(ports), history, every, keyed
        self.elsewhere_every, self.headers = elsewhere_every, headers
        self.port = next(self.ports)
        # Not by the address of this object: one that comes later on the same node may have it again.
        self.scope = uuid.uuid4().hex
        self.next = 0
        self.acknowledged = 0
        self.last: int | None = None
        self.last_elsewhere: int | None = None
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
        self.history.authors[number] = id(self)
        if self.elsewhere_every:
            self.history.topics[number] = self.topic_of(number)
        # An event can reach subscribers before its acknowledgement reaches us.
        self.history.outcomes[number] = "unknown"
        outcome = self._try(number)
        doubtful = outcome == "unknown"
        while outcome == "unknown" and self.keyed and not self.leaving.is_set():
            time.sleep(0.02)
            outcome = self._try(number)
        # Refused at a later try is not refused at the first: that one may have been published.
        self.history.outcomes[number] = "unknown" if doubtful and outcome == "fail" else outcome
        self.acknowledged += outcome == "ok"
        return outcome

    def topic_of(self, number: int) -> str:
        return ELSEWHERE if self.elsewhere_every and number % self.elsewhere_every == 0 else TOPIC

    def request(self, number: int) -> tuple[str, str, str]:
        """Method, path and body that publish this event."""
        topic = self.topic_of(number)
        private = ', "private": true' if topic == ELSEWHERE else ""
        return "POST", "/channels/main/events", f'{{"topic": "{topic}", "data": "{number}"{private}}}'

    def _try(self, number: int) -> str:
        method, path, body = self.request(number)
        headers = {"Content-Type": "application/json"} | self.headers
        if self.keyed:
            headers["Idempotency-Key"] = f"{self.scope}-{number}"
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

    def abandon(self) -> None:
        """Stop where a test has failed."""
        self.leaving.set()
        if self.thread.is_alive():
            self.thread.join(10)
        if self.connection is not None:
            self.connection.close()

    def finish(self) -> int:
        """Stop, and publish one last event on each topic that is sure to be acknowledged; the number of that on the
        first.
        """
        self.leaving.set()
        if self.thread.is_alive():
            self.thread.join(10)
        end = time.monotonic() + 20
        last: dict[str, int] = {}
        while not last.keys() >= ({TOPIC, ELSEWHERE} if self.elsewhere_every else {TOPIC}):
            number = self.next
            if self.publish() == "ok":
                last[self.topic_of(number)] = number
                continue
            assert time.monotonic() < end, "no publish succeeds any more"
            time.sleep(0.02)
        if self.connection is not None:
            self.connection.close()
        self.last_elsewhere, self.last = last.get(ELSEWHERE), last[TOPIC]
        return self.last


class Subscriber:
    """Reads the topic, over as many connections as it takes. A `pause` between blocks makes it slow, and lets little
    stand in the kernel; it ends with the publishing. With `chance` it hangs up now and then, and returns. `elsewhere`
    is the other topic.
    """

    path = f"/channels/main/events?topic={TOPIC}"
    path_elsewhere = f"/channels/main/events?topic={ELSEWHERE}"
    type = "message"
    stays_blocks = STAYS_BLOCKS

    def __init__(
        self,
        ports: Sequence[int],
        history: History,
        name: str,
        publisher: Publisher,
        *,
        pause: float = 0.0,
        chance: random.Random | None = None,
        elsewhere: bool = False,
        **headers: str,
    ) -> None:
        self.ports, self.publisher, self.pause, self.headers = itertools.cycle(ports), publisher, pause, headers
        self.chance, self.elsewhere = chance, elsewhere
        self.name = name
        self.log = self.log_in(history, name)
        self.cursor: str | None = None
        self.connections = 0
        self.hung_up = 0
        self.endings: list[str] = []
        self.opened = threading.Event()
        self.broken: str | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def log_in(self, history: History, name: str) -> list[Seen]:
        """Where it writes. Those that are slow, hang up or read elsewhere are others than those that stay."""
        steady = not self.pause and self.chance is None and not self.elsewhere
        return (history.seen if steady else history.others).setdefault(name, [])

    @property
    def last(self) -> int | None:
        """The number of the last event, once it is published."""
        return self.publisher.last_elsewhere if self.elsewhere else self.publisher.last

    def _run(self) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        try:
            while not self._done():
                assert time.monotonic() < end, "the last event has not come, and it gave up"
                try:
                    self._connect()
                except OSError:
                    time.sleep(0.02)
        except Exception as error:
            self.broken = repr(error)

    def _done(self) -> bool:
        return self.last is not None and bool(self.log) and self.log[-1].number >= self.last

    def _connect(self) -> None:
        headers = self.headers | ({"Last_Event_ID": self.cursor} if self.cursor else {})
        try:
            path = self.path_elsewhere if self.elsewhere else self.path
            stream = Attempt(next(self.ports), path, seconds=20, **headers)
        except AssertionError:
            time.sleep(0.02)
            return
        self.connections += 1
        if self.pause:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
        stays_for = self.chance.randrange(3, self.stays_blocks) if self.chance else 0
        with stream:
            while not self._done() and (block := self._next(stream)) is not None:
                self._take(block)
                if block.fields:  # else nothing has come yet
                    self.opened.set()
                if self.pause and self.publisher.leaving.wait(self.pause):  # the slowness that was asked for
                    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HASTE_BUFFER_BYTES)
                stays_for -= 1
                # A gap has no id: who leaves right behind it is told of it again.
                if self.chance and stays_for < 0 and block.id is not None:
                    self._hang_up(stream, self.chance)
                    return
        if self.chance:
            self.publisher.leaving.wait(BACK_SECONDS)

    def _hang_up(self, stream: Attempt, chance: random.Random) -> None:
        """End the connection, by FIN or by RST, and stay away for a moment."""
        self.hung_up += 1
        if chance.random() < 0.5:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        stream.close()
        time.sleep(chance.uniform(0, 0.03))

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
                self.log.append(Seen(-1, block.data, time.monotonic(), self.connections))
            elif block.type == self.type:
                number = self.number_of(block.data)
                self.log.append(Seen(number, block.id or "", time.monotonic(), self.connections))
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
        assert not self.thread.is_alive(), (
            f"the last event ({self.last}) did not come to {self.name}; seen {self.log[-3:]} over {self.connections} "
            f"connections, {self.hung_up} of them hung up, now at {self.cursor}"
        )


def _from(ports: Sequence[int], number: int) -> Sequence[int]:
    """The ports in turn, beginning at one of them."""
    first = number % len(ports)
    return (*ports[first:], *ports[:first])


class Scene:
    """A publisher and subscribers of three kinds, from before the fault until all is said: those that stay (as many as
    asked for), a slow one, and ones that hang up by chance and return, of whom one reads another topic. With several
    nodes they begin at each in turn. `company` False leaves only those that stay, for tests that count connections.
    """

    publisher_of: type[Publisher] = Publisher
    subscriber_of: type[Subscriber] = Subscriber
    seed = FIRST_SEED

    def __init__(
        self, *ports: int, subscribers: int = 4, every: float = 0.002, keyed: bool = True, company: bool = True
    ) -> None:
        self.history = History()
        self.moments = random.Random(self.seed)
        self.ports = ports
        self.held = {port: streams(port) for port in ports}
        self.publisher = self.publisher_of(
            ports, self.history, every=every, keyed=keyed, elsewhere_every=ELSEWHERE_EVERY if company else 0
        )
        self.subscribers = [self._subscriber(f"subscriber {i}", i) for i in range(subscribers)]
        self.company: list[Subscriber] = []
        if company:
            self.company = [
                self._subscriber("slow", 0, pause=SLOW_SECONDS),
                self._subscriber("returning", 1, chance=random.Random(self.seed)),
                self._subscriber("returning elsewhere", 0, chance=random.Random(self.seed + 1), elsewhere=True),
            ]
        self.watches: list[Watch] = []
        for subscriber in self.everybody:
            assert subscriber.opened.wait(20), "a stream"

    @property
    def everybody(self) -> list[Subscriber]:
        return self.subscribers + self.company

    def _subscriber(self, name: str, first: int, **kind: Any) -> Subscriber:
        if self.publisher.elsewhere_every:
            self.history.topic_of[name] = ELSEWHERE if kind.get("elsewhere") else TOPIC
        return self.subscriber_of(_from(self.ports, first), self.history, name, self.publisher, **kind)

    def __enter__(self) -> Self:
        self.publisher.thread.start()
        return self

    def wait_for(self, more: int, seconds: float = 15) -> None:
        """Until `more` further events were acknowledged, or up to half as many again: the seed decides."""
        more += self.moments.randrange(more // 2 + 1)
        goal = self.publisher.acknowledged + more
        wait_until(lambda: self.publisher.acknowledged >= goal, seconds, f"{more} events acknowledged")

    def wait_for_tries(self, more: int, seconds: float = 15) -> None:
        """Until `more` further events were published or refused."""
        goal = self.publisher.next + more
        wait_until(lambda: self.publisher.next > goal, seconds, f"{more} events published or refused")

    def broken(self, *ports: int, seconds: float = NOTICED_SECONDS) -> None:
        """A fault begins now, of which `/ready` of these nodes has to tell within the time."""
        for port in ports:
            self.watches.append(Watch(self.history, port, seconds, RESUMED_SECONDS))

    def carried_on(self, seconds: float = RESUMED_SECONDS) -> None:
        """Events have to come to everybody within the time, also if what is broken stays so: others serve."""
        self.history.healed.append((time.monotonic(), seconds))

    def healed(self, seconds: float = RESUMED_SECONDS) -> None:
        """The fault ends now: events, and readiness where it was lost, have to be back within the time."""
        self.carried_on(seconds)
        for watch in self.watches:
            if watch.outage.healed is None:
                watch.outage.back_seconds = min(watch.outage.back_seconds, seconds)
                watch.outage.healed = time.monotonic()

    @contextmanager
    def nothing_acknowledged(self) -> Iterator[None]:
        """While this lasts nothing can be taken: what is begun and answered in it, of which there has to be some, is
        refused or stays unknown."""
        first = self.publisher.next
        yield
        answered = range(first, self.publisher.next - 1)  # the last one may be under way
        assert len(answered) >= ANSWERED_MEANWHILE, "few publishes fell into it"
        assert [number for number in answered if self.history.outcomes[number] == "ok"] == []

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            self.publisher.abandon()
            for watch in self.watches:
                watch.stop()
        else:
            self.publisher.finish()
            for one in (*self.everybody, *self.watches):
                one.finish()
            for port in self.ports:
                self.history.left_behind += left_behind(port, self.held[port])
