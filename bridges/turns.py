"""Turns: of several nodes one reads a source at a time, by a lease in Redis.

Owns the lease: who has it, until when, and that whoever loses it has stopped before another begins. Must never know
what is done in a turn.

A lease is a key with the holder's name and a time to live. The holder counts that time by its own clock from before it
asked, and less a margin; so it stops earlier than Redis lets another one in, as long as clocks run alike. A node that
stands still for longer than the lease finds, when it goes on, that it is over: what it does in between and the first
turn of its loop can overlap with another's. Redis that is restarted without its data, or fails over, may give the lease
to another at once.
Cost: one small script every `RENEW_SECONDS` on every node.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from bridges.bridge import SourceLost, first_of
from server.logs import get_logger
from server.relay.redis_client import ERRORS, Client
from server.supervision import rest

LEASE_SECONDS = 6.0
MARGIN_SECONDS = 1.0
RENEW_SECONDS = 1.5
ASK_SECONDS = 0.5
GIVE_UP_SECONDS = 1.0

_HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_GIVE_UP = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

log = get_logger("bridge")

Work = Callable[[], Awaitable[None]]


class Turns(Protocol):
    """Who may do something."""

    async def taken(self, stopping: asyncio.Event, work: Work) -> None:
        """Do `work` whenever it is this node's turn, until `stopping` is set. Raises what it raises, and SourceLost."""


class NoTurns:
    """Everybody may, at any time."""

    async def taken(self, stopping: asyncio.Event, work: Work) -> None:  # noqa: ARG002 (the work looks at it)
        """See Turns."""
        await work()


class RedisTurns:
    """See the module's head. `name` is the bridge's, `holder` this node; `prefix` that of all keys."""

    def __init__(self, connected: Callable[[], Client], prefix: str, name: str, holder: str) -> None:
        self._connected = connected
        # In braces, as all keys but the logs': that is what the nodes' user may touch.
        self._key = f"{{{prefix}}}:bridge:{name}:turn"
        self._holder = holder
        self._until = 0.0

    async def taken(self, stopping: asyncio.Event, work: Work) -> None:
        """See Turns."""
        client = self._connected()
        try:
            while not stopping.is_set():
                if await self._hold(client):
                    await self._in_turn(client, work)
                else:
                    await rest(stopping, ASK_SECONDS * (0.5 + random.random()))
        finally:
            await client.aclose()

    async def _in_turn(self, client: Client, work: Work) -> None:
        log.info("turn_began", key=self._key)
        try:
            await first_of(_done(work), self._renew(client))
        finally:
            log.info("turn_ended", key=self._key)
            await self._give_up(client)

    async def _renew(self, client: Client) -> None:
        """Keep the lease; return when it is lost or about to end."""
        while time.monotonic() < self._until:
            await asyncio.sleep(min(RENEW_SECONDS, max(0.0, self._until - time.monotonic())))
            try:
                async with asyncio.timeout(max(0.0, self._until - time.monotonic())):
                    if not await self._hold(client):
                        return
            except (SourceLost, TimeoutError):
                continue  # there may be time for another try

    async def _hold(self, client: Client) -> bool:
        """Take the lease or renew it. Raises SourceLost."""
        asked = time.monotonic()
        try:
            held: Any = await client.eval(_HOLD, 1, self._key, self._holder, str(round(LEASE_SECONDS * 1000)))
        except ERRORS as error:
            raise SourceLost("the Redis that gives turns does not answer") from error
        if held:
            self._until = asked + LEASE_SECONDS - MARGIN_SECONDS
        return bool(held)

    async def _give_up(self, client: Client) -> None:
        """Let another have it at once."""
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS):
                await client.eval(_GIVE_UP, 1, self._key, self._holder)
        except ERRORS:
            pass  # it expires


async def _done(work: Work) -> None:
    await work()
