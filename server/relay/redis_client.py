"""Connections to Redis: from a URL to clients whose every wait has a limit, and the scripts that they call.

Owns the URL's forms (`redis://`, `rediss://`, `unix://`, with `+sentinel` and `+cluster`), time limits, and the loading
of scripts. Must never know what a channel is.

Invariants: nothing is tried again behind our back. redis-py repeats a command whose answer did not come (three times by
default), and an append that is repeated is an event that is there twice; what is repeated is decided where it is known
to be safe. A blocking read is always shorter than the socket's time limit: else it ends in an error a minute later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import cache
from hashlib import sha1
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
)

from server.relay.protocol import RelayUnavailable
from server.relay.redis_masters import MasterPool, Masters
from server.relay.redis_patience import Patience, patient

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 4.0
BLOCK_SECONDS = 1.0
BLOCK_LIMIT_SECONDS = 2.5
MOST_A_TRIP = 64

Client = Redis | RedisCluster

# What an answer that does not come is raised as. RuntimeError: uvloop's word for a transport that was reset a moment
# ago, which redis-py lets through.
ERRORS = (RedisError, RedisClusterException, OSError, TimeoutError, RuntimeError)
# redis-py takes the word that Redis begins an error with off the text where it has a class for it.
_REASONS: Sequence[tuple[type[Exception], str]] = (
    (OutOfMemoryError, "redis is out of memory"),
    (ReadOnlyError, "redis is read-only: a failover is under way"),
    (BusyLoadingError, "redis is loading its data"),
    (MasterDownError, "redis has no master"),
    (ClusterDownError, "the cluster of redis is down"),
    (NoPermissionError, "redis does not allow it: see its ACL"),
    (AuthenticationError, "redis does not accept the user or the password"),
)
_SIGNS = (
    ("OOM", "redis is out of memory"),
    ("READONLY", "redis is read-only: a failover is under way"),
    ("NOREPLICAS", "redis has too few replicas"),
    ("LOADING", "redis is loading its data"),
    ("MISCONF", "redis cannot write to its disk"),
    ("certificate has expired", "the certificate of redis has expired"),
    ("certificate is not valid for", "the certificate of redis names another address"),
    ("CERTIFICATE_VERIFY_FAILED", "the certificate of redis is of no authority that is trusted here"),
)


class Script(NamedTuple):
    """A script's text and the name that Redis knows it by."""

    text: str
    digest: str


@cache
def script(name: str) -> Script:
    """The script of that name, with what it needs before it."""
    folder = resources.files("server.relay") / "lua"
    text = (folder / f"{name}.lua").read_text("utf-8")
    if "turned(" in text or "dropped(" in text:
        text = (folder / "common.lua").read_text("utf-8") + text
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


async def call(client: Client, name: str, keys: Sequence[str], *values: Any) -> Any:
    """Run a script that may run twice. Raises what redis-py does."""
    wanted = script(name)
    arguments: list[Any] = [*keys, *values]
    try:
        return await client.evalsha(wanted.digest, len(keys), *arguments)
    except NoScriptError:
        return await client.eval(wanted.text, len(keys), *arguments)


async def ask(answer: Awaitable[Any]) -> Any:
    """What a command answers. Raises RelayUnavailable."""
    try:
        return await answer
    except ERRORS as error:
        raise RelayUnavailable(reason_of(error)) from error


async def ask_script(client: Client, name: str, keys: Sequence[str], *values: Any) -> Any:
    """What a script answers that may run twice. Raises RelayUnavailable."""
    try:
        return await call(client, name, keys, *values)
    except ERRORS as error:
        if isinstance(error, RuntimeError):
            await drop_connections(client)
        raise RelayUnavailable(reason_of(error)) from error


class Command(NamedTuple):
    """Something to ask of the Redis that has `key`."""

    key: str
    words: Sequence[Any]


