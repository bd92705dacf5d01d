"""Bridges: the common shape of what brings events in from elsewhere, and the way of its messages into the logs.

Owns the life of a bridge (from connection to connection, with waits that grow and have jitter), what it says of itself
(state, counters), and the appending of what its messages become. Must never know a protocol.

Invariants: a message that does not fit its mapping is counted, told of in the log at most once a second, and let go:
it must not stop its source. One at which an application's handler raises what it should not comes again a few times,
for nobody knows whose fault it is, and is let go then. What waits for the database or the relay waits as long as it has
to. `deliver` returns when everything is in the log (or let go), and appends a channel's events in the order of the
messages. Every append has an idempotency key, the message's own or one made for it, so that trying again after a lost
answer never doubles. How much may be on its way is bounded: who brings more has to wait.
Cost: one append per message with an identity of its own, all of a batch in one turn; one append for those without that
follow each other.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from bridges.mapping import Handler, Mapping, Message, Publication, Unmappable
from server.event import Event, InvalidEvent
from server.hub import Hub
from server.logs import get_logger
from server.relay.protocol import Appended, Key, RelayUnavailable
from server.supervision import cancelled, rest

MAX_BATCHES_ON_THEIR_WAY = 32
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0
HEALTHY_SECONDS = 10.0  # a connection that lasted this long starts with the short wait again
SECONDS_BETWEEN_LINES = 1.0
STOP_SECONDS = 3.0
DEFECT_TRIES = 3  # of a handler that raises, in a row: less than half a second, for what is behind has to wait
DEFECT_DELIVERIES = 5  # by a source, which waits before each, longer and longer if nothing else is taken
MAX_DEFECTS = 10_000  # messages that are remembered: about 1.5 MB

log = get_logger("bridge")


class Waits:
    """How long to wait before each next try: doubling up to a bound, with jitter."""

    def __init__(self, first: float = FIRST_WAIT_SECONDS, longest: float = LONGEST_WAIT_SECONDS) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def next(self) -> float:
        """The wait before the next try, in seconds."""
        wait, self._next = self._next, min(self._next * 2, self._longest)
        return wait * (0.5 + random.random() / 2)

    def reset(self) -> None:
        """It went well: begin with the short one."""
        self._next = self._first


@dataclass(slots=True)
class Counts:
    """What a bridge did. `lag` is the number of messages that are known to wait, here or at the source."""

    received: int = 0
    published: int = 0
    repeated: int = 0
    unmappable: int = 0
    dropped: int = 0
    retries: int = 0
    reconnects: int = 0
    lag: int = 0


COUNTERS = {
    "received": "Messages that came.",
    "published": "Events appended.",
    "repeated": "Events that were in the log before: their message came again.",
    "unmappable": "Messages that did not fit their mapping, or whose event was refused; let go.",
    "dropped": "Messages that came faster than they could be appended; let go.",
    "retries": "Tries to append, or to hand over to an application, that failed and were made again.",
    "reconnects": "Times that the connection to the source was lost; without a log there, messages may be missed.",
}


class Append(NamedTuple):
    """Events of one channel that enter its log together; each by the number of its publication."""

    channel: str
    events: dict[int, Event]
    key: Key


class Publishing:
    """Brings publications into the logs. `name` is the bridge's; it keeps keys of different bridges apart."""

    def __init__(self, hub: Hub, name: str, counts: Counts | None = None) -> None:
        self.name = name
        self.counts = counts or Counts()
        self.state = "ok"  # or why the last append failed
        self._hub = hub
        self._scope = f"bridge {name}"
        self._room = asyncio.Semaphore(MAX_BATCHES_ON_THEIR_WAY)
        self._told = float("-inf")
        self._untold = 0

    async def publish(self, publications: Sequence[Publication], *, patience_seconds: float = 0.0) -> set[int]:
        """Append everything, a channel's events in this order. Tries again for `patience_seconds` while the relay is
        away. The numbers of those that were let go, for the log refuses them. Raises RelayUnavailable: some may be in
        the log. Given again, those with a key are not doubled.
        """
        async with self._room:
            return await self._append_all(list(self._appends(publications)), time.monotonic() + patience_seconds)

    async def _append_all(self, appends: list[Append], deadline: float) -> set[int]:
        waits = Waits()
        let_go: set[int] = set()
        while appends:
            outcomes = await asyncio.gather(
                *(self._append(append, let_go) for append in appends), return_exceptions=True
            )
            errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            appends = [
                left for append, outcome in zip(appends, outcomes, strict=True) for left in _left(append, outcome)
            ]
            self.state = _reason(errors[0]) if errors else "ok"
            if errors:
                self.counts.retries += 1
                wait = waits.next()
                if time.monotonic() + wait > deadline:
                    raise errors[0]
                await asyncio.sleep(wait)
        return let_go

    async def _append(self, append: Append, let_go: set[int]) -> Sequence[Append]:
        """Append, or add to what is let go; what is left to do. Raises RelayUnavailable."""
        try:
            channel = await self._hub.open(append.channel)
            answer = self._hub.publish(channel, [*append.events.values()], append.key)
            appended = answer if isinstance(answer, Appended) else await answer
        except RelayUnavailable:
            raise
        except InvalidEvent as error:  # one is too large
            misfit = Unmappable(error.field, error.reason)
        except KeyError:
            misfit = Unmappable("channel", "cannot be opened: there are as many as there may be")
        except Exception as error:  # a defect of ours: its message must not stop the source
            log.exception("append_failed", bridge=self.name)
            misfit = Unmappable("event", f"raised {type(error).__name__}")
        else:
            self.counts.published += 0 if appended.replayed else len(append.events)
            self.counts.repeated += len(append.events) if appended.replayed else 0
            return ()
        if len(append.events) > 1:  # not all of them
            return [Append(append.channel, {at: one}, self._new_key()) for at, one in append.events.items()]
        self.let_go(misfit)
        let_go.update(append.events)
        return ()

    def _appends(self, publications: Iterable[Publication]) -> Iterator[Append]:
        """Those without a key go together as long as they are of one channel."""
        together: dict[int, Event] = {}
        before = ""
        for number, (channel, event, key) in enumerate(publications):
            if together and (key is not None or channel != before):
                yield Append(before, together, self._new_key())
                together = {}
            if key is None:
                together[number] = event
                before = channel
            else:
                yield Append(channel, {number: event}, self._key(key))
        if together:
            yield Append(before, together, self._new_key())

    def _key(self, text: str) -> Key:
        # The same key is the same message, however its event looks after a change of the mapping.
        return Key(self._scope, text, hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest())

    def _new_key(self) -> Key:
        return self._key(uuid.uuid4().hex)

    def let_go(self, error: Unmappable) -> None:
        """Count a message that does not fit, and say so if that was not said a moment ago."""
        self.counts.unmappable += 1
        self._untold += 1
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN_LINES:
            log.warning("unmappable", bridge=self.name, field=error.field, reason=error.reason, messages=self._untold)
            self._told, self._untold = now, 0


