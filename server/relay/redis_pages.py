"""Pages: how much is read from Redis at a time, and handed on at a time.

Owns the bounds of a read by count and bytes, what scripts give as a page, and its cutting into slices. Must never know
of connections.

A time limit is for the whole of an answer, so one that is too large for the link never comes, however often it is asked
for; and what has come is in memory twice. An entry may be of a megabyte (`max_frame_bytes`), so a count alone bounds
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from server.relay.redis_entries import Raw, raw_of

PAGE_BYTES = 1 << 20
LEAST_PAGE_BYTES = 1 << 16
QUICK_PAGES = 16
SMALL_BYTES = 2_048  # as in common.lua: of entries that are not large, a page holds as many as it may by count
# What is delivered without giving the loop back: a few milliseconds.
SLICE_ENTRIES = 100
SLICE_BYTES = 1 << 18


class PageSize:
    """How large the next page may be: half as large after one that did not come (it was too much for the link, or for
    Redis's `client-output-buffer-limit`), twice after `QUICK_PAGES` that came in a quarter of their time.
    `limit_seconds`: what an answer has."""

    def __init__(self, limit_seconds: float) -> None:
        self._quick_seconds = limit_seconds / 4
        self._quick = 0
        self.bytes = PAGE_BYTES

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Around the wait for a page."""
        began = time.monotonic()
        try:
            yield
        except Exception:
            self.bytes, self._quick = max(LEAST_PAGE_BYTES, self.bytes // 2), 0
            raise
        self._quick = self._quick + 1 if time.monotonic() - began < self._quick_seconds else 0
        if self._quick >= QUICK_PAGES:
            self.bytes, self._quick = min(PAGE_BYTES, self.bytes * 2), 0


class Found(NamedTuple):
    """A page as read.lua and newest.lua give it. `more`: it was ended by its bounds. `floors`: of each shard. With each
    entry comes the number of its shard among those that were read, from 1."""

    epoch: str
    more: bool
    floors: list[int]
    entries: list[tuple[int, Raw]]


def found_of(answer: Sequence[Any]) -> Found:
    """What a script has found."""
    epoch, more, *floors, entries = answer
    return Found(
        epoch.decode(), bool(more), list(map(int, floors)), [(which, raw_of(flat)) for which, *flat in entries]
    )


def slices(raws: Sequence[Raw]) -> Iterator[Sequence[Raw]]:
    """Entries in parts that take the loop a short time each: at most `SLICE_ENTRIES`, and `SLICE_BYTES` of payload or
    one."""
    begin = size = 0
    for number, (_, fields) in enumerate(raws):
        payload = len(fields.get(b"e", b""))
        if number > begin and (number - begin == SLICE_ENTRIES or size + payload > SLICE_BYTES):
            yield raws[begin:number]
            begin, size = number, 0
        size += payload
    if begin < len(raws):
        yield raws[begin:]
