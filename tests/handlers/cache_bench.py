"""A response cache on a bench: endpoints that count, requests to them, and a clock that stands still."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from handlers.cache_entry import Area, Kept
from handlers.cache_store import ProcessStore
from handlers.endpoints import Call, Endpoint, Query, Reply
from handlers.paths import arguments_of
from handlers.response_cache import ResponseCache
from server.exchange import Response
from server.rights import ANONYMOUS, Principal
from tests.handlers.lodge import request

ROOM = 1 << 24


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Search(Query):
    """Parameters as a search has them."""

    lat: float = 0.0
    lon: float = 0.0
    radius: float = 50.0
    q: str = ""


class Source:
    """What endpoints answer: `value`, with `tags` and `area`; counted. If `gate` is there a computation waits for it,
    having read the value before."""

    def __init__(self, *tags: str, area: Area | None = None) -> None:
        self.value: object = 0
        self.tags: Sequence[str] = tags
        self.area = area
        self.status = 200
        self.headers: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.runs = 0

    async def run(self, call: Call) -> Reply:
        self.runs += 1
        reply = Reply({"value": self.value}, self.status, list(self.headers), self.tags, self.area)
        error = self.error
        if self.gate is not None:
            await self.gate.wait()
        if error is not None:
            raise error
        return reply

    def endpoint(self, path: str = "/things/{id}", **options: Any) -> Endpoint:
        return Endpoint("GET", path, self.run, "A thing.", Search, **{"keep_seconds": 100.0} | options)


class Bench:
    """A cache over a process store, both on one clock, without jitter unless asked for."""

    def __init__(self, *, max_bytes: int = ROOM, max_entries: int = 1000, **options: Any) -> None:
        self.clock = Clock()
        self.store = ProcessStore(max_bytes, max_entries, self.clock)
        options = {"jitter": 0.0, "clock": self.clock} | options
        self.cache = ResponseCache(self.store, **options)

    async def get(
        self, endpoint: Endpoint, path: str = "/things/1", *, principal: Principal = ANONYMOUS, **headers: str
    ) -> Response:
        asked = request(path, method="GET", **headers)
        arguments = arguments_of(endpoint.pattern, asked.path)
        assert arguments is not None
        return await self.cache.answer(endpoint, endpoint.read(asked, arguments, principal))

    async def mark(self, endpoint: Endpoint, path: str = "/things/1", **headers: str) -> str:
        """What the cache did."""
        return header(await self.get(endpoint, path, **headers), "X-Cache") or ""

    def figures(self, path: str = "/things/{id}") -> Any:
        """What /stats says of a route."""
        facts: Any = self.cache.facts()
        return facts["routes"][path]


def header(response: Response, name: str) -> str | None:
    found = [value for key, value in response.headers if key == name]
    assert len(found) <= 1, found
    return found[0] if found else None


def value(response: Response) -> Any:
    """What the source had."""
    return json.loads(response.body)["value"]


def kept(key: str, *tags: str, **options: Any) -> Kept:
    """An answer to keep."""
    values: dict[str, Any] = {
        "route": "/things/{id}", "body": b"{}", "content_type": "application/json", "headers": (("A", "b"),),
        "tags": tags, "area": None, "drop_on_change": True, "fresh_seconds": 100.0, "kept_seconds": 100.0,
        "made": 1000.0,
    }  # fmt: skip
    return Kept(key=key, **values | options)


async def until(condition: Callable[[], object]) -> None:
    """Let others run until it is true."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of many kinds
            await asyncio.sleep(0.001)


def run(work: Coroutine[Any, Any, None], seconds: float = 30) -> None:
    """Run a test's coroutine to its end."""

    async def limited() -> None:
        async with asyncio.timeout(seconds):
            await work

    asyncio.run(limited())


async def together(*works: Awaitable[Any]) -> list[Any]:
    return list(await asyncio.gather(*works))
