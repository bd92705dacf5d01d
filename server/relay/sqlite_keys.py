"""Idempotency keys in the database, so that they outlive the process as the events do.

Owns the table `keys`. Every statement runs inside the writer's transaction: a publish and its key are written together
or not at all.

Keys are stored as a hash: publishers' subjects are nobody's business, and a fixed size bounds the table. Rows are in
order of age by `id`.
Cost: two statements per publish with a key; one more per 16th of the bound.
"""

from __future__ import annotations

import sqlite3
from hashlib import blake2b

import ujson

from server.relay.idempotency import Receipt
from server.relay.protocol import Key, KeyConflict
from server.relay.sqlite_log import StoredLog

_STEP = 256


class StoredKeys:
    """The keys of all channels. `seconds` is how long one counts, `max_weight` bounds those of a channel."""

    def __init__(self, connection: sqlite3.Connection, seconds: float, max_weight: int) -> None:
        self._connection = connection
        self._window_us = int(seconds * 1e6)
        self._max_weight = max_weight

    def find(self, log: StoredLog, key: Key, now_us: int) -> Receipt | None:
        """The receipt of the publish that used this key, or None. Raises KeyConflict if that was another request."""
        query = "SELECT digest, first, events, own_ids, weight, expires_us, id FROM keys WHERE channel = ? AND name = ?"
        row = self._connection.execute(query, (log.id, _name(key))).fetchone()
        if row is None:
            return None
        digest, first, events, own_ids, weight, expires_us, number = row
        if expires_us <= now_us:
            self._connection.execute("DELETE FROM keys WHERE id = ?", (number,))
            log.keys_weight -= weight
            return None
        if digest != key.digest:
            raise KeyConflict
        return Receipt(first, events, own_ids)

    def put(self, log: StoredLog, key: Key, receipt: Receipt, now_us: int) -> None:
        """Remember a publish under a key that `find` did not find; forget the oldest if the bound is passed."""
        row = (log.id, _name(key), key.digest, *receipt, receipt.weight, now_us + self._window_us)
        columns = "channel, name, digest, first, events, own_ids, weight, expires_us"
        self._connection.execute(f"INSERT INTO keys ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608
        log.keys_weight += receipt.weight
        if log.keys_weight > self._max_weight:
            while self._forget(log, self._max_weight - self._max_weight // 16, now_us):
                pass

    def has_expired(self, log: StoredLog, now_us: int) -> bool:
        """True if there is something for `expire` to do."""
        if not log.keys_weight:
            return False
        query = "SELECT expires_us FROM keys WHERE channel = ? ORDER BY id LIMIT 1"
        row = self._connection.execute(query, (log.id,)).fetchone()
        return row is not None and row[0] <= now_us

    def expire(self, log: StoredLog, now_us: int) -> None:
        """Forget some of the keys that are over age."""
        self._forget(log, self._max_weight, now_us)

    def load(self, log: StoredLog) -> None:
        """Count what is in the table."""
        row = self._connection.execute("SELECT total(weight) FROM keys WHERE channel = ?", (log.id,)).fetchone()
        log.keys_weight = int(row[0])

    def _forget(self, log: StoredLog, max_weight: int, now_us: int) -> bool:
        """Forget up to 256 of the oldest, those over age or until the weight fits; True if there may be more."""
        some = "SELECT id, weight, expires_us FROM keys WHERE channel = ? ORDER BY id LIMIT ?"
        query = f"SELECT json_group_array(json_array(id, weight, expires_us)) FROM ({some})"  # noqa: S608
        oldest: list[list[int]] = ujson.loads(self._connection.execute(query, (log.id, _STEP)).fetchone()[0])
        last, weight = 0, log.keys_weight
        for number, its_weight, expires_us in oldest:
            if expires_us > now_us and weight <= max_weight:
                break
            last, weight = number, weight - its_weight
        if not last:
            return False
        self._connection.execute("DELETE FROM keys WHERE channel = ? AND id <= ?", (log.id, last))
        log.keys_weight = weight
        return last == oldest[-1][0] and len(oldest) == _STEP


def _name(key: Key) -> bytes:
    # surrogatepass: a scope comes out of a token and may hold what UTF-8 does not.
    digest = blake2b(key.scope.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return blake2b(digest + key.key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
