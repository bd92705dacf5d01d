"""A publisher that appends to the nodes' Redis itself: by the same script as a node, so nothing about it is different.

Owns one client. It goes past every right and limit of the nodes: for processes that may write to that Redis anyway.
Not for several threads at once. Blocking. Cost: one round trip per call.
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
from server.relay.redis_appends import append_arguments
from server.relay.redis_client import ANSWER_SECONDS, CONNECT_SECONDS, reason_of, script
from server.relay.redis_entries import pack
from server.relay.redis_log import RedisLog

FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0
_NOBODY_ELSES = Retention(0, 0, 0)


class RedisPublisher:
    """Publishes to one channel. A publish is tried for `within_seconds`; its key counts for `key_seconds`. With
    `shards`, as in the nodes' settings (1 if they say nothing), it may also be the first to open the channel; without,
    it waits until a node has."""

    def __init__(
        self,
        url: str,
        *,
        channel: str = "main",
        prefix: str = "ringcast",
        within_seconds: float = 60.0,
        key_seconds: float = 120.0,
        shards: int | None = None,
        sleep: Callable[[float], None] = time.sleep,
        **options: Any,
    ) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **options,
        )
        self._may_open = shards is not None
        self._log = RedisLog(channel, prefix, _NOBODY_ELSES, shards or 1)
        self._log_in = partial(RedisLog, channel, prefix, _NOBODY_ELSES)
        self._within_seconds = within_seconds
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
                ids = self._append(events, receipt_key, digest)
                if ids is not None:
                    return ids
                reason = "the log is not open, or is turning to a new epoch"
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
            epoch = self._call("open", self._log.keys, [new_epoch(), "", 0, 0, 0, 0])[1]
        elif int(shards or 1) != len(self._log.shards):
            self._log = self._log_in(int(shards or 1))
        return str(epoch.decode())

    def _append(self, events: Sequence[Event], receipt_key: str, digest: str) -> tuple[str, ...] | None:
        """The ids; None if the log has turned."""
        text = self._epoch()
        if text is None:
            return None
        known = [text, 0, 0, self._window_ms, digest]
        kind, value = self._call("append", *append_arguments(self._log, events, known, [receipt_key]))
        if kind == b"turned":
            return None
        if kind == b"appended":
            own = "\n".join(event.id or "" for event in events)
            return Receipt(int(value), len(events), own if own.strip("\n") else "").ids(text)
        facts, _, own = value.decode().partition("\n")
        known, first, count = facts.split(" ")
        if known != digest:
            raise KeyConflict
        return Receipt(int(first), int(count), own if own.strip("\n") else "").ids(text)

    def _call(self, name: str, keys: Sequence[str], values: Sequence[str | int]) -> Any:
        wanted = script(name)
        try:
            return self._redis.evalsha(wanted.digest, len(keys), *keys, *values)
        except NoScriptError:
            return self._redis.eval(wanted.text, len(keys), *keys, *values)

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()
