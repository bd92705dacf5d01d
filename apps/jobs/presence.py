"""Presence: which nodes hold streams of a job, and how many.

Owns what this node registers in the relay's Redis: a hash of its streams by job, which expires by itself when the node
is gone. Looked at by operators alone; what is here is answered from memory, without Redis. Must never know of owners.

Invariants: a node that died is forgotten after `EXPIRE_SECONDS`; a Redis that has lost everything (a failover to an
empty one) has it again after `REGISTER_SECONDS`; one that is away stops nothing: then only this node's streams are
known. Over a relay that nobody shares this node is all there is.
Cost: a look at the channel's feeds and two or three commands every `REGISTER_SECONDS`, with what has changed; at most
`MAX_JOBS` jobs a node, those with the most streams.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from server.logs import get_logger
from server.relay.redis_client import ERRORS, Client, Target, connect

REGISTER_SECONDS = 2.0
EXPIRE_SECONDS = 15
ASK_SECONDS = 1.0
MAX_JOBS = 10_000
MAX_NODES = 1_000

log = get_logger("jobs")


class Presence:
    """`target` None: nobody shares the relay. `here` gives this node's streams by job, `look_up` those of one job."""

    def __init__(
        self,
        target: Target | None,
        prefix: str,
        node: str,
        here: Callable[[], Awaitable[Mapping[str, int]]],
        look_up: Callable[[str], int],
    ) -> None:
        self._client: Client | None = connect(target, answer_seconds=ASK_SECONDS) if target is not None else None
        self._nodes = f"{{{prefix}}}:jobs:nodes"
        self._held = f"{{{prefix}}}:jobs:streams:"
        self._node = node
        self._here = here
        self._look_up = look_up
        self._registered: dict[str, int] = {}
        self.jobs = self.streams = 0
        self.state = "ok"

    async def run(self) -> None:
        """Register, for ever."""
        await self.of("")  # which lets go of nodes that are gone
        while True:
            held = {job: number for job, number in (await self._here()).items() if number}
            self.jobs, self.streams = len(held), sum(held.values())
            try:
                async with asyncio.timeout(ASK_SECONDS * 4):
                    await self._register(_most_watched(held))
                self._note("ok")
            except ERRORS as error:
                self._registered = {}
                self._note(f"streams are not registered in redis ({type(error).__name__})")
            await asyncio.sleep(REGISTER_SECONDS)

    async def _register(self, held: dict[str, int]) -> None:
        if self._client is None:
            return
        client: Any = self._client
        key = self._held + self._node
        # It holds something always, or it would not be there to be found again.
        changed = {job: n for job, n in ({"": 0} | held).items() if self._registered.get(job) != n}
        gone = self._registered.keys() - held.keys() - {""}
        if changed:
            await client.hset(key, mapping=changed)
        if gone:
            await client.hdel(key, *gone)
        self._registered = {"": 0} | held
        await client.zadd(self._nodes, {self._node: 0})
        if not await client.expire(key, EXPIRE_SECONDS):
            self._registered = {}  # another Redis, or one that has forgotten: all of it next time

    async def of(self, job_id: str) -> dict[str, int]:
        """How many streams of a job each node holds; only this node's if Redis does not say."""
        own = self._look_up(job_id)
        found = {self._node: own} if own else {}
        if self._client is None:
            return found
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await self._others(self._client, job_id) | found
        except ERRORS:
            return found

    async def _others(self, client: Any, job_id: str) -> dict[str, int]:
        names = [name.decode() for name in await client.zrange(self._nodes, 0, MAX_NODES - 1)]
        others = [name for name in names if name != self._node]
        answers = await asyncio.gather(*(client.hmget(self._held + name, "", job_id) for name in others))
        gone = [name for name, (there, _) in zip(others, answers, strict=True) if there is None]
        if gone:
            await client.zrem(self._nodes, *gone)
        return {name: int(number) for name, (_, number) in zip(others, answers, strict=True) if number is not None}

    def _note(self, state: str) -> None:
        """One line when it turns."""
        if state != self.state and state != "ok":
            log.warning("jobs_not_registered", reason=state)
        self.state = state

    async def stop(self) -> None:
        """This node is going."""
        if self._client is None:
            return
        client: Any = self._client
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await client.delete(self._held + self._node)
                await client.zrem(self._nodes, self._node)
        except ERRORS:
            pass  # it expires
        await client.aclose()


def _most_watched(held: dict[str, int]) -> dict[str, int]:
    if len(held) <= MAX_JOBS:
        return held
    return dict(heapq.nlargest(MAX_JOBS, held.items(), key=lambda item: item[1]))
