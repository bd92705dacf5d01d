"""A publisher that appends to the nodes' Redis itself: by the same script as a node, so nothing about it is different.

Owns one client. It goes past every right and limit of the nodes: for processes that may write to that Redis anyway.
Not for several threads at once. Blocking. Cost: one round trip per call; with `replicas` it lasts until they have it.

Invariant: the replicas are waited for on the connection of the append, together with it. WAIT speaks of what a
connection has seen; on another one, and perhaps of another master, it would say nothing of this event.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any
from uuid import uuid4

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from ringcast.events import make_event
from server.commands.posting import PublishFailed
from server.commands.remote import EXIT_GAVE_UP
from server.event import Event
from server.ids import new_epoch
from server.relay.idempotency import Receipt
from server.relay.protocol import KeyConflict, Retention
from server.relay.redis_appends import TOO_FEW, append_arguments
from server.relay.redis_client import ANSWER_SECONDS, CONNECT_SECONDS, reason_of, script
from server.relay.redis_entries import pack
from server.relay.redis_log import RedisLog

FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0
_NOBODY_ELSES = Retention(0, 0, 0)


class RedisPublisher:
    """Publishes to one channel. A publish is tried for `within_seconds`; its key counts for `key_seconds`. With
    `shards`, as in the nodes' settings (1 if they say nothing), it may also be the first to open the channel; without,
    it waits until a node has. With `replicas` an event is published once so many replicas have it; they are waited for
    `replicas_seconds` at a time."""

    def __init__(
        self,
        url: str,
        *,
        channel: str = "main",
        prefix: str = "ringcast",
        within_seconds: float = 60.0,
        key_seconds: float = 120.0,
        shards: int | None = None,
        replicas: int = 0,
        replicas_seconds: float = 1.0,
        sleep: Callable[[float], None] = time.sleep,
        **options: Any,
    ) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=ANSWER_SECONDS + replicas_seconds,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **options,
        )
        self._may_open = shards is not None
        self._log = RedisLog(channel, prefix, _NOBODY_ELSES, shards or 1)
        self._log_in = partial(RedisLog, channel, prefix, _NOBODY_ELSES)
        self._within_seconds = within_seconds
        self._replicas, self._replicas_ms = replicas, max(1, round(replicas_seconds * 1000))  # 0 ms: for ever
        self._window_ms = round(key_seconds * 1000)
        self._sleep = sleep

    def publish(self, topic: str, data: object, *, key: str | None = None, **fields: Any) -> str:
        """Publish one event; its id. Raises InvalidEvent, KeyConflict, PublishFailed."""
        return self.publish_many([make_event(topic, data, **fields)], key=key)[0]

    def publish_many(self, events: Sequence[Event], *, key: str | None = None) -> list[str]:
        """Publish several events, all or none; their ids. Raises KeyConflict, PublishFailed."""
        if not events:
            return []
        packed = [pack(event) for event in events]
        values = "\n".join([str(len(events)), *(str(value) for one in packed for value in one)])
        digest = blake2b(values.encode(), digest_size=16).hexdigest()
        receipt_key = self._log.receipt_key("redis", key or uuid4().hex)
        return list(self._until_appended(events, receipt_key, digest))

    def _until_appended(self, events: Sequence[Event], receipt_key: str, digest: str) -> tuple[str, ...]:
        end = time.monotonic() + self._within_seconds
        wait = FIRST_WAIT_SECONDS
        while True:
            try:
                ids, replicated = self._append(events, receipt_key, digest)
                if ids is not None and replicated:
                    return ids
                reason = TOO_FEW if ids is not None else "the log is not open, or is turning to a new epoch"
            except (RedisError, OSError) as error:
                reason = reason_of(error)
            if time.monotonic() + wait > end:
                raise PublishFailed(reason, EXIT_GAVE_UP)
            self._sleep(random.uniform(0, wait))
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    def _epoch(self) -> str | None:
        """The epoch that the log is in, and into how many shards it is split: that is for the log to say. None if there
        is no log and it is not for us to say either."""
        found: Any = self._redis.hmget(self._log.facts, "epoch", "shards")
        epoch, shards = found
        if epoch is None:  # no node has opened the channel yet
            if not self._may_open:
                return None
            epoch = self._call("open", self._log.opening_keys, [new_epoch(), "", 0, 0, 0, 0])[1]
        elif int(shards or 1) != len(self._log.shards):
            self._log = self._log_in(int(shards or 1))
        return str(epoch.decode())

    def _append(self, events: Sequence[Event], receipt_key: str, digest: str) -> tuple[tuple[str, ...] | None, bool]:
        """The ids, None if the log has turned; and whether enough replicas have them."""
        text = self._epoch()
        if text is None:
            return None, False
        known = [text, 0, 0, self._window_ms, digest]
        keys, values = append_arguments(self._log, events, known, [receipt_key])
        (kind, value), replicated = self._append_and_wait(keys, values)
        if kind == b"turned":
            return None, False
        if kind == b"appended":
            own = "\n".join(event.id or "" for event in events)
            return Receipt(int(value), len(events), own if own.strip("\n") else "").ids(text), replicated
        facts, _, own = value.decode().partition("\n")
        known, first, count = facts.split(" ")
        if known != digest:
            raise KeyConflict
        return Receipt(int(first), int(count), own if own.strip("\n") else "").ids(text), replicated

    def _append_and_wait(self, keys: Sequence[str], values: Sequence[str | int]) -> tuple[Any, bool]:
        """What the script answers, and whether enough replicas have all that the master had then."""
        if not self._replicas:
            return self._call("append", keys, values), True
        wanted = script("append")
        while True:
            pipe: Any = self._redis.pipeline(transaction=False)
            pipe.evalsha(wanted.digest, len(keys), *keys, *values)
            pipe.execute_command("WAIT", self._replicas, self._replicas_ms)
            answer, reached = pipe.execute(raise_on_error=False)
            if not isinstance(answer, NoScriptError):
                break
            self._redis.script_load(wanted.text)
        for outcome in (answer, reached):
            if isinstance(outcome, Exception):
                raise outcome
        return answer, reached >= self._replicas

    def _call(self, name: str, keys: Sequence[str], values: Sequence[str | int]) -> Any:
        wanted = script(name)
        try:
            return self._redis.evalsha(wanted.digest, len(keys), *keys, *values)
        except NoScriptError:
            return self._redis.eval(wanted.text, len(keys), *keys, *values)

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()
