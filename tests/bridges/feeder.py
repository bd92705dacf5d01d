"""Publishers to the sources of bridges, which write down what they were told, for the checker of faults
(tests/faults/checker.py).

Owns how each source is given numbers, and what its answer promises. Must know no fault, and judges nothing. Where a
source tells repeated messages apart, or whoever gives them repeats them, a number is given until the source has it
(`repeats`); what is missing, doubled or out of order later was done by the bridge. A source that keeps nothing promises
only what it is given while a bridge listens: what a test says may be lost (`doubted`) stays unknown, all else has to
come. Cost: a thread and a request for each number.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, ClassVar

from nats.aio.client import Client
from nats.errors import Error

from tests.bridges.google import PATH, envelope, token
from tests.faults.checker import History
from tests.faults.witnesses import ELSEWHERE, TOPIC, Publisher
from tests.harness.process import Node, wait_until
from tests.harness.pubsub import PubSubEmulator, subscription_path
from tests.harness.redis import RedisServer

SETTLED_SECONDS = 30.0  # twice what Pub/Sub takes to give again what a dead node had in hand
ANSWER_SECONDS = 1.0


class Feeder(Publisher):
    """Gives numbers to a source, each under the topic that it is for, until `finish`."""

    repeats: ClassVar[bool] = True
    in_order = True  # otherwise each number is an author's of its own, of whom no order is demanded

    def __init__(
        self, ports: Sequence[int], history: History, *, every: float, keyed: bool, elsewhere_every: int
    ) -> None:
        super().__init__(ports, history, every=every, keyed=keyed and self.repeats, elsewhere_every=elsewhere_every)
        self.certain = True
        self.turn = threading.RLock()
        self.missed: set[int] = set()

    def give(self, number: int) -> None:
        """Give it to the source, and return when that has it. Raises OSError, Error, HTTPException."""
        raise NotImplementedError

    def _try(self, number: int) -> str:
        if not self.in_order:
            self.history.authors[number] = number
        certain = self.certain  # when it is given: an answer may take until the doubt is over
        try:
            self.give(number)
        except (OSError, Error, http.client.HTTPException):
            return "unknown"
        return "ok" if certain else "unknown"

    @contextmanager
    def doubted(self) -> Iterator[None]:
        """What is given meanwhile may be lost. What was given before has come when this begins, or is lost."""
        with self.turn:
            self.certain = False
        self._settle()
        yield
        self.certain = True

    @contextmanager
    def counted(self) -> Iterator[None]:
        """As `doubted`, and nothing is given meanwhile but by the test itself, which has to know how much it is."""
        with self.turn, self.doubted():
            yield

    def seen_of(self, numbers: Iterable[int]) -> list[int]:
        """Those of the numbers that somebody has seen."""
        logs = [*self.history.seen.values(), *self.history.others.values()]
        return sorted(set(numbers) & {entry.number for log in logs for entry in log.copy()})

    def _settle(self) -> None:
        """Wait until somebody has seen each number that the source acknowledged. Whether all did is for the checker;
        for what does not come in time nobody waits again.
        """
        given = {number for number, outcome in self.history.outcomes.copy().items() if outcome == "ok"} - self.missed
        end = time.monotonic() + SETTLED_SECONDS
        while len(came := self.seen_of(given)) < len(given):
            if time.monotonic() > end:
                self.missed |= given - set(came)
                return
            time.sleep(0.05)

    def publish(self) -> str:
        """See Publisher.publish. Where nothing promises that the last number comes last, it is given when all others
        have come.
        """
        if self.leaving.is_set() and not self.in_order:
            self._settle()
        with self.turn:
            return super().publish()

    def finish(self) -> int:
        """See Publisher.finish."""
        last = super().finish()
        self.end()
        return last

    def end(self) -> None:
        """Let go of the source."""


class NatsFeeder(Feeder):
    """Over a connection to NATS, on the subject `numbers.TOPIC`."""

    def __init__(self, url: str, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.url = url
        self.client: Client | None = None
        # Of whoever gives a number: the thread, and at the end the test.
        self.loop = asyncio.new_event_loop()

    def give(self, number: int) -> None:
        """See Feeder.give."""
        try:
            self.loop.run_until_complete(self._give(f"numbers.{self.topic_of(number)}", str(number)))
        except (OSError, Error):
            self._hang_up()
            raise

    async def _give(self, subject: str, number: str) -> None:
        if self.client is None:
            self.client = Client()
            await self.client.connect(self.url, allow_reconnect=False, error_cb=_ignore)
        await self.hand_over(self.client, subject, number)

    def hand_over(self, client: Client, subject: str, number: str) -> Coroutine[Any, Any, None]:
        """Return when NATS has it."""
        raise NotImplementedError

    def _hang_up(self) -> None:
        if self.client is not None:
            self.loop.run_until_complete(self.client.close())
        self.client = None

    def end(self) -> None:
        """See Feeder.end."""
        self._hang_up()
        self.loop.close()


class JetStreamFeeder(NatsFeeder):
    """Each number under itself as `Nats-Msg-Id`, until JetStream has stored it."""

    async def hand_over(self, client: Client, subject: str, number: str) -> None:
        """See NatsFeeder.hand_over."""
        headers = {"Nats-Msg-Id": number}
        await client.jetstream(timeout=ANSWER_SECONDS).publish(subject, number.encode(), headers=headers)


class CoreFeeder(NatsFeeder):
    """Each number once, and a ping behind it: what was before the ping has been handed to whoever listened."""

    repeats = False

    def __init__(self, url: str, *args: Any, in_order: bool = True, **options: Any) -> None:
        super().__init__(url, *args, **options)
        self.in_order = in_order

    def until_all_come(self, in_a_row: int) -> None:
        """Wait until of the numbers that are given from now on so many have come in a row."""
        first = self.next

        def come() -> bool:
            newest = max(self.seen_of(range(first, self.next)), default=first)
            return len(self.seen_of(range(max(first, newest - in_a_row), newest))) == in_a_row

        wait_until(come, what=f"{in_a_row} numbers in a row")

    async def hand_over(self, client: Client, subject: str, number: str) -> None:
        """See NatsFeeder.hand_over."""
        await client.publish(subject, number.encode())
        await client.flush(ANSWER_SECONDS)  # type: ignore[arg-type]  # any number of seconds

    def burst(self, count: int) -> list[int]:
        """The numbers that it gives at once. Whether they come stays unknown."""
        numbers = list(range(self.next, self.next + count))
        self.next += count
        for number in numbers:
            self.history.authors[number] = id(self)
            self.history.topics[number] = self.topic_of(number)
            self.history.outcomes[number] = "unknown"
        self.loop.run_until_complete(self._burst(numbers))
        return numbers

    async def _burst(self, numbers: list[int]) -> None:
        assert self.client is not None
        for number in numbers:
            await self.client.publish(f"numbers.{self.topic_of(number)}", str(number).encode())
        await self.client.flush()


async def _ignore(error: Exception) -> None:
    """The library would print it."""


class RedisFeeder(Feeder):
    """Each number once, by PUBLISH on the channel `numbers:TOPIC`."""

    repeats = False

    def __init__(self, source: RedisServer, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.source = source

    def give(self, number: int) -> None:
        """See Feeder.give."""
        answer = self.source.command("PUBLISH", f"numbers:{self.topic_of(number)}", str(number))
        if not answer.startswith(b":"):
            raise ConnectionError(f"Redis answered {answer!r}")


class PubSubFeeder(Feeder):
    """To a topic of Pub/Sub, with the number's topic as attribute; in order, under an ordering key, or without.

    Pub/Sub does not recognise a message that is given again. So a number is given once, unless what comes again is told
    apart by its body (`told_apart`): an emulator that was away has forgotten everything, and gets it all again when its
    subscription `NAME-in` is there."""

    def __init__(
        self, emulator: PubSubEmulator, name: str, *args: Any, ordered: bool, told_apart: bool = False, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.emulator, self.name = emulator, name
        self.in_order, self.keyed = ordered, told_apart
        self.forgotten = False

    def give(self, number: int) -> None:
        """See Feeder.give."""
        again = self.forgotten and self.keyed
        self.forgotten = True
        if again and "name" not in self.emulator.ask("GET", f"/v1/{subscription_path(f'{self.name}-in')}"):
            raise ConnectionError("nobody has subscribed to the topic yet")
        numbers = range(number + 1) if again else [number]
        for topic in (TOPIC, ELSEWHERE):
            if bodies := [str(one) for one in numbers if self.topic_of(one) == topic]:
                self.emulator.publish(self.name, *bodies, key="a" if self.in_order else "", about=topic)
        self.forgotten = False


class PushFeeder(Feeder):
    """Pushes as Google does: each number again, until it is answered with 204. Other answers are added to `refusals`,
    with their Retry-After."""

    def __init__(
        self, node: Node, subscription: str, refusals: list[tuple[int, str | None]], *args: Any, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.node, self.subscription, self.refusals = node, subscription, refusals
        self.bearer = {"Content-Type": "application/json", "Authorization": f"Bearer {token()}"}

    def give(self, number: int) -> None:
        """See Feeder.give."""
        pushed = envelope(str(number), str(number), attributes={"about": self.topic_of(number)})
        body = json.dumps(pushed | {"subscription": self.subscription})
        with closing(http.client.HTTPConnection("127.0.0.1", self.node.port, timeout=10)) as connection:
            connection.request("POST", PATH, body, self.bearer)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 204:
                self.refusals.append((answer.status, answer.getheader("Retry-After")))
                raise ConnectionError(f"refused for now: {answer.status}")