def _left(append: Append, outcome: Sequence[Append] | BaseException) -> Sequence[Append]:
    return [append] if isinstance(outcome, BaseException) else outcome


def _reason(error: BaseException) -> str:
    return error.reason if isinstance(error, RelayUnavailable) else type(error).__name__


class Taken(NamedTuple):
    """A message, and the mappings that it is for."""

    message: Message
    mappings: Sequence[Mapping]


class Defects:
    """How often handlers raised at a message, whatever the reason: a defect of theirs, which a message of its kind will
    always meet, or something that passes. Only coming again tells. `deliveries` is after how many a message is let go:
    1 where the source does not give it again, or gives it to a dead-letter topic, which counts for itself.

    A node knows only its own count: where messages go from node to node there are so many more deliveries.
    """

    def __init__(self, deliveries: int) -> None:
        self._deliveries = deliveries
        self._raised: dict[str, int] = {}

    def is_hopeless(self, message: Message) -> bool:
        """It has raised once more. True if it is to be let go."""
        raised = 1 if message.id is None else self._raised.pop(message.id, 0) + 1
        if message.id is None or raised >= self._deliveries:
            return True
        self._raised[message.id] = raised
        if len(self._raised) > MAX_DEFECTS:
            del self._raised[next(iter(self._raised))]
        return False


