"""The bridge for JetStream: a durable consumer, whose messages are acknowledged when their events are in the log.

Owns the pulling and the acknowledging. Must never know core NATS's queue groups, nor how events are appended.

How: the node asks for `PULL_MESSAGES` at most, appends what comes in its order, each message under its own id
(`Nats-Msg-Id`, else stream and sequence) as idempotency key, and acknowledges it then. While an append takes long, the
server is told that it is in progress. Messages that don't fit their mapping are terminated. If the relay is away for
longer than `PATIENCE_SECONDS`, all that has come is given back for later, and nothing is asked for until then.

Invariants: nothing is acknowledged that is not in the log. What comes again because an acknowledgement was lost is
recognised by its key, within the time that keys count (`idempotency_seconds`). With `ordered` events are in the order
of the stream: one node at a time reads (`turns`), begins only when what was taken before and not acknowledged is due
again, and gives back what is new until all of that has come. (A server that stood still sends what is new first.)
Cost: one append and one acknowledgement per message, both in batches.
Sources: NATS ADR-13 (pull subscribe internals), JetStream API v1.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import ujson
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo
from nats.js.client import JetStreamContext
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from bridges.bridge import Bridge, SourceLost, Taken, Waits, first_of
from bridges.inflow import BATCH_BYTES, BATCH_MESSAGES
from bridges.mapping import Mapping, Unmappable
from bridges.nats_connection import ERRORS, NatsConnection, NatsTarget, connect, reason_of
from bridges.nats_subjects import message_of
from bridges.turns import NoTurns, Turns
from server.hub import Hub
from server.logs import get_logger
from server.relay.protocol import RelayUnavailable

PULL_MESSAGES = 500
# Short, so that what was asked for can be waited for: the server puts a message that it meant for somebody who is gone
# behind all others that are to come again.
PULL_SECONDS = 1.0
SILENCE_SECONDS = 3.0
PATIENCE_SECONDS = 10.0
ACK_WAIT_SECONDS = 5.0  # of a consumer that is created here
MARGIN_SECONDS = 0.5
FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 10.0
MAX_OVERTAKEN = 5  # in a row; then what does not come is taken for lost at the server, and the rest goes on
NANOSECONDS = 1_000_000_000

log = get_logger("bridge")


class Consumer(NamedTuple):
    """Which consumer of which stream. With `create` they are made if they are not there: the stream of `subjects` (if
    there are any), the consumer of the mappings' sources."""

    stream: str
    durable: str = "ringcast"
    domain: str | None = None
    create: bool = False
    subjects: tuple[str, ...] = ()

    @property
    def next_subject(self) -> str:
        """Where to ask for messages."""
        prefix = f"$JS.{self.domain}.API" if self.domain else "$JS.API"
        return f"{prefix}.CONSUMER.MSG.NEXT.{self.stream}.{self.durable}"


