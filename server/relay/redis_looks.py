"""Looks: how logs stand, asked of Redis once a second and whenever somebody has to know.

Owns the question and what its answer does to what this node knows of a log. Must never know of tails, readers or what a
turn to a new epoch takes (`turn` does).

Invariants: a log that has turned, or that cannot be used, keeps nobody from the others. What Redis has said of all of
them is taken in before a turn is waited for: it would be old by then.
Cost: a script per log, one round trip for many of them (redis_client.py, `ask_each`). One look after the other took a
node with 250 channels, 40 ms from Redis, ten seconds each time: no mark went out meanwhile, and the tail passed for
deaf.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from server.relay.protocol import RelayUnavailable
from server.relay.redis_client import Client, ask_scripts, reason_of
from server.relay.redis_log import RedisLog, Shard

DROPPED_A_LOOK = 1_000
TURNS_AT_ONCE = 8  # each takes a connection
UNREAD_SECONDS = 2.0  # what was read before it was dropped has been handed on by then

Outcome = int | RelayUnavailable


class Looks:
    """`turn` brings a log out of an epoch that it has turned from; `missed` is told of a shard that has nothing left,
    and had something that this node has not read. `proves`: what tick.lua wants to know."""

    def __init__(
        self,
        client: Client,
        proves: int,
        turn: Callable[[RedisLog, str], Awaitable[None]],
        missed: Callable[[RedisLog, Shard], None],
    ) -> None:
        self._client = client
        self._proves = proves
        self._turn = turn
        self._missed = missed
        self._shared: dict[str, asyncio.Task[int]] = {}

    async def at(self, log: RedisLog) -> int:
        """Ask how a log stands; the position of its newest entry. Raises RelayUnavailable."""
        (outcome,) = await self._ask([log])
        if isinstance(outcome, RelayUnavailable):
            raise outcome
        return outcome

    async def with_others(self, log: RedisLog) -> int:
        """As `at`: one look for all who come back at once."""
        look = self._shared.get(log.name)
        if look is None:
            look = self._shared[log.name] = asyncio.get_running_loop().create_task(self.at(log))
            look.add_done_callback(lambda _: self._shared.pop(log.name, None))
        return await asyncio.shield(look)

    async def at_all(self, logs: Sequence[RedisLog]) -> None:
        """Ask how each stands. Raises RelayUnavailable if one that can be used did not tell."""
        for log, outcome in zip(logs, await self._ask(logs), strict=True):
            if isinstance(outcome, RelayUnavailable) and not log.refused:
                raise outcome

    async def at_some(self, logs: Sequence[RedisLog]) -> None:
        """Ask how each stands. Raises RelayUnavailable if none of them did tell."""
        outcomes = await self._ask(logs)
        failed = [outcome for outcome in outcomes if isinstance(outcome, RelayUnavailable)]
        if failed and len(failed) == len(outcomes):
            raise failed[0]

    async def _ask(self, logs: Sequence[RedisLog]) -> list[Outcome]:
        asked = [(log, log.epoch, log.unproven) for log in logs]
        answers = await ask_scripts(self._client, "tick", [(log.keys, self._known(log)) for log in logs])
        outcomes: list[Outcome] = []
        turned: list[int] = []
        for (log, epoch, unproven), answer in zip(asked, answers, strict=True):
            if isinstance(answer, Exception):
                outcomes.append(RelayUnavailable(reason_of(answer)))
            elif answer[0] == b"turned" or log.epoch != epoch:  # or another has turned it meanwhile
                turned.append(len(outcomes))
                outcomes.append(log.delivered)
            else:
                if log.unproven == unproven:  # else a connection that broke since is still to be looked behind
                    log.unproven = 0
                outcomes.append(self._take(log, list(map(int, answer[1:]))))
        for first in range(0, len(turned), TURNS_AT_ONCE):
            some = turned[first : first + TURNS_AT_ONCE]
            turns = [self._turned(*asked[number][:2]) for number in some]
            for number, outcome in zip(some, await asyncio.gather(*turns), strict=True):
                outcomes[number] = outcome
        return outcomes

    def _known(self, log: RedisLog) -> tuple[object, ...]:
        """What tick.lua has to be told."""
        newest, shard = log.proof if log.unproven else (log.newest, -1)
        look = shard + 1
        most = max(1, DROPPED_A_LOOK // len(log.shards))
        return log.epoch, newest, log.given, look, most, self._proves

    async def _turned(self, log: RedisLog, epoch: str) -> Outcome:
        try:
            await self._turn(log, epoch)
        except RelayUnavailable as error:
            return error
        return log.delivered

    def _take(self, log: RedisLog, facts: Sequence[int]) -> int:
        """What Redis said of a log; the position of its newest entry."""
        now = time.monotonic()
        for shard, at in zip(log.shards, range(1, len(facts), 4), strict=True):
            shard.last, floor, shard.events, shard.bytes = facts[at : at + 4]
            shard.floor = max(shard.floor, floor)
            if not log.never_comes(shard):
                shard.unread_since = None
            elif shard.unread_since is None:
                shard.unread_since = now
            elif now - shard.unread_since > UNREAD_SECONDS:
                self._missed(log, shard)
        return log.stands(facts[0])
