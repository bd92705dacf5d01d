"""Settings of the cache of REST answers. Owns their form; what two of them may be together is in config/checks.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator
from pydantic_settings import NoDecode

from config.fields import (
    _NUMBER,
    COMMA_SEPARATED,
    MIB,
    Group,
    PositiveBytes,
    PositiveCount,
    Seconds,
    Share,
    Unit,
    setting,
)
from config.streams import _REDIS_URL

RELAY = "relay"

Factor = Annotated[float, _NUMBER, Field(gt=0, le=1000), Unit("times")]


def _check_routes(values: list[str]) -> list[str]:
    for value in values:
        if not value.startswith("/"):
            raise ValueError(f"{value!r} is no path: write it as the API's description does, /api/things/{{id}}")
    return list(dict.fromkeys(values))


Routes = Annotated[list[str], NoDecode, COMMA_SEPARATED, AfterValidator(_check_routes)]


class Caching(Group):
    """Kept answers of the applications' REST endpoints (docs/caching.md). How long is each endpoint's to say."""

    response_cache: Literal["process", "redis", "off"] = setting(
        "process",
        "Where answers are kept: by each `process` for itself, in `redis` for all nodes, or not at all (`off`).",
        why="In the process a hit is fastest; in Redis an answer is computed once for all nodes.",
    )
    response_cache_bytes: PositiveBytes = setting(
        64 * MIB,
        "Most bytes that kept answers may take, their tables counted.",
        why="In the process those go first that were not asked for longest, in Redis those that would be over first.",
    )
    response_cache_entries: PositiveCount = setting(100_000, "Most answers that are kept.")
    response_cache_redis: str = setting(
        RELAY,
        "Which Redis, if `response_cache` is `redis`: the `relay`'s, or a URL as there. User, password and prefix are "
        "the same.",
        why="A Redis of its own can't take memory or time from the logs. It must not evict keys by itself "
        "(`maxmemory-policy noeviction`).",
    )
    response_cache_jitter: Share = setting(
        0.1,
        "Share of its time by which an answer is kept longer or shorter, at random.",
        zero="exactly as long as declared",
        why="Answers that were computed in one moment would all be over in one moment.",
    )
    response_cache_trial_routes: Routes = setting(
        [],
        "Routes on which two strategies are compared: half of the questions as declared (A), half by the settings "
        "below (B).",
    )
    response_cache_trial_keep_factor: Factor = setting(1.0, "B: how many times as long an answer is kept.")
    response_cache_trial_stale_seconds: Seconds = setting(
        0.0,
        "B: how long an answer that is over is still given, while it is made anew.",
        zero="not at all",
    )
    response_cache_trial_drop: bool = setting(
        False, "B: a change drops answers that would otherwise live out their time."
    )

    @field_validator("response_cache_redis")
    @classmethod
    def _check_redis(cls, value: str) -> str:
        if value == RELAY:
            return value
        if "@" in value:
            raise ValueError("must not hold a password, since it is shown: set redis_username and redis_password")
        if not _REDIS_URL.fullmatch(value):
            raise ValueError("must be relay or redis://HOST:PORT/DATABASE")
        return value
