"""Locust users: `Reader` holds an event stream and measures every event on it, `Publisher` publishes numbered events.

What appears in Locust's statistics, under the type SSE: `open` (time to the first event of a stream), `event` (publish
to receipt, one entry an event), `replayed` (the same for events that were published while the reader was away),
`reconnect` (from the end of a stream until it is open again, the `retry:` pause included), `gap` (declared), `loss`
(one failure an event that is missing, repeated or out of order without a gap). Publishing appears as POST `publish`.

A reader's stream runs in a greenlet of its own beside the user's tasks, so a user may do other things while it listens,
and no user blocks another.
"""

from __future__ import annotations

import itertools
import time
import uuid

import gevent
from locust import FastHttpUser, User, constant_pacing, events, task
from locust.env import Environment
from locust.runners import STATE_CLEANUP

from benchmarks.locust.eventsource import EventSource, Message
from benchmarks.locust.marks import Ledger, Mark

TRIES = 3
LISTED_LOSSES = 1000
turn = itertools.count()


class Failure(Exception):
    """A reason that Locust lists among its failures."""


def headers(environment: Environment) -> dict[str, str]:
    """The token, if there is one."""
    token = environment.parsed_options.bearer_token
    return {"Authorization": f"Bearer {token}"} if token else {}


class Reader(User):
    """An EventSource. It is the `Listener` of its own stream. `hello`: the event that opens a stream."""

    wait_time = constant_pacing(1)
    hello = "hello"

    def on_start(self) -> None:
        options = self.environment.parsed_options
        topic = next(turn) % options.topics
        url, shown = f"{self.environment.host or self.host}{self.path(topic)}", self.headers(topic)
        self.ledger = Ledger()
        self.since = time.time()
        self.opened = 0.0
        self.source = EventSource(url, self, shown, silence_seconds=options.silence_seconds)
        self.greenlet_of_stream = gevent.spawn(self.source.run)

    def path(self, topic: int) -> str:
        """What to ask for. `topic` is one of so many as the options say."""
        return f"/channels/{self.environment.parsed_options.channel}/events?topic=load/{topic}"

    def headers(self, topic: int) -> dict[str, str]:  # noqa: ARG002 (for classes derived from this)
        """What to show."""
        return headers(self.environment)

    @task
    def listen(self) -> None:
        """Nothing: the stream runs by itself. Derive from this class and add tasks for what else a client does."""

    def on_stop(self) -> None:
        """At the end of the test wait for what publishers sent last; a series without its end has lost it."""
        if self.environment.runner is not None and self.environment.runner.state == STATE_CLEANUP:
            end = time.monotonic() + self.environment.parsed_options.grace_seconds
            while self.ledger.unfinished() and time.monotonic() < end and not self.source.closed:
                gevent.sleep(0.05)
            self._lost(self.ledger.unfinished(), "the end of a series did not come")
        self.source.close()
        self.greenlet_of_stream.join(timeout=1)
        self.greenlet_of_stream.kill()

    def _report(self, name: str, seconds: float = 0, size: int = 0, error: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type="SSE",
            name=name,
            response_time=seconds * 1000,
            response_length=size,
            exception=error,
            context={},
        )

    def _lost(self, count: int, how: str) -> None:
        for _ in range(min(count, LISTED_LOSSES)):
            self._report("loss", error=Failure(how))

    def message(self, message: Message, received: float) -> None:
        """Sort an event into the statistics."""
        if message.type == self.hello:
            self._report("reconnect" if self.opened else "open", received - self.since)
            self.opened = received
        elif message.type == "gap":
            self._report("gap", size=len(message.data))
            self.ledger.excuse()
        elif (mark := Mark.read(message.data)) is not None:
            missing, repeated = self.ledger.take(mark)
            self._lost(missing, "missing")
            self._lost(repeated, "repeated or out of order")
            if not repeated:
                self._report(
                    "event" if mark.sent >= self.opened else "replayed", received - mark.sent, len(message.data)
                )

    def ended(self, error: Exception | None) -> None:
        """A network error is an error of the load test's; an end is what servers do now and then."""
        self.since = time.time()
        if error is not None:
            self._report("reconnect" if self.opened else "open", error=error)

    def refused(self, status: int) -> None:
        """Refused for good; Locust replaces no user, so this reader stays silent."""
        self._report("reconnect" if self.opened else "open", error=Failure(f"refused with status {status}"))


class Publisher(FastHttpUser):
    """Publishes events with marks, as many a second as the options say. A publish that fails is repeated under its
    idempotency key.
    """

    fixed_count = 10

    def on_start(self) -> None:
        options = self.environment.parsed_options
        self.name = uuid.uuid4().hex[:12]
        self.numbers = [0] * options.topics
        self.topics = itertools.cycle(range(options.topics))

    def channel(self) -> str:
        """Where to publish."""
        return str(self.environment.parsed_options.channel)

    def event(self, topic: int) -> dict[str, object]:
        """An event but for its data."""
        return {"topic": f"load/{topic}"}

    def wait_time(self) -> float:
        return float(1 / self.environment.parsed_options.publish_rate)

    @task
    def publish(self) -> None:
        self._publish(next(self.topics))

    def on_stop(self) -> None:
        """End each series, so that readers can tell that they have it whole."""
        for topic, number in enumerate(self.numbers):
            if number:
                self._publish(topic, last=True)

    def _publish(self, topic: int, *, last: bool = False) -> None:
        options = self.environment.parsed_options
        series = f"{self.name}/{topic}"
        mark = Mark(series, self.numbers[topic], time.time(), last)
        body = self.event(topic) | {"data": mark.write(options.data_bytes)}
        path = f"/channels/{self.channel()}/events"
        head = headers(self.environment) | {"Idempotency-Key": f"{series}/{mark.number}"}
        for _ in range(TRIES):
            with self.client.post(path, json=body, headers=head, name="publish", catch_response=True) as answer:
                if answer.status_code == 200:
                    self.numbers[topic] += 1
                    return
                answer.failure(f"status {answer.status_code}")


@events.init.add_listener
def set_shares(environment: Environment, **_: object) -> None:
    """How many of the users publish is an option."""
    if environment.parsed_options is not None:
        Publisher.fixed_count = environment.parsed_options.publishers
