"""Kept answers of endpoints: who may be given one, for how long, and what ends it before its time.

Owns the way of a request through the cache, and the ways of dropping. Where answers are kept is handlers/cache_store.py
(this process) or cache_redis.py (all nodes); what a question is, cache_key.py; one computation for all who ask,
cache_flights.py. Must never know what an endpoint answers or why something changed.

Invariants:
- An answer to a request with a token or a cookie is given to nobody else, and no kept one to it, unless the endpoint
  says that its answers depend on nobody (`Endpoint.shared`).
- Only answers to GET with status 200 are kept.
- What was dropped is not given to anybody who asks after that, also if it was being computed then.
- A store that is away costs a bounded wait and a computation, never an error.
Cost: about 10 microseconds for a hit in the process, most of them for the key.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from prometheus_client.metrics_core import Metric

from handlers.cache_counts import Counts, Tally
from handlers.cache_entry import Area, Drop, Kept, checked_area
from handlers.cache_flights import Flight, Flights, Made
from handlers.cache_key import key_of, wants_fresh
from handlers.cache_store import Claim, Store, StoreAway
from handlers.cache_trial import Strategy, Trial
from handlers.endpoints import Call, Endpoint, Reply
from server.exchange import Response
from server.logs import get_logger
from server.rights import ANONYMOUS, DEVELOPMENT

MAX_TAGS = 1_000
SHOWN_TAGS = 5
CHANGE = "change"

log = get_logger("cache")


@dataclass(frozen=True, slots=True)
class _Question:
    """A request to an endpoint whose answer may be kept."""

    endpoint: Endpoint
    call: Call
    key: str
    strategy: Strategy
    counts: Counts
    fresh: bool


class ResponseCache:
    """`store` None: nothing is kept. `jitter` is the share by which an answer's time is longer or shorter at random, so
    that answers of one moment are not over in one moment."""

    def __init__(
        self,
        store: Store | None = None,
        *,
        jitter: float = 0.1,
        trial: Trial | None = None,
        flights: Flights | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._jitter = jitter
        self._trial = trial or Trial()
        self._flights = flights or Flights()
        self._clock = clock
        self._chance = chance
        self._tally = Tally()
        self._dropping: set[asyncio.Task[int]] = set()

    # --- answers

    async def answer(self, endpoint: Endpoint, call: Call) -> Response:
        """The endpoint's answer, kept or made. Raises what the endpoint raises, and Refused."""
        store = self._store
        if store is None:
            return _marked((await endpoint.run(call)).response(), "MISS")
        if not _may_share(endpoint, call):
            self._tally.of[endpoint.path, ""].bypasses += 1
            return _marked((await endpoint.run(call)).response(), "BYPASS")
        asked = self._asked(endpoint, call)
        if not asked.fresh:
            kept = await self._read(store, asked.key)
            if kept is not None:
                return self._give(store, asked, kept)
        return await self._compute(store, asked)

    def _asked(self, endpoint: Endpoint, call: Call) -> _Question:
        key = key_of(endpoint, call, _audience(endpoint, call))
        strategy = self._trial.strategy(endpoint.path, key)
        counts = self._tally.of[endpoint.path, strategy.name]
        return _Question(endpoint, call, key, strategy, counts, wants_fresh(call.request.query))

    def _give(self, store: Store, asked: _Question, kept: Kept) -> Response:
        """A kept answer; if it is over its time, and may still be given, it is made anew meanwhile."""
        now = self._clock()
        age = now - kept.made
        asked.counts.hits += 1
        if kept.changed is not None:
            asked.counts.changed(max(0.0, now - kept.changed))
        stale = age >= kept.fresh_seconds
        if stale:
            asked.counts.stale += 1
            self._flights.refresh(asked.key, partial(self._make, store, replace(asked, fresh=True)))
        response = _marked(kept.response(), "STALE" if stale else "HIT", asked.strategy)
        response.headers.append(("Age", str(max(0, int(age)))))
        return response

    async def _compute(self, store: Store, asked: _Question) -> Response:
        counts = asked.counts
        made, joined = await self._flights.made(asked.key, partial(self._make, store, asked), fresh=asked.fresh)
        counts.coalesced += joined
        if made.found and made.kept is not None:
            return self._give(store, asked, made.kept)
        counts.skips += asked.fresh
        counts.misses += not asked.fresh
        return _marked(made.response, "SKIP" if asked.fresh else "MISS", asked.strategy)

    async def _make(self, store: Store, asked: _Question, flight: Flight) -> Made:
        """Compute the answer, unless another node has by now, and keep it."""
        claim = await self._claim(store, asked)
        if isinstance(claim, Kept):
            return Made(claim.response(), claim, found=True)
        asked.counts.computations += 1
        try:
            reply = await asked.endpoint.run(asked.call)
            response = reply.response()
            kept = self._kept(asked, reply, response)
        except BaseException:
            await self._release(store, asked.key, claim)
            raise
        if kept is None or flight.spoils(kept) or len(kept.tags) > MAX_TAGS:
            asked.counts.unkept += kept is not None
            await self._release(store, asked.key, claim)
        elif claim is not None:
            kept.changed = self._clock() if flight.ages(kept) else None
            asked.counts.unkept += not await self._write(store, kept, claim)
        return Made(response, kept)

    def _kept(self, asked: _Question, reply: Reply, response: Response) -> Kept | None:
        """The answer as it is kept; None if it is not of the kind."""
        endpoint, strategy = asked.endpoint, asked.strategy
        if any(name.lower() == "set-cookie" for name, _ in response.headers):
            raise ValueError(f"{endpoint.path}: an answer that others get too must not set a cookie")
        if response.status != 200:
            return None
        fresh = endpoint.keep_seconds * strategy.keep_factor * (1.0 + self._jitter * (2.0 * self._chance() - 1.0))
        return Kept(
            asked.key,
            endpoint.path,
            response.body,
            response.content_type,
            tuple(response.headers),
            tuple(reply.tags),
            None if reply.area is None else checked_area(reply.area),
            endpoint.drop_on_change or strategy.drop,
            fresh,
            fresh + strategy.stale_seconds,
            self._clock(),
        )

    # --- the store, which may be away

    async def _read(self, store: Store, key: str) -> Kept | None:
        try:
            return await store.read(key)
        except StoreAway:
            self._tally.failures["read"] += 1
            return None

    async def _claim(self, store: Store, asked: _Question) -> Kept | Claim | None:
        try:
            return await store.claim(asked.key, fresh=asked.fresh)
        except StoreAway:
            self._tally.failures["claim"] += 1
            return None

    async def _release(self, store: Store, key: str, claim: Claim | None) -> None:
        try:
            if claim is not None:
                await store.release(key, claim)
        except StoreAway:
            self._tally.failures["release"] += 1

    async def _write(self, store: Store, kept: Kept, claim: Claim) -> bool:
        try:
            return await store.write(kept, claim)
        except StoreAway:
            self._tally.failures["write"] += 1
            return False

    # --- drops

    def drop_now(self, tags: Iterable[str]) -> int:
        """What these tags name has changed. For listeners, which can't wait: when this returns nobody who asks this
        node gets an older answer. How many answers went; 0 where the store takes waiting (Redis)."""
        return self.begin_drop(Drop(CHANGE, frozenset(tags), change=True))

    async def drop_tags(self, tags: Iterable[str]) -> int:
        """As `drop_now`; returns when it is done on all nodes that share the store. How many answers went."""
        return await self.drop(Drop(CHANGE, frozenset(tags), change=True))

    async def drop_route(self, route: str) -> int:
        """By order: all answers of a route (its template). How many went."""
        return await self.drop(Drop("route", route=route))

    async def drop_region(self, area: Area, route: str | None = None) -> int:
        """By order: all answers (of a route) whose area has a place in common with this one. Raises OutOfRange."""
        return await self.drop(Drop("region", route=route, area=checked_area(area)))

    async def drop_where(self, where: Callable[[Kept], bool], reason: str = "where") -> int:
        """By order: all answers of which this is true. How many went."""
        return await self.drop(Drop(reason, where=where))

    def begin_drop(self, drop: Drop) -> int:
        """Drop, or begin to where that takes waiting; how many answers went until now. For listeners: where each node
        has a store of its own, each has to hear of a drop (`Drop.facts`)."""
        if self._store is None:
            return 0
        began = time.perf_counter()
        self._flights.note(drop)
        dropped = self._store.drop_now(drop)
        if dropped is not None:
            return self._noted(drop, dropped, began)
        task = asyncio.get_running_loop().create_task(self._drop(self._store, drop, began))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)
        return 0

    async def drop(self, drop: Drop) -> int:
        """Drop; how many answers went."""
        if self._store is None:
            return 0
        began = time.perf_counter()
        self._flights.note(drop)
        return await self._drop(self._store, drop, began)

    async def _drop(self, store: Store, drop: Drop, began: float) -> int:
        try:
            return self._noted(drop, await store.drop(drop), began)
        except StoreAway:  # and owes it
            self._tally.failures["drop"] += 1
            log.warning("cache_drop_owed", reason=drop.reason, **_about(drop))
            return 0

    def _noted(self, drop: Drop, dropped: Mapping[str, int], began: float) -> int:
        number = self._tally.note_drop(drop.reason, dropped)
        took_ms = round((time.perf_counter() - began) * 1e3, 3)
        (log.info if number or not drop.change else log.debug)(
            "cache_dropped", reason=drop.reason, answers=number, took_ms=took_ms, **_about(drop)
        )
        return number

    # --- what it says of itself

    def facts(self) -> dict[str, object]:
        """For /stats."""
        if self._store is None:
            return {"routes": {}}
        facts = self._tally.facts(self._store.sizes())
        return facts | ({"trial": self._trial.facts()} if self._trial.routes else {})

    def metrics(self) -> Iterator[Metric]:
        """For a scrape."""
        yield from self._tally.metrics({} if self._store is None else self._store.sizes())

    def state(self) -> str:
        """ "ok", or what is wrong with the store."""
        return "ok" if self._store is None else self._store.state()

    async def stop(self) -> None:
        """End what is under way, and let go of connections."""
        await self._flights.stop()
        if self._dropping:
            await asyncio.wait(set(self._dropping))
        if self._store is not None:
            await self._store.stop()


def _may_share(endpoint: Endpoint, call: Call) -> bool:
    """True if the answer does not depend on who asks."""
    headers = call.request.headers
    nobody = call.principal is ANONYMOUS or call.principal is DEVELOPMENT
    return endpoint.shared or (nobody and b"cookie" not in headers and b"authorization" not in headers)


def _audience(endpoint: Endpoint, call: Call) -> str:
    """Where no key is configured this machine may do what others may not: they may not share either."""
    return "" if endpoint.shared or call.principal is ANONYMOUS else "development"


def _marked(response: Response, mark: str, strategy: Strategy | None = None) -> Response:
    """An answer of its own, with what the cache did."""
    headers = [*response.headers, ("X-Cache", mark)]
    if strategy is not None and strategy.name:
        headers.append(("X-Cache-Strategy", strategy.name))
    return Response(response.status, response.body, response.content_type, headers)


def _about(drop: Drop) -> dict[str, object]:
    """What a log line says of a drop."""
    tags = sorted(drop.tags or ())
    facts = {"tags": tags[:SHOWN_TAGS], "of_tags": len(tags), "route": drop.route, "area": drop.area}
    return {name: value for name, value in facts.items() if value}
