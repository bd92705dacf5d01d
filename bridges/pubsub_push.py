"""The bridge for Google Pub/Sub's push: an endpoint that Google posts messages to, one each, and that acknowledges one
by its answer when its event is in the log.

Owns the answers. Must never know how a token is judged (bridges/pubsub_tokens.py) or what a message means.

Pub/Sub takes 204 for an acknowledgement and gives again what gets any other status, later and later, without end unless
the subscription has a dead-letter topic. So a message that does not fit its mapping is counted, told of and
acknowledged, or, with `dead_letter`, answered 400 for that topic to have. What is no envelope of a subscription of ours
is 400: it is counted too, but Pub/Sub never sends it, so there is a slip in somebody's settings and nothing may be lost
by it. 401 and 403: the token. 503: the relay is away, or what an application's handler needs, or as many are under way
as may be.

Invariants: 204 only after the append. A token is judged before a byte of the body is read. A message that comes again
is recognised by its id, on whichever node, within the time that keys count. Each node answers what reaches it.
Cost: a request, a verification (60 us) and an append per message, 500 us together: who has many messages pulls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from bridges.bridge import DEFECT_DELIVERIES, Bridge, Taken
from bridges.mapping import Message, Unmappable
from bridges.pubsub import MAX_ENVELOPE_BYTES, BySubscription, Pusher, read_envelope
from bridges.pubsub_tokens import PushTokens
from handlers.answers import Refused, bad
from handlers.endpoints import Call, Endpoint, Reply
from server.endings import DRAINING, OVERLOADED
from server.exchange import Request
from server.hub import Hub

PATIENCE_SECONDS = 2.0  # Google waits for the subscription's deadline, 10 seconds or more
NO_KEYS = "the keys of the tokens' issuer cannot be fetched"


class PubSubPush(Bridge):
    """See the module's head. Raises InvalidKey for an address of keys that can't be."""

    kind: ClassVar[str] = "pubsub"

    def __init__(
        self,
        name: str,
        hub: Hub,
        mappings: BySubscription,
        pusher: Pusher,
        *,
        dead_letter: bool = False,
        max_waiting: int = 100,
    ) -> None:
        super().__init__(name, hub, deliveries=1 if dead_letter else DEFECT_DELIVERIES)
        self._mappings = mappings
        self._tokens = PushTokens(name, pusher)
        self._dead_letter = dead_letter
        self._max_waiting = max_waiting
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """Where Google pushes to."""
        return [
            Endpoint(
                "POST",
                f"/bridges/pubsub/{self.name}",
                self._take,
                "A push of Google Pub/Sub.",
                head=self._judge,
                max_body_bytes=MAX_ENVELOPE_BYTES,
                errors=(400, 401, 403, 503),
                status=204,
                tag="bridges",
            )
        ]

    @property
    def state(self) -> str:
        """See Bridge.state."""
        if self.active and not self._tokens.keys.generation:
            return NO_KEYS
        return super().state

    async def follow(self) -> None:
        """See Bridge.follow."""
        self.found()
        self.active = True
        try:
            await self._tokens.keys.start()
            await self.stopping.wait()
            self.active = False
            await self._idle.wait()
        finally:
            self.active = False
            await self._tokens.keys.stop()

    def _judge(self, request: Request) -> None:
        """Raise Refused by the head alone."""
        if not self.active:
            raise Refused(DRAINING)
        self._tokens.check(request)

    async def _take(self, call: Call) -> Reply:
        if self.counts.lag >= self._max_waiting:
            raise Refused(OVERLOADED, reason="as many messages wait for the log as may")
        self.counts.lag += 1
        self._idle.clear()
        try:
            await self._bring_in(self._read(call.request.body))
        finally:
            self.counts.lag -= 1
            if not self.counts.lag:
                self._idle.set()
        return Reply()

    def _read(self, body: bytes) -> Taken:
        """Raises Refused."""
        try:
            message: Message = read_envelope(body)
            if message.source not in self._mappings:
                raise Unmappable("subscription", "is no mapping's source")
        except Unmappable as error:
            self.counts.received += 1
            self.publishing.let_go(error)
            raise bad(error.field, error.reason) from None
        return Taken(message, self._mappings[message.source])

    async def _bring_in(self, taken: Taken) -> None:
        """Raises Refused, RelayUnavailable."""
        let_go = await self.deliver([taken], patience_seconds=PATIENCE_SECONDS)
        if let_go and self._dead_letter:
            raise bad("message", "does not fit its mapping")