class SourceLost(Exception):
    """The source does not answer, or refuses. `reason` is safe to show: nothing of addresses or secrets."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Bridge(ABC):
    """A bridge. `name` is unique among a node's. Made without waiting; `run` is kept running by the node.

    `source_state` is "ok", or what is wrong with the source: `found` and `SourceLost` set it. `deliveries` as `Defects`
    has it.
    """

    kind: ClassVar[str]

    def __init__(self, name: str, hub: Hub, *, deliveries: int = DEFECT_DELIVERIES) -> None:
        self.name = name
        self.active = False  # True while this node reads the source
        self.source_state = "not connected yet"
        self.counts = Counts()
        self.publishing = Publishing(hub, name, self.counts)
        self.stopping = asyncio.Event()
        self._defects = Defects(deliveries)
        self._ended = asyncio.Event()
        self._ended.set()

    @property
    def state(self) -> str:
        """For /ready: "ok", or what is wrong with the source or with the relay."""
        return self.publishing.state if self.source_state == "ok" else self.source_state

    def found(self) -> None:
        """The source is there and is read from, or could be."""
        if self.source_state != "ok":
            log.info("source_found", bridge=self.name, kind=self.kind)
        self.source_state = "ok"

    def facts(self) -> dict[str, object]:
        """For /stats."""
        return {"kind": self.kind, "state": self.state, "active": self.active, **asdict(self.counts)}

    async def run(self) -> None:
        """Bring messages in, until `stop`."""
        self._ended.clear()
        try:
            await self.work()
        finally:
            self._ended.set()

    async def work(self) -> None:
        """Follow the source from connection to connection, until `stopping` is set."""
        waits = Waits()
        while not self.stopping.is_set():
            began = time.monotonic()
            try:
                await self.follow()
            except SourceLost as error:
                self._lost(error.reason)
            if time.monotonic() - began > HEALTHY_SECONDS:
                waits.reset()
            await self.rest(waits.next())

    @abstractmethod
    async def follow(self) -> None:
        """Connect, say that the source is `found`, and bring messages in until `stopping` is set; then let go of the
        source, and return when what came is in the logs. Raises SourceLost."""

    def _lost(self, reason: str) -> None:
        if self.source_state == "ok":
            self.counts.reconnects += 1
        if self.source_state != reason:
            log.warning("source_lost", bridge=self.name, reason=reason)
        self.source_state = reason

    async def rest(self, seconds: float) -> None:
        """Wait, but not beyond `stop`."""
        await rest(self.stopping, seconds)

    async def stop(self) -> None:
        """Take no more, and return when what has come is in the logs, or after `STOP_SECONDS`."""
        self.stopping.set()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            log.warning("bridge_left", bridge=self.name, waiting=self.counts.lag)

    async def deliver(self, batch: Sequence[Taken], *, patience_seconds: float = 0.0) -> set[int]:
        """Bring messages in, in this order; return when they are in the logs, or let go. The numbers in the batch of
        those that were let go, because they don't fit or because the log refuses what they became.

        Raises RelayUnavailable: some may be in; messages with an id may be given again without being doubled.
        """
        self.counts.received += len(batch)
        let_go: set[int] = set()
        made: list[tuple[int, Publication]] = []
        for number, (message, mappings) in enumerate(batch):
            for place, mapping in enumerate(mappings):
                try:
                    if mapping.handler is None:
                        made += [(number, one) for one in self._mapped(mapping, place, message)]
                        continue
                    let_go |= await self._publish(made, patience_seconds)
                    made = []
                    await self._handle(mapping.handler, message, patience_seconds)
                except Unmappable as error:
                    self.publishing.let_go(error)
                    let_go.add(number)
        return let_go | await self._publish(made, patience_seconds)

    def _mapped(self, mapping: Mapping, place: int, message: Message) -> list[Publication]:
        """What the mapping at this place makes of a message. Raises Unmappable."""
        try:
            return _for_mapping(mapping.publications(message), place)
        except Unmappable:
            raise
        except Exception as error:  # a defect: its message must not stop the source
            log.exception("mapping_failed", bridge=self.name)
            raise Unmappable("mapping", f"raised {type(error).__name__}") from error

    async def _publish(self, made: Sequence[tuple[int, Publication]], patience_seconds: float) -> set[int]:
        """The numbers of the messages of those publications that were let go. Raises RelayUnavailable."""
        if not made:
            return set()
        publications = [publication for _, publication in made]
        refused = await self.publishing.publish(publications, patience_seconds=patience_seconds)
        return {made[at][0] for at in refused}

    async def _handle(self, handler: Handler, message: Message, patience_seconds: float) -> None:
        """Raises Unmappable, RelayUnavailable."""
        from bridges.database import DatabaseUnavailable, is_of_values  # only applications have handlers, and have it

        deadline = time.monotonic() + patience_seconds
        waits = Waits()
        raised = 0
        while True:
            wait = waits.next()
            try:
                return await handler(message)
            except Unmappable:
                raise
            except (RelayUnavailable, DatabaseUnavailable) as error:
                if time.monotonic() + wait > deadline:
                    raise RelayUnavailable(error.reason) from error
            except Exception as error:
                if is_of_values(error):
                    raise Unmappable("message", "has values that the database cannot hold") from error
                raised += 1
                if raised == DEFECT_TRIES or time.monotonic() + wait > deadline:
                    log.exception("handler_failed", bridge=self.name)
                    reason = f"raised {type(error).__name__}"
                    if self._defects.is_hopeless(message):
                        raise Unmappable("handler", reason) from error
                    raise RelayUnavailable(f"the handler {reason}") from error
            self.counts.retries += 1
            await asyncio.sleep(wait)


def _for_mapping(publications: list[Publication], place: int) -> list[Publication]:
    """What the second mapping of a message makes of it must not be taken for what the first has made."""
    if not place:
        return publications
    return [one if one.key is None else one._replace(key=f"{one.key}@{place}") for one in publications]


async def first_of(*works: Coroutine[Any, Any, Any]) -> None:
    """Run all until one of them ends or raises, which is then raised here; the others are cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancelled(tasks)
        errors = [task.exception() for task in tasks if not task.cancelled()]
    for error in errors:
        if error is not None:
            raise error


def metrics(bridges: Iterable[Bridge]) -> Iterator[Metric]:
    """What a scrape gets of all bridges of a node."""
    every = list(bridges)
    up = GaugeMetricFamily("ringcast_bridge_up", "1 if the bridge is well.", labels=["bridge"])
    lag = GaugeMetricFamily("ringcast_bridge_lag", "Messages that are known to wait.", labels=["bridge"])
    active = GaugeMetricFamily("ringcast_bridge_active", "1 if this node reads the source now.", labels=["bridge"])
    for bridge in every:
        up.add_metric([bridge.name], int(bridge.state == "ok"))
        active.add_metric([bridge.name], int(bridge.active))
        lag.add_metric([bridge.name], bridge.counts.lag)
    yield from (up, active, lag)
    for name, text in COUNTERS.items():
        family = CounterMetricFamily(f"ringcast_bridge_{name}", text, labels=["bridge"])
        for bridge in every:
            family.add_metric([bridge.name], getattr(bridge.counts, name))
        yield family
