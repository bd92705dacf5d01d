"""The bridge for Google Pub/Sub's pull: messages are asked for, and acknowledged when their events are in the log.

Owns the asking, the leases and the acknowledging. Must never know the library (bridges/pubsub_connection.py) or how
events are appended.

How: for each subscription a node asks for as many messages as may wait, appends them in their order, each under its id
as idempotency key, and acknowledges them; then it asks again. While an append takes long the messages' leases are
extended. If the relay is away for longer than `PATIENCE_SECONDS` they are given back for later, and until the log takes
one again only one is asked for: each time counts as an attempt, of which a dead-letter topic allows few.

Invariants: nothing is acknowledged that is not in the log, or let go. What comes again, because an acknowledgement was
lost or a node died, is recognised by its key within the time that keys count. At most `max_waiting` messages of a
subscription are in memory. With message ordering, messages of one ordering key enter in their order: Pub/Sub has one
batch of a key out at a time, and gives again what follows one that comes again; here none overtakes another.
Cost: two calls and one batch of appends for up to `max_waiting` messages.
Sources: Pub/Sub's documentation of pull subscriptions and of message ordering.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from bridges.bridge import DEFECT_DELIVERIES, Bridge, SourceLost, Taken, Waits, first_of
from bridges.mapping import Mapping
from bridges.pubsub import BySubscription, message_of
from bridges.pubsub_connection import PubSubConnection, PubSubTarget, SubscriptionRefused, connect
from server.hub import Hub
from server.logs import get_logger
from server.relay.protocol import RelayUnavailable
from server.supervision import cancelled

PULL_SECONDS = 25.0  # shorter than the keepalive: servers count pings as abuse where nothing else comes
REFUSED_SECONDS = 0.5  # if nothing is wrong with a subscription so long after asking, it is there
EMPTY_SECONDS = 0.1  # Pub/Sub may say at once that there is nothing
PATIENCE_SECONDS = 60.0
EXTEND_EVERY_SECONDS = 3.0  # a subscription's own deadline is at least 10
EXTEND_SECONDS = 15
FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 30.0

log = get_logger("bridge")


class PubSubPull(Bridge):
    """See the module's head."""

    kind: ClassVar[str] = "pubsub"

    def __init__(
        self,
        name: str,
        hub: Hub,
        target: PubSubTarget,
        mappings: BySubscription,
        *,
        dead_letter: bool = False,
        max_waiting: int = 100,
    ) -> None:
        super().__init__(name, hub, deliveries=1 if dead_letter else DEFECT_DELIVERIES)
        self._target = target
        self._mappings = mappings
        self.dead_letter = dead_letter
        self.max_waiting = max_waiting
        self.leaving = asyncio.Event()  # set when a reader has ended: the others finish what they have, and end too
        self._refused: dict[str, str] = {}

    @property
    def state(self) -> str:
        """See Bridge.state."""
        return next(iter(self._refused.values()), super().state)

    def reads(self, subscription: str) -> None:
        """It is there and is read from."""
        self._refused.pop(subscription, None)
        self.found()
        self.active = True

    def is_refused(self, subscription: str, reason: str) -> None:
        """It is not; others may be."""
        if self._refused.get(subscription) != reason:
            log.warning("subscription_refused", bridge=self.name, subscription=subscription, reason=reason)
        self._refused[subscription] = reason

    async def follow(self) -> None:
        """See Bridge.follow."""
        connection = await connect(self._target)
        self.leaving.clear()
        if self.stopping.is_set():
            self.leaving.set()
        readers = [
            asyncio.ensure_future(Reader(self, connection, subscription, mappings).run())
            for subscription, mappings in self._mappings.items()
        ]
        try:
            outcomes = await asyncio.gather(*readers, return_exceptions=True)
        finally:
            self.active = False
            self._refused.clear()
            await cancelled(readers)
            await connection.close()
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def stop(self) -> None:
        """See Bridge.stop."""
        self.leaving.set()
        await super().stop()


