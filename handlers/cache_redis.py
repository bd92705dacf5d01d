"""Answers in Redis, for all nodes.

Owns the form of an answer there, the time limits, and what is done about a Redis that is away. Must never know of
endpoints or requests. What happens in Redis is in handlers/cache_lua.py.

Invariants:
- Nobody waits longer than `answer_seconds` for it: then the store is away, and is left alone for a second. A command is
  never cancelled on its way (its answer would be taken for that of another); it ends by its socket's limit.
- A drop that did not reach Redis is owed: nothing is read from or written to it before that is made good.
- What a node reads after it was told of a change is not older than that change, as long as Redis answers.
- Two nodes do not compute one answer at once, as far as a lock of `LOCK_SECONDS` goes; nobody waits for it longer than
  `lock_wait_seconds`.

Redis must not evict keys by itself (`maxmemory-policy noeviction`): what finds an answer by its tags could go before
the answer. The bounds are kept by the scripts: what is over soonest goes first.
Cost: one round trip for a hit, three for a miss.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ujson
from redis.exceptions import NoScriptError, ResponseError

from handlers.cache_entry import Drop, Kept
from handlers.cache_key import PREFIX
from handlers.cache_lua import CLAIM, DROP, FORGET, PAGE, READ, RELEASE, WRITE, Script
from handlers.cache_store import LARGEST_SHARE, Claim, Size, StoreAway
from server.logs import get_logger
from server.relay.redis_client import ERRORS, Client, drop_connections, reason_of
from server.supervision import cancelled

ANSWER_SECONDS = 0.05
DROP_SECONDS = 2.0
AWAY_SECONDS = 1.0
LOCK_SECONDS = 3.0
LOCK_WAIT_SECONDS = 1.0
FIRST_LOOK_SECONDS = 0.01
LAST_LOOK_SECONDS = 0.1
# Commands at once, each on a connection of its own.
MAX_ASKED = 32
MAX_OWED = 1_000
PAGE_ENTRIES = 500

log = get_logger("cache")


class RedisStore:
    """`prefix` is that of all keys of this installation."""

    def __init__(
        self,
        client: Client,
        prefix: str,
        *,
        max_bytes: int,
        max_entries: int,
        answer_seconds: float = ANSWER_SECONDS,
        lock_wait_seconds: float = LOCK_WAIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._base = f"{{{prefix}}}:http:"
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._answer_seconds = answer_seconds
        self._lock_wait_seconds = lock_wait_seconds
        self._clock = clock
        self._slots = asyncio.Semaphore(MAX_ASKED)
        self._asked: set[asyncio.Task[Any]] = set()
        self._away_until = 0.0
        self._reason = ""
        self._owed: list[Drop] = []
        self._paying: asyncio.Task[None] | None = None
        self._changing: set[asyncio.Future[None]] = set()
        self._sizes: dict[str, Size] = {}

    # --- answers

    async def read(self, key: str) -> Kept | None:
        """The answer, if there is one that is not over."""
        self._check()
        await self._changes()
        found = await self._ask(READ, _hash(key))
        return None if found is None else self._kept(key, *found)

    async def claim(self, key: str, *, fresh: bool) -> Kept | Claim:
        """An answer that another node has made meanwhile, or the right to make one."""
        token = secrets.token_hex(8)
        wait, end = FIRST_LOOK_SECONDS, self._clock() + self._lock_wait_seconds
        while True:
            self._check()
            lock_ms = round(LOCK_SECONDS * 1000)
            began, taken, *found = await self._ask(CLAIM, _hash(key), token, lock_ms, int(not fresh))
            kept = self._kept(key, *found[0]) if found else None
            if kept is not None:
                return kept
            if found or taken or fresh or self._clock() >= end:
                return Claim(int(began), token if taken else "")
            await asyncio.sleep(wait)
            wait = min(wait * 2, LAST_LOOK_SECONDS)

    async def release(self, key: str, claim: Claim) -> None:
        """No answer will be written."""
        if claim.token:
            self._check()
            await self._ask(RELEASE, _hash(key), claim.token)

    async def write(self, kept: Kept, claim: Claim) -> bool:
        """Keep an answer; False if it can't be kept, or was dropped while it was made."""
        self._check()
        if kept.cost * LARGEST_SHARE > self._max_bytes:
            await self.release(kept.key, claim)
            return False
        names = (_hash(kept.key), claim.token, claim.began, secrets.token_hex(4), kept.route)
        bounds = (kept.cost, round(kept.kept_seconds * 1000), self._max_entries, self._max_bytes)
        content = (kept.body, _about(kept), int(kept.drop_on_change), ujson.dumps(kept.tags))
        answer = await self._ask(WRITE, *names, *bounds, *content, *kept.tags)
        if answer[0]:
            self._sizes[kept.route] = Size(int(answer[1]), int(answer[2]))
        return bool(answer[0])

    def _kept(self, key: str, body: bytes, about: bytes, left_ms: int, changed_ms: int) -> Kept | None:
        """The answer; None for one of a form that another version of this program has written."""
        kept = _read_about(key, body, about, b"[]")
        if kept is not None:
            now = self._clock()
            kept.made = now - kept.kept_seconds + left_ms / 1000
            kept.changed = None if changed_ms < 0 else now - changed_ms / 1000
        return kept

    # --- drops

    def drop_now(self, drop: Drop) -> None:
        """It takes waiting."""

    async def drop(self, drop: Drop) -> Mapping[str, int]:
        """Drop what is meant. If that can't be done now it is owed, and StoreAway raised."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if drop.change:
            self._changing.add(done)
        try:
            if self._owed:
                raise StoreAway
            return await self._drop(drop)
        except StoreAway:
            self._owe(drop)
            raise
        finally:
            self._changing.discard(done)
            done.set_result(None)

    async def _changes(self) -> None:
        """Wait for the drops that are under way. Raises StoreAway if they take too long."""
        if self._changing:
            _, late = await asyncio.wait(set(self._changing), timeout=self._answer_seconds)
            if late:
                raise StoreAway

    async def _drop(self, drop: Drop) -> Counter[str]:
        dropped = Counter[str]()
        for name, mark in _places(drop):
            walk = self._drop_all if drop.simple else self._drop_some
            dropped += await walk(drop, name, mark)
        return dropped

    async def _drop_all(self, drop: Drop, name: str, mark: str) -> Counter[str]:
        """Everything in a set."""
        dropped = Counter[str]()
        score, most = b"-inf", PAGE_ENTRIES
        while True:
            count, last, *told = await self._ask(DROP, name, mark, score, most, int(drop.change), seconds=DROP_SECONDS)
            dropped += self._told(told)
            if count < most:
                return dropped
            score, most, mark = last, most * 2 if last == score else most, ""

    async def _drop_some(self, drop: Drop, name: str, mark: str) -> Counter[str]:
        """What the drop means of a set."""
        dropped = Counter[str]()
        score, most = b"-inf", PAGE_ENTRIES
        while True:
            count, last, page = await self._ask(PAGE, name, mark, score, most, seconds=DROP_SECONDS)
            meant = [member for member, about, tags in page if _meant(drop, about, tags)]
            if meant:
                dropped += self._told(await self._ask(FORGET, *meant, seconds=DROP_SECONDS))
            if count < most:
                return dropped
            score, most, mark = last, most * 2 if last == score else most, ""

    def _told(self, told: Sequence[Any]) -> Counter[str]:
        """How many went of each route; what is left of it is remembered."""
        dropped = Counter[str]()
        for start in range(0, len(told), 4):
            route, number, entries, size = told[start : start + 4]
            dropped[route.decode()] += int(number)
            self._sizes[route.decode()] = Size(int(entries), int(size))
        return dropped

    def _owe(self, drop: Drop) -> None:
        self._owed.append(drop)
        if len(self._owed) > MAX_OWED:
            self._owed = [Drop("owed")]
        if self._paying is None:
            self._paying = asyncio.get_running_loop().create_task(self._pay())

    async def _pay(self) -> None:
        """Make good what is owed."""
        while self._owed:
            await asyncio.sleep(AWAY_SECONDS)
            try:
                while self._owed:
                    owed = self._owed[0]
                    dropped = await self._drop(owed)
                    log.info("cache_dropped_late", reason=owed.reason, answers=dropped.total())
                    if self._owed[0] is owed:  # and was not joined with others meanwhile
                        del self._owed[0]
            except StoreAway:
                continue
            except Exception:  # a defect; until it is gone nothing is read
                log.exception("drop_failed")
        self._paying = None

    # --- Redis

    def _check(self) -> None:
        """Raise StoreAway if it is of no use to ask."""
        if self._owed or self._clock() < self._away_until:
            raise StoreAway

    async def _ask(self, script: Script, *arguments: Any, seconds: float | None = None) -> Any:
        """What a script answers. Raises StoreAway."""
        task = asyncio.get_running_loop().create_task(self._run(script, arguments))
        self._asked.add(task)
        task.add_done_callback(self._answered)
        done, _ = await asyncio.wait({task}, timeout=seconds or self._answer_seconds)
        if not done:
            self._away(TimeoutError())
            raise StoreAway
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or isinstance(error, ERRORS):
            self._away(error)
            if isinstance(error, RuntimeError):
                await drop_connections(self._client)
            raise StoreAway from error
        self._reason = ""
        return task.result()

    async def _run(self, script: Script, arguments: Sequence[Any]) -> Any:
        async with self._slots:
            try:
                answer: Any = self._client.evalsha(script.digest, 1, self._base, *arguments)
                return await answer
            except NoScriptError:
                answer = self._client.eval(script.text, 1, self._base, *arguments)
                return await answer

    def _answered(self, task: asyncio.Task[Any]) -> None:
        self._asked.discard(task)
        if not task.cancelled():
            task.exception()  # is seen, also by nobody

    def _away(self, error: BaseException | None) -> None:
        self._reason = "redis does not answer" if error is None else reason_of(error)
        if not isinstance(error, ResponseError):  # it answers, if only that it does not do this
            self._away_until = self._clock() + AWAY_SECONDS

    def sizes(self) -> Mapping[str, Size]:
        """What is held, by route, as of the last time that this node wrote or dropped something of it."""
        return self._sizes

    def state(self) -> str:
        """ "ok", or what is wrong."""
        return self._reason or ("drops are owed" if self._owed else "ok")

    async def stop(self) -> None:
        """Let go of connections."""
        if self._paying is not None:
            await cancelled({self._paying})
        await cancelled(self._asked)
        await self._client.aclose()


def _hash(key: str) -> str:
    return key.removeprefix(PREFIX)


def _places(drop: Drop) -> list[tuple[str, str]]:
    """The sets in which a drop looks, each with its mark: what is being computed meanwhile is not kept if it has one of
    them. Only a change may pass over what lives out its time, and only marks of tags are for changes."""
    if drop.tags is not None:
        return [(f"tag:{tag}", f"tag:{tag}" if drop.change and drop.simple else "all") for tag in drop.tags]
    if drop.route is not None:
        return [(f"route:{drop.route}", f"route:{drop.route}" if drop.simple else "all")]
    return [("index", "all")]


def _about(kept: Kept) -> str:
    return ujson.dumps(
        [kept.route, kept.content_type, kept.headers, kept.area, kept.drop_on_change, kept.fresh_seconds,
         kept.kept_seconds]
    )  # fmt: skip


def _read_about(key: str, body: bytes, about: bytes, tags: bytes) -> Kept | None:
    try:
        route, content_type, headers, area, drop_on_change, fresh_seconds, kept_seconds = ujson.loads(about)
        pairs = tuple((name, value) for name, value in headers)
        where = None if area is None else (area[0], area[1], area[2])
        names = tuple(ujson.loads(tags))
    except (ValueError, TypeError, IndexError):
        return None
    return Kept(
        key, route, body, content_type, pairs, names, where, drop_on_change, fresh_seconds, kept_seconds, 0.0
    )  # fmt: skip


def _meant(drop: Drop, about: bytes, tags: bytes) -> bool:
    """True if this answer is meant, or if nobody can say."""
    kept = _read_about("", b"", about, tags)
    return kept is None or drop.meets(kept)
