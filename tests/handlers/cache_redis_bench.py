"""Stores of several nodes over one real Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from handlers.cache_entry import Drop, Kept
from handlers.cache_key import PREFIX
from handlers.cache_redis import RedisStore
from handlers.cache_store import Claim
from handlers.response_cache import ResponseCache
from server.exchange import Response
from server.relay.redis_client import Target, connect
from tests.handlers.cache_bench import ROOM, Bench, Source, header, kept, together
from tests.harness.redis import RedisServer

ROUTE = "/things/{id}"
LAGOS = (6.5244, 3.3792, 10.0)
PATIENT = 20.0  # for what has to be read, however busy the machine is


@contextlib.asynccontextmanager
async def nodes(
    redis: RedisServer, count: int = 1, *, target: Target | None = None, **options: Any
) -> AsyncIterator[list[RedisStore]]:
    """Stores of several nodes."""
    values: dict[str, Any] = {"max_bytes": ROOM, "max_entries": 1000, "answer_seconds": PATIENT} | options
    stores = [
        RedisStore(connect(target or Target(redis.url), answer_seconds=2.0), "test", **values) for _ in range(count)
    ]
    try:
        yield stores
    finally:
        for store in stores:
            await store.stop()


def named(name: str, *tags: str, **options: Any) -> Kept:
    """An answer under a key of the usual form."""
    return kept(PREFIX + name.encode().hex(), *tags, **options)


def key(name: str) -> str:
    return named(name).key


async def write(store: RedisStore, *some: Kept) -> None:
    for one in some:
        claim = await store.claim(one.key, fresh=True)
        assert isinstance(claim, Claim)
        assert await store.write(one, claim)


async def there(store: RedisStore, *names: str) -> list[bool]:
    return [await store.read(key(name)) is not None for name in names]


async def eventually(get: Callable[[], Awaitable[object]], expected: object) -> None:
    """Ask until this is the answer."""
    async with asyncio.timeout(20):
        while await get() != expected:  # noqa: ASYNC110 - Redis's answers are no events
            await asyncio.sleep(0.02)


def change(*tags: str) -> Drop:
    return Drop("change", frozenset(tags), change=True)


class Nodes:
    """Caches of several nodes over one Redis."""

    def __init__(self, stores: list[RedisStore]) -> None:
        self.benches = []
        for store in stores:
            bench = Bench()
            bench.cache = ResponseCache(store)
            self.benches.append(bench)

    async def ask(self, source: Source, times: int = 1, path: str = "/things/1") -> list[Response]:
        endpoint = source.endpoint()
        return await together(*(bench.get(endpoint, path) for bench in self.benches for _ in range(times)))


def marks(answers: list[Response]) -> list[str]:
    return sorted(header(answer, "X-Cache") or "" for answer in answers)


async def marks_of(several: Nodes, source: Source) -> list[str]:
    return marks(await several.ask(source))
