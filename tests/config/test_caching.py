"""Settings of kept answers."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from config.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("response_cache", "disk"),
        ("response_cache_bytes", 0),
        ("response_cache_entries", 0),
        ("response_cache_jitter", 1),
        ("response_cache_redis", "memory:"),
        ("response_cache_redis", ""),
        ("response_cache_redis", "redis://user:secret@127.0.0.1"),
        ("response_cache_trial_routes", ["api/search"]),
        ("response_cache_trial_keep_factor", 0),
        ("response_cache_trial_keep_factor", True),
        ("response_cache_trial_stale_seconds", -1),
    ],
)
def test_what_cannot_be_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**{name: value})
    assert "secret" not in str(caught.value)


def test_routes_are_a_list_or_one_text() -> None:
    for value in (["/a", "/b/{id}"], "/a, /b/{id}, /a"):
        assert Settings(response_cache_trial_routes=value).response_cache_trial_routes == ["/a", "/b/{id}"]


@pytest.mark.parametrize("value", ["relay", "redis://127.0.0.1:6379/1", "unix:///run/redis.sock"])
def test_redis_is_the_relays_or_one_of_its_own(value: str) -> None:
    assert Settings(response_cache_redis=value).response_cache_redis == value
