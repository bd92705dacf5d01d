"""Which Redis: that of the relay, where nodes register their streams, and that in which services publish updates.

Owns how the settings name them. Pure.
"""

from __future__ import annotations

from config.settings import Settings
from server.relay.redis_client import Target


def relay_redis(settings: Settings) -> Target | None:
    """The relay's, if it is one."""
    return _target(settings, settings.relay)


def updates_redis(settings: Settings) -> Target | None:
    """Where `job:ID:updates` are published, if anywhere."""
    return _target(settings, settings.relay if settings.jobs_redis == "relay" else settings.jobs_redis)


def _target(settings: Settings, url: str) -> Target | None:
    if not url.startswith(("redis", "unix:")):
        return None
    secret = settings.redis_password
    return Target(url, settings.redis_username, secret.get_secret_value() if secret else None)
