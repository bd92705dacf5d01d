"""The bridge for Redis pub/sub: patterns such as `job:*:updates`, for publishers that already `PUBLISH` there.

Owns the subscription, and the proof that it is not deaf. Must never know what a message means.

One node reads at a time (bridges/turns.py, in the same Redis), for pub/sub knows no groups: every node would get every
message. What pub/sub can't promise this can't either: what is published while nobody is subscribed (a connection that
broke, a failover, the time until another node has the turn) is gone and nobody is told. Redis also ends subscribers
that take their messages too slowly; so all that comes is taken at once, and beyond a bound dropped and counted.

A connection that looks well proves nothing: what was published through one that had died in silence was lost without an
error (see server/relay/redis_tail.py). So this node publishes a mark every second on a channel of its own, which has to
come back through the subscription.

Cost: about 40 µs per message in the library; one mark a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from redis.exceptions import AuthenticationError, NoPermissionError

from bridges.bridge import SourceLost, Taken, first_of
from bridges.inflow import InflowBridge
from bridges.mapping import Mapping, Message
from bridges.turns import RedisTurns
from server.hub import Hub
from server.relay.redis_client import ERRORS, Client, Target, connect

MARK_SECONDS = 1.0
DEAF_SECONDS = 3.0
SEPARATOR = ":"


class RedisPubSub(InflowBridge):
    """See the module's head. A mapping's source is a pattern in the words of PSUBSCRIBE; `{subject[N]}` divides a
    channel at its colons. `holder` names this node."""

    kind: ClassVar[str] = "redis"

    def __init__(
        self,
        name: str,
        hub: Hub,
        target: Target,
        mappings: Sequence[Mapping],
        *,
        holder: str,
        prefix: str = "ringcast",
        max_waiting: int = 10_000,
    ) -> None:
        super().__init__(name, hub, max_waiting)
        self._target = target
        self._marks = f"{prefix}:bridge:{name}:marks:{holder}"
        self._turns = RedisTurns(lambda: connect(target), prefix, name, holder)
        self._heard = 0.0
        self._by_pattern: dict[bytes, list[Mapping]] = {}
        for mapping in mappings:
            self._by_pattern.setdefault(mapping.source.encode(), []).append(mapping)

    async def follow(self) -> None:
        """See Bridge.follow. A node whose turn it is not is well, too."""
        client = connect(self._target)
        try:
            await client.ping()
            self.found()
            await self._turns.taken(self.stopping, lambda: self._read(client))
        except ERRORS as error:
            raise SourceLost(_reason(error)) from error
        finally:
            await client.aclose()

    async def _read(self, client: Client) -> None:
        """Be subscribed until `stopping`. Raises SourceLost."""
        listening = connect(self._target)
        subscription: Any = listening.pubsub()
        try:
            await subscription.psubscribe(*self._by_pattern)
            await subscription.subscribe(self._marks)  # after the patterns: a mark that comes proves them, too
            self._heard = time.monotonic()
            await first_of(self._listen(subscription), self._prove(client), self._leave(subscription))
        finally:
            self.active = False
            await subscription.aclose()
            await listening.aclose()

    async def _listen(self, subscription: Any) -> None:
        """Take what comes, until nothing is subscribed to any more."""
        async for message in subscription.listen():
            if message["type"] == "pmessage":
                source = message["channel"].decode("utf-8", "backslashreplace")
                mappings = self._by_pattern.get(message["pattern"], ())
                self.inflow.put(Taken(Message(source, message["data"], separator=SEPARATOR), mappings))
            elif message["type"] == "message":
                self._heard = time.monotonic()
                self.active = True

    async def _prove(self, client: Client) -> None:
        """Publish marks as long as they come back. Raises SourceLost."""
        while time.monotonic() - self._heard < DEAF_SECONDS:
            await client.publish(self._marks, b"")
            await asyncio.sleep(MARK_SECONDS)
        raise SourceLost("what is published in Redis does not come back")

    async def _leave(self, subscription: Any) -> None:
        """At `stopping`, say that nothing more is wanted; `_listen` ends when Redis has answered."""
        await self.stopping.wait()
        await subscription.punsubscribe()
        await subscription.unsubscribe()
        await asyncio.sleep(DEAF_SECONDS)


def _reason(error: BaseException) -> str:
    if isinstance(error, (AuthenticationError, NoPermissionError)):
        return "Redis refuses the user, or what it asks for"
    return "Redis does not answer"
