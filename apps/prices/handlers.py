"""Prices over HTTP: how items stand, and their history for charts.

Owns the endpoints and the form of their answers. Must never know how a price is stored. Everybody may read; where the
channel is not for everybody (`channels: prices: anonymous: false`), those whose token grants the channel.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from apps.prices.history import MAX_POINTS, History
from apps.prices.model import PERIODS, Period, Point, Price, begin_of
from apps.prices.store import PriceStore
from apps.prices.watch import Items, items_of
from handlers.endpoints import Answer, Call, Check, Endpoint, Page, Query, Reply, not_found

ROOT = "/api/v1/prices"
# A chart that was loaded a minute ago is brought up to date by the stream.
KEEP_SECONDS = 60.0
_ID = re.compile("[0-9]{1,9}")


class Current(Answer):
    """How an item stands. `simulated` is there for what is made up."""

    item_id: int
    name: str | None
    high: int | None
    low: int | None
    high_time: int | None
    low_time: int | None
    timestamp: str
    simulated: bool = False


class CurrentList(Answer):
    """Items, by id."""

    items: list[Current]
    total: int
    limit: int
    offset: int


class CurrentQuery(Page):
    """Which items to list."""

    items: Items = ""
    search: str = Field("", max_length=100, description="A part of their name.")


class HistoryQuery(Query):
    """Which points of the history."""

    period: Period = "24h"
    sample: bool = Field(False, description="One average for each step of the period.")
    cache: Literal["", "skip"] = Field("", description="`skip`: compute the answer, and keep it for others.")
    bypass_cache: Literal["", "true", "false"] = Field("", description="`true`: the same as `cache=skip`.")


class HistoryPoint(Answer):
    """A point: an average from `timestamp` on, or a single change."""

    timestamp: str
    high: int | None
    low: int | None


class HistoryAnswer(Answer):
    """The points of a period, oldest first. `before` is how things stood when it began; `truncated`: there are more,
    and these are the newest."""

    item_id: int
    name: str | None
    period: Period
    sample: bool
    step_seconds: int
    data: list[HistoryPoint]
    before: HistoryPoint | None
    truncated: bool
    simulated: bool


class PriceHandlers:
    """The endpoints. `access`: who may read."""

    def __init__(self, store: PriceStore, history: History, access: Check) -> None:
        self._store = store
        self._history = history
        self._access = access

    def endpoints(self) -> Sequence[Endpoint]:
        """See the module's head."""
        own: dict[str, Any] = {"tag": "prices", "access": self._access}
        return [
            Endpoint("GET", f"{ROOT}/current", self._list, "How items stand.", CurrentQuery, reply=CurrentList, **own),
            Endpoint("GET", f"{ROOT}/current/{{id}}", self._get, "How an item stands.", reply=Current, **own),
            Endpoint(
                "GET", f"{ROOT}/history/{{id}}", self._read_history, "An item's history.", HistoryQuery,
                reply=HistoryAnswer, keep_seconds=KEEP_SECONDS, shared=True, drop_on_change=False, **own,
            ),
        ]  # fmt: skip

    async def _list(self, call: Call) -> Reply:
        query: CurrentQuery = call.query
        ids = items_of(query.items) or None
        found, total = await self._store.list(ids, query.search, query.limit, query.offset)
        facts = [_current(price) for price in found]
        return Reply({"items": facts, "total": total, "limit": query.limit, "offset": query.offset})

    async def _get(self, call: Call) -> Reply:
        return Reply(_current(await self._item(call)))

    async def _read_history(self, call: Call) -> Reply:
        price, query = await self._item(call), call.query
        seconds, step_seconds = PERIODS[query.period]
        now_ms = round(time.time() * 1_000)
        since_ms = begin_of(now_ms - seconds * 1_000, step_seconds) if seconds else 0
        if query.sample:
            found = await self._history.sampled(price.item_id, since_ms, step_seconds)
        else:
            found = await self._history.single(price.item_id, since_ms)
        before = await self._history.before(price.item_id, since_ms) if since_ms else None
        return Reply(_history(price, query, found, before))

    async def _item(self, call: Call) -> Price:
        item_id = call.arguments["id"]
        price = await self._store.get(int(item_id)) if _ID.fullmatch(item_id) else None
        if price is None:
            raise not_found("id", "there is no item of this number")
        return price


def _current(price: Price) -> dict[str, Any]:
    return {"item_id": price.item_id, "name": price.name} | price.said()


def _history(price: Price, query: HistoryQuery, found: Sequence[Point], before: Point | None) -> dict[str, Any]:
    return {
        "item_id": price.item_id,
        "name": price.name,
        "period": query.period,
        "sample": query.sample,
        "step_seconds": PERIODS[query.period].step_seconds,
        "data": [point.facts() for point in found[-MAX_POINTS:]],
        "before": None if before is None else before.facts(),
        "truncated": len(found) > MAX_POINTS,
        "simulated": price.simulated,
    }
