"""The bridge for core NATS: subjects, through a queue group that all nodes share, so that a message enters once.

Owns the subscriptions and when the group is left. Must never know JetStream.

Core NATS keeps nothing: what is published while no node is in the group, or is lost with a node that is killed, is
gone, and NATS says nothing of it. Messages of one subject that come to one node are appended in their order; those that
come to several are not in order among these.

When the relay is away messages wait, up to a bound. At the bound this node leaves the group, so that others get what it
could only drop; what still came is dropped and counted. It joins again when half of what waited is in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bridges.bridge import SourceLost, Taken, first_of
from bridges.inflow import InflowBridge
from bridges.mapping import Mapping, Message
from bridges.nats_connection import ERRORS, NatsConnection, NatsTarget, connect, reason_of
from server.hub import Hub
from server.logs import get_logger

MESSAGE_ID = "Nats-Msg-Id"
FULL = "too much waits for the relay: the queue group is left until it is appended"

log = get_logger("bridge")


def message_of(msg: Msg, own_id: str | None = None) -> Message:
    """A NATS message as mappings see it. `own_id` is for one whose publisher gave it none."""
    headers = msg.headers or {}
    return Message(msg.subject, msg.data, headers, headers.get(MESSAGE_ID) or own_id)


class NatsSubjects(InflowBridge):
    """See the module's head. A mapping's source is a subject with wildcards."""

    kind: ClassVar[str] = "nats"

    def __init__(
        self,
        name: str,
        hub: Hub,
        target: NatsTarget,
        mappings: Sequence[Mapping],
        *,
        queue: str = "ringcast",
        max_waiting: int = 10_000,
    ) -> None:
        super().__init__(name, hub, max_waiting)
        self._target = target
        self._queue = queue
        self._by_subject: dict[str, list[Mapping]] = {}
        for mapping in mappings:
            self._by_subject.setdefault(mapping.source, []).append(mapping)

    async def follow(self) -> None:
        """See Bridge.follow."""
        connection = await connect(self._target, f"ringcast {self.name}")
        try:
            while not self.stopping.is_set():
                await self._read(connection)
                if not self.stopping.is_set():
                    await self._make_room(connection)
        except ERRORS as error:
            raise SourceLost(reason_of(error)) from error
        finally:
            self.active = False
            self.counts.dropped += connection.slow
            await connection.close()

    async def _read(self, connection: NatsConnection) -> None:
        """Be in the group until there is no room, or `stopping`. Raises SourceLost."""
        subscriptions = [await self._join(connection, subject) for subject in self._by_subject]
        await connection.settle()
        self.found()
        self.active = True
        await first_of(connection.lost.wait(), self.stopping.wait(), self.inflow.full.wait())
        connection.check()
        self.active = False
        for subscription in subscriptions:
            await subscription.drain()  # type: ignore[no-untyped-call]  # returns when what was under way has come

    async def _join(self, connection: NatsConnection, subject: str) -> Subscription:
        mappings = self._by_subject[subject]

        async def came(msg: Any) -> None:
            self.inflow.put(Taken(message_of(msg), mappings))

        return await connection.client.subscribe(subject, self._queue, cb=came)

    async def _make_room(self, connection: NatsConnection) -> None:
        log.warning("queue_group_left", bridge=self.name, waiting=self.counts.lag, dropped=self.counts.dropped)
        self.source_state = FULL
        await first_of(connection.lost.wait(), self.stopping.wait(), self.inflow.half_empty.wait())
        connection.check()
