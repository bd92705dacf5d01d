"""The response cache that the settings describe."""

from __future__ import annotations

import time

from config.settings import Settings
from handlers.cache_store import ProcessStore, Store
from handlers.cache_trial import Strategy, Trial
from handlers.response_cache import ResponseCache


def make_response_cache(settings: Settings) -> ResponseCache:
    """The cache that the settings describe. Construct on a running loop."""
    trial = Trial(
        frozenset(settings.response_cache_trial_routes),
        b=Strategy(
            "B",
            settings.response_cache_trial_keep_factor,
            settings.response_cache_trial_stale_seconds,
            settings.response_cache_trial_drop,
        ),
    )
    return ResponseCache(_make_store(settings), jitter=settings.response_cache_jitter, trial=trial)


def _make_store(settings: Settings) -> Store | None:
    most_bytes, most_entries = settings.response_cache_bytes, settings.response_cache_entries
    if settings.response_cache == "off":
        return None
    if settings.response_cache == "process":
        return ProcessStore(most_bytes, most_entries, time.monotonic)
    from handlers.cache_redis import DROP_SECONDS, RedisStore  # a node without Redis needs none of it
    from server.relay.redis_client import Target, connect

    own, secret = settings.response_cache_redis, settings.redis_password
    target = Target(
        settings.relay if own == "relay" else own,
        settings.redis_username,
        secret.get_secret_value() if secret else None,
    )
    client = connect(target, answer_seconds=DROP_SECONDS)
    return RedisStore(client, settings.redis_prefix, max_bytes=most_bytes, max_entries=most_entries)
