"""Reading from the streams in Redis, for replay and for what memory begins with.

Owns the pages of a log, the look-up of publishers' own ids, and the count of entries that are not ours. Must never know
who asks, nor follow anything.

Invariants: what is read is in the log's order, over all shards that are asked for, and complete up to the position that
comes with it. Each page is of one moment, and so are the epoch and the floors that come with it: what was dropped
between two of them is below the floor of the later one, and none is taken from another log. No page passes
`redis_pages.PAGE_BYTES` and `RECENT_A_PAGE` entries, or else it is one entry.
Cost: one round trip a page. In Redis a script takes 3 microseconds per entry of 200 bytes, and 60 for 30 KB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from server.logs import get_logger
from server.relay.protocol import Entry, RelayUnavailable, Stretch
from server.relay.redis_client import ANSWER_SECONDS, Client, ask, ask_script
from server.relay.redis_entries import DamagedEntry, Raw, entry_of, position_of
from server.relay.redis_log import RedisLog, Shard
from server.relay.redis_pages import Found, PageSize, found_of
from server.shards import Shards

RECENT_A_PAGE = 500
MAX_FOUND = 100
FOUND_BYTES = 16 << 20

logger = get_logger("relay")


class Newest(NamedTuple):
    """The newest entries of a shard. `is_cut`: there are older ones."""

    entries: list[Entry]
    is_cut: bool


class RedisReads:
    """See the module's head. Everything may raise RelayUnavailable."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._page = PageSize(ANSWER_SECONDS)
        self.damaged = 0

    async def newest(self, log: RedisLog, shard: Shard, high: int, count: int, most_bytes: int) -> Newest:
        """The last `count` entries up to `high`, oldest first, or fewer of about `most_bytes` (0: no bound)."""
        found: list[Entry] = []
        end, left, size, is_cut = f"{high}", count, 0, True
        while is_cut and left > 0 and (not most_bytes or size < most_bytes):
            keys = (log.facts, *log.keys_of([shard]))
            page = await self._page_of(log, "newest", keys, end, min(left, RECENT_A_PAGE))
            shard.floor = max(shard.floor, *page.floors)
            entries = self._entries(log, shard, [raw for _, raw in page.entries])
            found += entries
            size += sum([len(entry.frame) for entry in entries])
            is_cut = page.more
            left -= len(page.entries)
            if is_cut:
                end = f"({page.entries[-1][1][0].decode()}"
        return Newest(found[::-1], is_cut)

    async def _page_of(self, log: RedisLog, name: str, keys: Sequence[str], begin: int | str, most: int) -> Found:
        """A page of a log that is what this node takes it for."""
        with self._page.measured():
            found = found_of(await ask_script(self._client, name, keys, begin, most, self._page.bytes))
        if found.epoch != log.epoch:
            raise RelayUnavailable("the log is turning to a new epoch")
        return found

    def _entries(self, log: RedisLog, shard: Shard, raws: Sequence[Raw]) -> list[Entry]:
        """The entries that are ours. Behind one that is not, history is not complete."""
        entries = []
        for raw in raws:
            try:
                entries.append(entry_of(log.epoch, raw))
            except DamagedEntry as error:
                shard.floor = max(shard.floor, error.position)
                self.note_damage(log, error)
        return entries

    def note_damage(self, log: RedisLog, error: DamagedEntry) -> None:
        self.damaged += 1
        logger.error("entry_damaged", channel=log.name, position=error.position)

    async def read(self, log: RedisLog, after: int, limit: int, shards: Shards) -> Stretch:
        """Entries of these shards after a position, as far as they have been delivered here."""
        chosen = log.chosen(shards)
        upto = log.delivered  # what is delivered from now on may come into the log after Redis was asked
        page = await self._page_of(log, "read", (log.facts, *log.keys_of(chosen)), after, limit)
        for shard, floor in zip(chosen, page.floors, strict=True):
            shard.floor = max(shard.floor, floor)
        if page.more:
            upto = min(upto, position_of(page.entries[-1][1][0]))
        entries = [entry for which, raw in page.entries for entry in self._entries(log, chosen[which - 1], [raw])]
        return Stretch([entry for entry in entries if entry.position <= upto], max(after, upto))

    async def find(self, log: RedisLog, event_id: str) -> Sequence[Entry]:
        """Entries with a publisher's own id, oldest first, of about `FOUND_BYTES` at the most."""
        own = event_id.encode() + b"\0"
        of_it = self._client.zrangebylex(log.own_ids, b"[" + own, b"(" + own[:-1] + b"\1", 0, MAX_FOUND)
        found: dict[int, Entry] = {}
        size = 0
        for member in await ask(of_it):
            position, _, number = member[len(own) :].partition(b":")
            shard = log.shards[int(number or 0)]
            if int(position) not in found and size < FOUND_BYTES:
                raws = await ask(self._client.xrange(shard.stream, position + b"-0", position + b"-0"))
                entries = self._entries(log, shard, raws)
                found |= {entry.position: entry for entry in entries}
                size += sum([len(entry.frame) for entry in entries])
        return [entry for entry in found.values() if entry.event.id == event_id]