class Reader:
    """Brings the messages of one subscription in, for `bridge`."""

    def __init__(
        self, bridge: PubSubPull, connection: PubSubConnection, subscription: str, mappings: Sequence[Mapping]
    ) -> None:
        self._bridge = bridge
        self._connection = connection
        self._subscription = subscription
        self._mappings = mappings
        self._delays = Waits(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS)
        self._retries = Waits()
        self._room = bridge.max_waiting

    async def run(self) -> None:
        """Until the bridge is leaving. Raises SourceLost."""
        try:
            while not self._bridge.leaving.is_set():
                try:
                    await self._turn()
                except SubscriptionRefused as error:
                    self._bridge.is_refused(self._subscription, error.reason)
                    await self._bridge.rest(self._retries.next())
        finally:
            self._bridge.leaving.set()

    async def _turn(self) -> None:
        """Ask, and bring in what comes. Raises SourceLost."""
        asked = time.monotonic()
        received = await self._pulled()
        if received:
            await self._bring_in(received)
        elif time.monotonic() - asked < EMPTY_SECONDS:
            await self._bridge.rest(EMPTY_SECONDS)

    async def _pulled(self) -> Sequence[Any]:
        """What there is, or nothing when the bridge is leaving. Raises SourceLost."""
        received: list[Any] = []
        await first_of(self._pull(received), self._leave())
        return received

    async def _pull(self, received: list[Any]) -> None:
        received += await self._connection.pull(self._subscription, self._room, PULL_SECONDS)
        self._found()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(REFUSED_SECONDS):
                await self._bridge.leaving.wait()
        except TimeoutError:
            self._found()
            await self._bridge.leaving.wait()

    def _found(self) -> None:
        self._bridge.reads(self._subscription)
        self._retries.reset()

    async def _bring_in(self, received: Sequence[Any]) -> None:
        """Append and acknowledge, or give back for later. Raises SourceLost."""
        ack_ids = [one.ack_id for one in received]
        self._bridge.counts.lag += len(ack_ids)
        try:
            misfits = await self._delivered(received, ack_ids)
        except RelayUnavailable:
            await self._give_back(ack_ids)
            return
        finally:
            self._bridge.counts.lag -= len(ack_ids)
        self._room = self._bridge.max_waiting
        self._delays.reset()
        given_back = misfits if self._bridge.dead_letter else set()
        taken = [ack_id for number, ack_id in enumerate(ack_ids) if number not in given_back]
        await self._connection.acknowledge(self._subscription, taken)
        await self._connection.give_back(self._subscription, [ack_ids[number] for number in sorted(given_back)])

    async def _delivered(self, received: Sequence[Any], ack_ids: Sequence[str]) -> set[int]:
        """Raises RelayUnavailable."""
        batch = [Taken(self._message(one.message), self._mappings) for one in received]
        delivering = asyncio.ensure_future(self._bridge.deliver(batch, patience_seconds=PATIENCE_SECONDS))
        try:
            while not (await asyncio.wait((delivering,), timeout=EXTEND_EVERY_SECONDS))[0]:
                await self._extend(ack_ids)
            return delivering.result()
        finally:
            delivering.cancel()

    async def _extend(self, ack_ids: Sequence[str]) -> None:
        try:
            await self._connection.extend(self._subscription, ack_ids, EXTEND_SECONDS)
        except SourceLost as error:
            log.warning("lease_not_extended", bridge=self._bridge.name, reason=error.reason)

    def _message(self, message: Any) -> Any:
        return message_of(
            self._subscription,
            message.message_id,
            message.data,
            message.attributes,
            ordering_key=message.ordering_key,
            publish_time=message.publish_time.ToJsonString(),
        )

    async def _give_back(self, ack_ids: Sequence[str]) -> None:
        """They come again later, and until the log takes one, one at a time. Raises SourceLost."""
        self._room = 1
        delay = self._delays.next()
        log.warning("given_back", bridge=self._bridge.name, messages=len(ack_ids), for_seconds=round(delay, 1))
        await self._connection.give_back(self._subscription, ack_ids)
        await self._bridge.rest(delay)
