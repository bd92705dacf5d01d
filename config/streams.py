"""Settings of the life of a stream and of what is kept for those who come back. Owns their ranges and explanations."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import SecretStr, field_validator

from config.fields import (
    GIB,
    MIB,
    Bytes,
    Events,
    Group,
    HeartbeatStyle,
    LagPolicy,
    PositiveBytes,
    PositiveCount,
    PositiveEvents,
    PositiveSeconds,
    PositiveShortSeconds,
    Replicas,
    ReplicasSeconds,
    RetryMilliseconds,
    Seconds,
    Share,
    ShortSeconds,
    setting,
)

_REDIS_URL = re.compile(r"(?:rediss?(?:\+(?:sentinel|cluster))?://[^@/\s]+(?:/[^@\s]*)?|unix:///[^@\s]+)")
_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Streams(Group):
    """How long a stream lives and how it shows that it does."""

    heartbeat_seconds: ShortSeconds = setting(
        30.0,
        "Longest silence on a stream.",
        zero="no heartbeats",
        why="Proxies and mobile networks drop silent connections, most after 60 seconds.",
    )
    heartbeat_style: HeartbeatStyle = setting(
        "cursor",
        "What a heartbeat is: a `comment`, an `event` that scripts see, or a `cursor`, which no script sees.",
        why="A cursor moves the client's place in the log forward while nothing matches its filter, so that a long "
        "silence is no gap later.",
    )
    max_age_seconds: Seconds = setting(
        1800.0,
        "Longest life of a stream; the client is asked to come back.",
        zero="no limit",
        why="Spreads clients over nodes again after one was added or restarted.",
    )
    max_age_jitter: Share = setting(
        0.2,
        "Share of the age that is drawn off at random.",
        zero="all end at the same age",
        why="Clients that came together would leave together.",
    )
    idle_seconds: Seconds = setting(
        900.0, "Longest time without an event (heartbeats do not count) before a stream is ended.", zero="no limit"
    )
    write_stall_seconds: PositiveSeconds = setting(
        30.0,
        "Longest time a client may read nothing while something waits for it.",
        why="Its socket would be held by somebody who is not there.",
    )
    retry_min_ms: RetryMilliseconds = setting(1000, "Shortest delay a client is told to wait before it reconnects.")
    retry_max_ms: RetryMilliseconds = setting(
        5000,
        "Longest such delay; each connection draws its own.",
        why="Clients that lost one server must not come back in one moment.",
    )
    drain_seconds: ShortSeconds = setting(
        10.0,
        "Time over which readers are sent away when the server stops.",
        zero="all at once",
        why="The nodes that stay get them spread out.",
    )


class Lag(Group):
    """What happens to a reader that is slower than its channel. Others never wait for it."""

    lag_policy: LagPolicy = setting(
        "gap",
        "`gap`: skip the oldest events and say so with a `gap` event; `disconnect`: end the stream, and the client "
        "resumes by its cursor.",
    )
    lag_events: PositiveEvents = setting(1000, "Most events a reader may be behind.")
    lag_bytes: PositiveBytes = setting(
        1 * MIB, "Most bytes a reader may be behind.", why="The events of a lagging reader are held in memory."
    )


class History(Group):
    """Where a channel's log lives and how much of it is kept.

    The ring is in memory; `retain_…` bound the file of `sqlite:` and the streams in Redis.
    """

    relay: str = setting(
        "memory:",
        "Where the logs live: `memory:`, `sqlite:PATH`, or `redis://HOST:PORT/DATABASE` (also `rediss://`, "
        "`redis+sentinel://HOST:PORT,HOST:PORT/NAME/DATABASE`, `redis+cluster://`).",
        why="`memory:` forgets all when the process ends; `sqlite:` keeps every acknowledged event through a kill "
        "of the process; `redis:` is shared by any number of nodes.",
    )
    redis_username: str | None = setting(None, "User of Redis, where it knows several.")
    redis_password: SecretStr | None = setting(None, "Password of Redis.", hidden=True)
    redis_prefix: str = setting(
        "ringcast", "What the keys in Redis begin with.", why="Several installations may share one Redis."
    )
    redis_replicas: Replicas = setting(
        0,
        "Replicas that must have an event before its publish is acknowledged (WAIT).",
        zero="the master alone",
        why="A failover may lose what only the old master had.",
    )
    redis_replicas_seconds: ReplicasSeconds = setting(
        1.0, "Longest wait for the replicas; after it the publisher gets 504 `uncertain`: the event may be in the log."
    )
    redis_durable: bool = setting(
        False,
        "Redis keeps through any crash what it has acknowledged (`appendfsync always`).",
        why="Else, when Redis and all nodes went down together, nobody can tell whether it lost its last second: "
        "channels begin a new epoch, and clients are told of a gap.",
    )
    redis_lag_seconds: PositiveShortSeconds = setting(
        5.0,
        "How far behind Redis a node may be and still be ready.",
        why="Farther behind it is no place for newcomers: `/ready` says 503 until it has caught up. A burst that takes "
        "two seconds to read is no reason to send them elsewhere, where it is read as well.",
    )
    sqlite_synchronous: Literal["OFF", "NORMAL", "FULL"] = setting(
        "NORMAL",
        "When SQLite waits for the disk.",
        why="All three survive the death of the process. Only FULL keeps every acknowledged event through a power "
        "cut; NORMAL may lose the last ones, OFF may lose the file.",
    )
    ring_events: PositiveEvents = setting(10_000, "Most events of a channel in memory.")
    ring_bytes: PositiveBytes = setting(64 * MIB, "Most bytes of a channel's events in memory.")
    ring_seconds: Seconds = setting(86_400.0, "Longest time an event stays in memory.", zero="no limit by age")
    retain_events: Events = setting(1_000_000, "Most events of a channel in the relay.", zero="no limit by count")
    retain_bytes: Bytes = setting(1 * GIB, "Most bytes of a channel's events in the relay.", zero="no limit by size")
    retain_seconds: Seconds = setting(86_400.0, "Longest time an event stays in the relay.", zero="no limit by age")
    unknown_cursor: Literal["all", "none"] = setting(
        "all",
        "What follows the `gap` when a client's cursor is not known: `all` that is retained, or `none` of it (live "
        "events only).",
    )
    idempotency_seconds: PositiveSeconds = setting(
        120.0, "How long a publisher's `Idempotency-Key` is remembered.", why="Longer than a publisher tries again."
    )
    idempotency_keys: PositiveCount = setting(
        100_000, "Most keys that are remembered; the oldest go first.", why="Bounds their memory."
    )

    @field_validator("relay")
    @classmethod
    def _check_relay(cls, value: str) -> str:
        scheme, _, path = value.partition(":")
        if value == "memory:" or (scheme == "sqlite" and path.strip()):
            return value
        if "@" in value:
            raise ValueError("must not hold a password, since it is shown: set redis_username and redis_password")
        if not _REDIS_URL.fullmatch(value):
            raise ValueError("must be memory:, sqlite:PATH or redis://HOST:PORT/DATABASE")
        return value

    @field_validator("redis_prefix")
    @classmethod
    def _check_prefix(cls, value: str) -> str:
        if not _PREFIX.fullmatch(value):
            raise ValueError("must be 1 to 64 letters, digits, '-', '_' or '.'")
        return value
