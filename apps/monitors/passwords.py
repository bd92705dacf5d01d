"""Passwords: kept as scrypt hashes, made in threads of their own.

Owns the form of a hash, which says its cost, and that no more are computed at a time than there are threads, nor wait
than can be done in seconds. Must never know whose a password is.

Invariant: judging takes the same work whether there is such a user or not (but for those whose hash was made when
`rounds` was another).
Cost: 16 MB and `rounds` fiftieths of a second of a core each.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import unicodedata
from concurrent.futures import ThreadPoolExecutor

from handlers.answers import Refused
from server.endings import DRAINING, OVERLOADED

# As OWASP's cheat sheet on password storage has it for 16 MiB, with five rounds.
COST, BLOCK = 2**14, 8
MEMORY_BYTES = 64 << 20
THREADS = 2
MAX_WAITING = 20


class Passwords:
    """See the module's head."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="password")
        self._waiting = 0
        self._closed = False
        # What the password of a user who is not there is compared with.
        self._nobodys = _written(os.urandom(16), os.urandom(64), rounds)

    def close(self) -> None:
        """Wait for nothing any more; whoever still waits is refused."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def hashed(self, password: str) -> str:
        """The password as it is kept. Raises Refused if too many are being computed, as `holds` does."""
        salt = os.urandom(16)
        return _written(salt, await self._computed(password, salt, self._rounds), self._rounds)

    async def holds(self, password: str, kept: str | None) -> bool:
        """True if this is the password that was kept. None: there is no such user, which takes as long to find."""
        form, salt, digest = (kept or self._nobodys).split("$")
        found = await self._computed(password, base64.b64decode(salt), int(form.rpartition("-")[2]))
        return hmac.compare_digest(found, base64.b64decode(digest)) and kept is not None

    async def _computed(self, password: str, salt: bytes, rounds: int) -> bytes:
        if self._closed:
            raise Refused(DRAINING)
        if self._waiting >= MAX_WAITING:
            raise Refused(OVERLOADED, reason="too many passwords are being checked")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, _scrypt, password, salt, rounds)
        except asyncio.CancelledError:
            if self._closed:
                raise Refused(DRAINING) from None
            raise
        finally:
            self._waiting -= 1


def _scrypt(password: str, salt: bytes, rounds: int) -> bytes:
    # The same letters may come in two forms, by the keyboard.
    text = unicodedata.normalize("NFKC", password).encode()
    return hashlib.scrypt(text, salt=salt, n=COST, r=BLOCK, p=rounds, maxmem=MEMORY_BYTES)


def _written(salt: bytes, digest: bytes, rounds: int) -> str:
    parts = (base64.b64encode(part).decode() for part in (salt, digest))
    return "$".join([f"scrypt-{COST}-{BLOCK}-{rounds}", *parts])
