"""The board: what nodes tell each other beside events.

Owns two things in Redis: notices that every node has to see (revocations), as a stream that each reads from where it
was, and the nodes' own facts (presence), which expire by themselves when a node is gone. Must never know what they
mean. Notices are read by the tick and not pushed: a stream from a cursor cannot be missed, pub/sub can.

Invariants: a node that comes back reads every notice that it missed, as long as it is kept (`NOTICE_SECONDS`); a node
that died is gone from the list after the time that it gave. Cost: one read a second; one write per node and
registration.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from server.relay.redis_client import Client, ask

NOTICE_SECONDS = 30 * 86_400
NOTICES_A_READ = 1_000
MAX_NODES = 1_000


class Board:
    """`on_notice(text)` is called for each notice, those from before the start included."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self.on_notice: Callable[[bytes], None] = lambda _: None
        self._notices = f"{{{prefix}}}:notices"
        self._nodes = f"{{{prefix}}}:nodes"
        self._facts = f"{{{prefix}}}:facts:"
        self._last = b"-"

    async def post(self, text: str) -> None:
        """Put up a notice for every node, this one included. Raises RelayUnavailable."""
        oldest = f"{(time.time() - NOTICE_SECONDS) * 1000:.0f}"
        await ask(self._client.xadd(self._notices, {"n": text}, minid=oldest))
        await self.read()

    async def read(self) -> None:
        """See what is new. Raises RelayUnavailable."""
        while True:
            since = self._last
            found = await ask(self._client.xrange(self._notices, since, "+", NOTICES_A_READ))
            if self._last != since:
                continue  # another read was faster, and has handled these
            if since != b"-":
                if not found or found[0][0] != since:  # another Redis, whose ids may be lower: from the beginning
                    self._last = b"-"
                    continue
                found = found[1:]
            for stream_id, fields in found:
                self._last = stream_id
                self.on_notice(fields.get(b"n", b""))
            if len(found) < NOTICES_A_READ - 1:
                return

    async def register(self, node: str, facts: str, seconds: float) -> None:
        """Say that this node is there, for so long. Raises RelayUnavailable."""
        await ask(self._client.set(self._facts + node, facts, px=round(seconds * 1000)))
        await ask(self._client.zadd(self._nodes, {node: 0}))

    async def leave(self, node: str) -> None:
        """Say that this node is gone. Raises RelayUnavailable."""
        await ask(self._client.zrem(self._nodes, node))
        await ask(self._client.delete(self._facts + node))

    async def nodes(self) -> list[bytes]:
        """The facts of every node that is there. Raises RelayUnavailable."""
        names = await ask(self._client.zrange(self._nodes, 0, MAX_NODES - 1))
        keys = [self._facts + name.decode() for name in names]
        found = await ask(self._client.mget(keys)) if keys else []
        # Facts expire by the clock of Redis. Those of the nodes say nothing: they may differ by hours.
        gone = [name for name, facts in zip(names, found, strict=True) if facts is None]
        if gone:
            await ask(self._client.zrem(self._nodes, *gone))
        return [facts for facts in found if facts is not None]
