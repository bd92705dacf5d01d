"""Reading from the streams in Redis, for replay and for what memory begins with.

Owns the pages of a log, the look-up of publishers' own ids, and the count of entries that are not ours. Must never know
who asks, nor follow anything.

Invariant: what is read is in the log's order, over all shards that are asked for, and complete up to the position that
comes with it. Cost: one round trip a page.
"""

from __future__ import annotations

from collections.abc import Sequence

from server.logs import get_logger
from server.relay.protocol import Entry, RelayUnavailable, Stretch
from server.relay.redis_client import Client, ask, ask_script
from server.relay.redis_entries import DamagedEntry, Raw, entry_of, position_of, raw_of
from server.relay.redis_log import RedisLog, Shard
from server.shards import Shards

RECENT_A_TIME = 1_000
MAX_FOUND = 100

logger = get_logger("relay")


class RedisReads:
    """See the module's head. Everything may raise RelayUnavailable."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.damaged = 0

    async def newest(self, log: RedisLog, shard: Shard, high: int, count: int) -> list[Entry]:
        """The last `count` entries up to `high`, oldest first. In parts: Redis does nothing else meanwhile."""
        found: list[Raw] = []
        end = f"{high}"
        while len(found) < count:
            wanted = min(RECENT_A_TIME, count - len(found))
            some = await ask(self._client.xrevrange(shard.stream, end, "-", wanted))
            found += some
            if len(some) < wanted:
                break
            end = f"({some[-1][0].decode()}"
        return self._entries(log, shard, found[::-1])

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
        epoch, *floors, found = await ask_script(self._client, "read", (log.facts, *log.keys_of(chosen)), after, limit)
        if epoch.decode() != log.epoch:
            raise RelayUnavailable("the log is turning to a new epoch")
        for shard, floor in zip(chosen, floors, strict=True):
            shard.floor = max(shard.floor, int(floor))
        if len(found) == limit:
            upto = min(upto, position_of(found[-1][1]))
        entries = [entry for which, *flat in found for entry in self._entries(log, chosen[which - 1], [raw_of(flat)])]
        return Stretch([entry for entry in entries if entry.position <= upto], max(after, upto))

    async def find(self, log: RedisLog, event_id: str) -> Sequence[Entry]:
        """Entries with a publisher's own id, oldest first."""
        places = await ask(self._client.hget(log.own_ids, event_id))
        found: dict[int, Entry] = {}
        for place in (places or b"").split()[:MAX_FOUND]:
            position, _, number = place.partition(b":")
            shard = log.shards[int(number or 0)]
            if int(position) not in found:
                raws = await ask(self._client.xrange(shard.stream, position, position))
                found |= {entry.position: entry for entry in self._entries(log, shard, raws)}
        return [entry for entry in found.values() if entry.event.id == event_id]
