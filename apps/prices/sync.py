"""The sync: looks at the source at its times, and records what is news.

Owns when to look, what is asked for again after a failure and how much later, and what is said of all that (state,
counts). Must never know how a source is asked, or how a change is stored.

Invariants: one node looks at a time, so upstream is asked once, whatever the number of nodes; two of them for a moment
would record nothing twice (store.py). A failure changes nothing but the time of the next look: what is known stays,
streams stay. Nobody waits for a look.
Cost: a comparison in memory for each item and look, in pieces; a transaction for each `CHUNK` items that changed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import replace

from apps.prices.model import Price, Quote, advance
from apps.prices.source import FAILURES, Source, SourceFailed
from apps.prices.store import CHUNK, PriceStore
from bridges.database import DatabaseUnavailable
from bridges.leases import Turn
from server.logs import get_logger

NAMES_SECONDS = 86_400.0
NAMES_RETRY_SECONDS = 300.0
LONGEST_WAIT_SECONDS = 900.0
DATABASE_WAIT_SECONDS = 2.0
MIXED = "the database holds real prices: none are made up among them (set prices_upstream)"

log = get_logger("prices")


class Sync:
    """See the module's head."""

    def __init__(self, source: Source, store: PriceStore, turn: Turn) -> None:
        self._source = source
        self._store = store
        self._turn = turn
        self._turn_number = 0
        self._known: dict[int, Price] = {}
        self._names: Mapping[int, str] = {}
        self._names_due = 0.0
        self._failures = 0
        self._state = "ok"
        self.looked = 0.0
        self.looks = dict.fromkeys(("ok", *FAILURES, "database"), 0)
        self.changes = self.unusable = 0

    @property
    def state(self) -> str:
        """ "ok", or why no prices come in. Where it is another node's turn, that one knows."""
        return self._state if self._turn.mine else "ok"

    @property
    def simulated(self) -> bool:
        return self._source.simulated

    async def run(self) -> None:
        """Look, for ever, when it is this node's turn."""
        while True:
            number = await self._turn.wait()
            await asyncio.sleep(await self._look(number))

    async def _look(self, number: int) -> float:
        """One look; how long to wait for the next."""
        try:
            if number != self._turn_number and not await self._begin():
                return LONGEST_WAIT_SECONDS
            self._turn_number = number
            await self._ask_names()
            latest = await self._source.latest()
            self.unusable += latest.unusable
            await self._record(latest.quotes)
        except SourceFailed as error:
            return self._failed(error.kind, error.reason, error.wait_seconds)
        except DatabaseUnavailable as error:
            self._turn_number = 0  # what is known may not be so any more
            self._failed("database", error.reason)
            return DATABASE_WAIT_SECONDS  # upstream is asked for nothing before it is back
        return self._succeeded()

    async def _begin(self) -> bool:
        """Find out how things stand; False if this source is not to be used here."""
        if not self._source.simulated:
            gone = await self._store.forget_simulated()
            if gone:
                log.info("simulated_prices_forgotten", items=gone)
        elif await self._store.has_real():
            self._state = MIXED
            return False
        self._known = await self._store.known()
        self._source.begin(self._known)
        for price, past in self._source.brought(self._known):
            await self._store.fill(price, past)
            self._known[price.item_id] = price
        return True

    async def _ask_names(self) -> None:
        """Names, once a day. Prices go on without them."""
        now = time.monotonic()
        if now < self._names_due:
            return
        try:
            self._names = await self._source.names()
        except SourceFailed as error:
            self._names_due = now + NAMES_RETRY_SECONDS
            self.looks[error.kind] += 1
            log.warning("no_names_of_items", reason=error.reason)
            return
        other = {
            item_id: self._names[item_id]
            for item_id, price in self._known.items()
            if self._names.get(item_id, price.name) != price.name
        }
        await self._store.rename(other)
        self._known |= {item_id: replace(self._known[item_id], name=name) for item_id, name in other.items()}
        self._names_due = now + NAMES_SECONDS

    async def _record(self, quotes: Mapping[int, Quote]) -> None:
        ids = list(quotes)
        for start in range(0, len(ids), CHUNK):
            chunk = ids[start : start + CHUNK]
            seen = {item_id: quotes[item_id] for item_id in chunk if self._is_news(item_id, quotes[item_id])}
            if not seen:
                await asyncio.sleep(0)
                continue
            now = round(time.time() * 1_000)
            news = await self._store.record(seen, self._names, now, simulated=self._source.simulated)
            self._known |= {price.item_id: price for price in news}
            self.changes += len(news)

    def _is_news(self, item_id: int, quote: Quote) -> bool:
        known = self._known.get(item_id)
        return advance(None if known is None else known.quote, quote) is not None

    def _succeeded(self) -> float:
        if self._state != "ok":
            log.info("prices_are_back", after_failures=self._failures)
        self._state, self._failures, self.looked = "ok", 0, time.time()
        self.looks["ok"] += 1
        return self._source.seconds

    def _failed(self, kind: str, reason: str, asked_seconds: float = 0.0) -> float:
        if self._state == "ok":
            log.error("no_prices", kind=kind, reason=reason)
        self._state = reason if kind == "database" else f"no prices from upstream: {reason}"
        self._failures += 1
        self.looks[kind] += 1
        longest = min(LONGEST_WAIT_SECONDS, self._source.seconds * 2.0 ** min(self._failures, 20))
        return max(longest * random.uniform(0.5, 1.0), asked_seconds)
