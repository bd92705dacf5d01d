"""Checks of settings against each other.

Pure: what depends on the machine (file limits, free ports, readable keys) is checked at start by the server.
"""

from __future__ import annotations

from collections.abc import Iterator

from config.loopback import is_loopback
from config.settings import Settings

# RFC 7518, section 3.2: an HMAC key is at least as long as the hash.
_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
_NO_KEY = "without a key everybody may publish: set jwt_secret, jwt_public_key or jwks_url, or listen on 127.0.0.1"


def conflicts(settings: Settings) -> Iterator[tuple[str, str]]:
    """(setting, what is wrong) for each combination that must not be."""
    yield from _reach(settings)
    yield from _keys(settings)
    if settings.redis_replicas and "+cluster" in settings.relay:
        yield "redis_replicas", "cannot be waited for in a cluster: set min-replicas-to-write in Redis"
    has_redis = settings.relay.startswith(("redis", "unix"))
    if settings.response_cache == "redis" and settings.response_cache_redis == "relay" and not has_redis:
        yield "response_cache_redis", "the relay is no Redis: give the URL of one"
    if settings.retry_min_ms > settings.retry_max_ms:
        yield "retry_min_ms", f"must be at most retry_max_ms ({settings.retry_max_ms})"


def _reach(settings: Settings) -> Iterator[tuple[str, str]]:
    if settings.development and not is_loopback(settings.host):
        yield "host", f"{settings.host!r} can be reached from other machines, where {_NO_KEY}"


def _keys(settings: Settings) -> Iterator[tuple[str, str]]:
    symmetric = settings.jwt_algorithm in _SECRET_BYTES
    if settings.jwt_secret is not None:
        if settings.jwt_public_key is not None:
            yield "jwt_public_key", "cannot stand beside jwt_secret: there is one jwt_algorithm"
        yield from _secret(settings.jwt_secret.get_secret_value(), settings.jwt_algorithm, symmetric)
    elif settings.jwt_public_key is not None and symmetric:
        # The public key is public: as an HMAC secret it would let everybody sign.
        yield (
            "jwt_algorithm",
            f"{settings.jwt_algorithm} needs a jwt_secret; with jwt_public_key it is RS256, ES256 or EdDSA",
        )


def _secret(secret: str, algorithm: str, symmetric: bool) -> Iterator[tuple[str, str]]:
    if not symmetric:
        yield "jwt_algorithm", f"{algorithm} needs a jwt_public_key, not a jwt_secret"
    elif "-----BEGIN" in secret or secret.startswith("ssh-") or '"kty"' in secret:
        yield "jwt_secret", f"is a key file, which {algorithm} must not use as a secret; give it as jwt_public_key"
    elif len(secret.encode()) < _SECRET_BYTES[algorithm]:
        yield (
            "jwt_secret",
            f"must be at least {_SECRET_BYTES[algorithm]} bytes for {algorithm} (try: openssl rand -hex 32)",
        )