async def ask_each(client: Client, commands: Sequence[Command]) -> list[Any]:
    """What each of these answers, or the error in its place: none waits for another's answer. Those for one Redis go
    together, `MOST_A_TRIP` at a time: it should get to others in between. Several Redis are asked side by side, and
    one that does not answer keeps nobody from the others."""
    answers: list[Any] = [None] * len(commands)
    by_redis: dict[str, list[int]] = {}
    for number, command in enumerate(commands):
        by_redis.setdefault(_redis_of(client, command.key), []).append(number)

    async def trips(numbers: list[int]) -> None:
        for first in range(0, len(numbers), MOST_A_TRIP):
            some = numbers[first : first + MOST_A_TRIP]
            try:
                async with client.pipeline(transaction=False) as pipe:
                    for number in some:
                        pipe.execute_command(*commands[number].words)  # a cluster's has no evalsha
                    found = await pipe.execute(raise_on_error=False)
            except (*ERRORS, RelayUnavailable) as error:
                if isinstance(error, RuntimeError):
                    await drop_connections(client)
                for number in numbers[first:]:
                    answers[number] = error
                return
            for number, answer in zip(some, found, strict=True):
                answers[number] = answer

    await asyncio.gather(*map(trips, by_redis.values()))
    return answers


def _redis_of(client: Client, key: str) -> str:
    """The name of the Redis that has a key, as far as is known; "" if there is but one."""
    if isinstance(client, Redis):
        return ""
    try:
        node = client.get_node_from_key(key)
    except RedisClusterException:
        return ""  # its pipeline says so itself, once it has looked anew
    return node.name if node is not None else ""


async def ask_scripts(client: Client, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
    """What a script that may run twice answers for each of these keys and values, or the error in its place."""
    wanted = script(name)

    def said(how: str, what: str, numbers: Sequence[int]) -> list[Command]:
        some = [calls[number] for number in numbers]
        return [Command(keys[0], (how, what, len(keys), *keys, *values)) for keys, values in some]

    answers = await ask_each(client, said("EVALSHA", wanted.digest, range(len(calls))))
    forgotten = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    for number, answer in zip(forgotten, await ask_each(client, said("EVAL", wanted.text, forgotten)), strict=True):
        answers[number] = answer
    return answers


class Target(NamedTuple):
    """Which Redis, and as whom."""

    url: str
    username: str | None = None
    password: str | None = None


def connect(
    target: Target,
    patience: Patience | None = None,
    masters: Masters | None = None,
    *,
    answer_seconds: float = ANSWER_SECONDS,
) -> Client:
    """A client. No connection is made before it is used, nor before its `patience` allows; a cluster has many Redis,
    and waits for none of them. Clients with the same `masters` go to the same one of those that Sentinels watch."""
    options: dict[str, Any] = {
        "username": target.username,
        "password": target.password,
        "socket_timeout": answer_seconds,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "client_name": "ringcast",
    }
    parts = urlsplit(target.url)
    scheme, _, kind = parts.scheme.partition("+")
    plain = urlunsplit((scheme, *parts[1:]))
    if kind == "cluster":
        return RedisCluster.from_url(plain, **options)
    if kind == "sentinel":
        client = _through_sentinels(scheme, parts.netloc, parts.path, options, masters or Masters())
    else:
        client = Redis.from_url(plain, **options)
    if patience is not None:
        pool: Any = client.connection_pool
        pool.connection_class = patient(pool.connection_class, patience, ERRORS, reason_of)
    return client


def _through_sentinels(scheme: str, netloc: str, path: str, options: dict[str, Any], masters: Masters) -> Redis:
    """`redis+sentinel://HOST:PORT,HOST:PORT/NAME/DATABASE`."""
    name, _, database = path.strip("/").partition("/")
    sentinels = [(host.rpartition(":")[0], int(host.rpartition(":")[2])) for host in netloc.split(",")]
    options["db"] = int(database or 0)
    if scheme == "rediss":
        options["ssl"] = True
    limits = {key: options[key] for key in ("socket_timeout", "socket_connect_timeout", "retry", "protocol")}
    manager = Sentinel(sentinels, sentinel_kwargs=limits)  # type: ignore[no-untyped-call]
    master: Redis = manager.master_for(name, connection_pool_class=MasterPool, masters=masters, **options)
    return master


async def drop_connections(client: Client) -> None:
    """After a RuntimeError: redis-py would give the broken connection out again."""
    if isinstance(client, Redis):
        await client.connection_pool.disconnect()


def reason_of(error: BaseException) -> str:
    """What to tell a publisher: nothing of addresses or passwords."""
    if isinstance(error, RelayUnavailable):
        return error.reason
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    text = str(error)
    for sign, reason in _SIGNS:
        if sign in text:
            return reason
    return "redis does not answer" if isinstance(error, ERRORS) else "the relay failed"