def subject_matches(pattern: str, subject: str) -> bool:
    """True if a subject is one of those that a pattern with wildcards means."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(one in ("*", other) for one, other in zip(wanted, tokens, strict=True))


class Unacknowledged(NamedTuple):
    """What was taken and not acknowledged: so many messages, none of them with a sequence number beyond `upto`. They
    come before all that is beyond it."""

    messages: int
    upto: int

    def without(self, batch: Sequence[Msg]) -> Unacknowledged | None:
        """What is left when these have come, in this order; None if one of them came too early."""
        left = self.messages
        for msg in batch:
            if msg.metadata.sequence.stream <= self.upto:
                left -= 1
            elif left > 0:
                return None
        return Unacknowledged(max(0, left), self.upto)


NOTHING = Unacknowledged(0, 0)


class Pull:
    """One inbox: what was asked for, what has come, and when something was heard last. `stirred` is set when something
    comes, and ends a rest."""

    def __init__(self, connection: NatsConnection, next_subject: str, stirred: asyncio.Event) -> None:
        self._connection = connection
        self._next_subject = next_subject
        self._inbox = connection.client.new_inbox()
        self._asked = 0
        self._heard = time.monotonic()
        self.came: deque[Msg] = deque()
        self._stirred = stirred

    async def open(self) -> None:
        """Begin to listen."""
        await self._connection.client.subscribe(self._inbox, cb=self._take)

    async def _take(self, msg: Msg) -> None:
        self._heard = time.monotonic()
        headers = msg.headers or {}
        if msg.reply:  # to be acknowledged; what JetStream itself says is not, whatever headers a publisher sets
            self._asked -= 1
            self.came.append(msg)
        elif headers.get("Status") in ("404", "408"):  # the time is over, or there is nothing
            self._asked = 0
        else:
            text = headers.get("Description", "no such consumer").lower()
            self._connection.fail(f"JetStream says: {text[:80]}")
        self._stirred.set()

    async def ask(self) -> None:
        """Ask for more if what was asked for has come."""
        if self._asked > 0:
            return
        self._asked = PULL_MESSAGES
        self._heard = time.monotonic()
        wanted = ujson.dumps({"batch": PULL_MESSAGES, "expires": int(PULL_SECONDS * NANOSECONDS)})
        await self._connection.client.publish(self._next_subject, wanted.encode(), self._inbox)

    async def rest(self) -> None:
        """Wait until something comes, for `PULL_SECONDS` at most. Raises SourceLost."""
        self._stirred.clear()
        try:
            async with asyncio.timeout(PULL_SECONDS):
                await self._stirred.wait()
        except TimeoutError:
            if self._asked > 0 and time.monotonic() - self._heard > SILENCE_SECONDS:
                raise SourceLost("JetStream does not answer") from None
        self._connection.check()

    async def finish(self) -> None:
        """Return when nothing that was asked for can come any more. Raises SourceLost."""
        while self._asked > 0:
            await self.rest()

    def batch(self) -> list[Msg]:
        """The oldest of what has come; it stays in `came` until it is done with."""
        batch: list[Msg] = []
        size = 0
        for msg in self.came:
            size += len(msg.data)
            if batch and (size > BATCH_BYTES or len(batch) == BATCH_MESSAGES):
                break
            batch.append(msg)
        return batch


class JetStream(Bridge):
    """See the module's head. A mapping's source is a subject with wildcards."""

    kind: ClassVar[str] = "jetstream"

    def __init__(
        self,
        name: str,
        hub: Hub,
        target: NatsTarget,
        mappings: Sequence[Mapping],
        consumer: Consumer,
        *,
        ordered: bool = True,
        turns: Turns | None = None,
    ) -> None:
        super().__init__(name, hub)
        self._target = target
        self._mappings = list(mappings)
        self._consumer = consumer
        self._turns = turns or NoTurns()
        self._ordered = ordered
        self._delays = Waits(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS)
        self._ack_wait_seconds = ACK_WAIT_SECONDS
        self._stirred = asyncio.Event()
        self._due = NOTHING  # again, before what is new
        self._overtaken = 0

    async def follow(self) -> None:
        """See Bridge.follow."""
        connection = await connect(self._target, f"ringcast {self.name}")
        try:
            info = await self._find_consumer(connection.client.jetstream(domain=self._consumer.domain))
            self._ack_wait_seconds = info.config.ack_wait or ACK_WAIT_SECONDS
            self.found()
            await first_of(connection.lost.wait(), self._turns.taken(self.stopping, lambda: self._read(connection)))
            connection.check()
        except JetStreamError as error:
            raise SourceLost(_reason(error)) from error
        except ERRORS as error:
            raise SourceLost(reason_of(error)) from error
        finally:
            await connection.close()

    async def _find_consumer(self, jetstream: JetStreamContext) -> ConsumerInfo:
        wanted = self._consumer
        try:
            info: ConsumerInfo = await jetstream.consumer_info(wanted.stream, wanted.durable)
        except NotFoundError:
            if not wanted.create:
                raise
            info = await self._make_consumer(jetstream)
        filters = info.config.filter_subjects or [info.config.filter_subject or ""]
        if wanted.create and set(filters) != {mapping.source for mapping in self._mappings}:
            info = await self._make_consumer(jetstream)
        if (info.config.max_deliver or -1) > 0:
            log.warning("consumer_gives_up", bridge=self.name, after_deliveries=info.config.max_deliver)
        if info.config.ack_policy != AckPolicy.EXPLICIT or info.config.deliver_subject:
            raise SourceLost("the consumer must be a pull consumer with explicit acknowledgement")
        return info

    async def _make_consumer(self, jetstream: JetStreamContext) -> ConsumerInfo:
        wanted = self._consumer
        if wanted.subjects:
            try:
                await jetstream.stream_info(wanted.stream)
            except NotFoundError:
                await jetstream.add_stream(name=wanted.stream, subjects=list(wanted.subjects))
        config = ConsumerConfig(
            durable_name=wanted.durable,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_SECONDS,
            max_ack_pending=PULL_MESSAGES * 2,
            filter_subjects=list(dict.fromkeys(mapping.source for mapping in self._mappings)),
        )
        made: ConsumerInfo = await jetstream.add_consumer(wanted.stream, config)
        return made

    async def _read(self, connection: NatsConnection) -> None:
        """Read while it is this node's turn, until `stopping`. Raises SourceLost."""
        await self._await_others(connection)
        pull = Pull(connection, self._consumer.next_subject, self._stirred)
        await pull.open()
        self.active = True
        try:
            while not self.stopping.is_set():
                await pull.ask()
                if not pull.came:
                    await pull.rest()
                if pull.came and not await self._take(pull):
                    await self.rest(await self._give_back(pull))
                    self._due = await self._unacknowledged(connection)
            await self._finish(pull)
            await connection.settle()
        finally:
            self.active = False

    async def _finish(self, pull: Pull) -> None:
        """Append what has been asked for, or leave it to another."""
        await pull.finish()
        while pull.came:
            if not await self._take(pull):
                await self._give_back(pull)

    async def stop(self) -> None:
        """See Bridge.stop."""
        self.stopping.set()
        self._stirred.set()
        await super().stop()

    async def _await_others(self, connection: NatsConnection) -> None:
        """What another took and did not acknowledge has to come first: it is due after the consumer's `ack_wait`."""
        self._due = await self._unacknowledged(connection)
        if self._due.messages:
            log.info("awaits_redelivery", bridge=self.name, messages=self._due.messages)
            await self.rest(self._ack_wait_seconds + MARGIN_SECONDS)

    async def _unacknowledged(self, connection: NatsConnection) -> Unacknowledged:
        if not self._ordered:
            return NOTHING
        jetstream = connection.client.jetstream(domain=self._consumer.domain)
        info = await jetstream.consumer_info(self._consumer.stream, self._consumer.durable)
        return Unacknowledged(info.num_ack_pending or 0, info.delivered.stream_seq if info.delivered else 0)

    def _left(self, batch: Sequence[Msg]) -> Unacknowledged | None:
        """What is still due when these have been taken; None if they have to wait for it."""
        left = self._due.without(batch)
        if left is not None:
            self._overtaken = 0
            return left
        self._overtaken += 1
        log.warning("overtaken", bridge=self.name, messages=self._due.messages, times=self._overtaken)
        return NOTHING if self._overtaken > MAX_OVERTAKEN else None

    async def _take(self, pull: Pull) -> bool:
        """Append a batch and acknowledge it; False if the relay is away, or if something else is due before."""
        batch = pull.batch()
        left = self._left(batch)
        if left is None:
            return False
        delivering = asyncio.ensure_future(
            self.deliver([self._taken(msg) for msg in batch], patience_seconds=PATIENCE_SECONDS)
        )
        try:
            while not (await asyncio.wait((delivering,), timeout=self._ack_wait_seconds / 3))[0]:
                for msg in list(pull.came):
                    await msg.in_progress()
            refused = delivering.result()
        except RelayUnavailable:
            return False
        finally:
            delivering.cancel()
        for number, msg in enumerate(batch):
            await (msg.term() if number in refused else msg.ack())
            pull.came.popleft()
        self._due = left
        self.counts.lag = batch[-1].metadata.num_pending + len(pull.came)
        self._delays.reset()
        return True

    def _taken(self, msg: Msg) -> Taken:
        metadata = msg.metadata
        message = message_of(msg, f"{metadata.stream}:{metadata.sequence.stream}")
        mappings = [mapping for mapping in self._mappings if subject_matches(mapping.source, msg.subject)]
        if not mappings:
            self.publishing.let_go(Unmappable("subject", "is no mapping's source"))
        return Taken(message, mappings)

    async def _give_back(self, pull: Pull) -> float:
        """All that has come is to come again later; after how long. Until then nothing is to be asked for: so its
        order stays."""
        await pull.finish()
        delay = self._delays.next()
        log.warning("given_back", bridge=self.name, messages=len(pull.came), for_seconds=round(delay, 1))
        while pull.came:
            await pull.came.popleft().nak(delay)
        return delay + MARGIN_SECONDS


def _reason(error: Exception) -> str:
    if isinstance(error, NotFoundError):
        return "there is no such stream or consumer (and create is not set)"
    description: Any = getattr(error, "description", None)
    return f"JetStream says: {description[:80]}" if isinstance(description, str) else "JetStream is not available"
