"""History: pages of a channel's log that memory no longer holds, read from the relay once for all who want them.

Owns the pages, who waits for which, and how many are read and kept at a time. Must never know of sockets or of what a
reader selects.

Invariants: a page stays until every reader that waited for it has taken it (else more readers than pages would read for
ever); about `HISTORY_PAGES` are kept, whatever the number of readers; nothing is read for readers that have left; no
page is given out in another epoch than it was asked for in.
Cost: one task and one read per page, not per reader.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import NamedTuple

from server.logs import get_logger
from server.reader import Reader
from server.relay.protocol import RelayUnavailable, Stretch
from server.shards import ALL, Shards

HISTORY_ENTRIES = 500  # read from the relay at a time
HISTORY_PAGES = 32
READS_AT_A_TIME = 4

ReadHistory = Callable[[str, int, int, Shards], Awaitable[Stretch]]


class Place(NamedTuple):
    """Where a page begins: behind a position of a channel, in these shards, in the log of this epoch."""

    channel: str
    epoch: str
    position: int
    shards: Shards = ALL


_position_of = attrgetter("position")

log = get_logger("history")


class History:
    """See the module's head. `wake` gets each reader whose page has come, `fail` each whose page could not be read."""

    def __init__(self, read: ReadHistory, wake: Callable[[Reader], None], fail: Callable[[Reader], None]) -> None:
        self._read = read
        self._wake = wake
        self._fail = fail
        self._pages: OrderedDict[Place, Stretch] = OrderedDict()
        self._woken: dict[Place, set[Reader]] = {}
        self._waiting: dict[Place, list[Reader]] = {}
        self._queue: deque[Place] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pages(self) -> int:
        """How many pages are kept now."""
        return len(self._pages)

    def page(self, reader: Reader, place: Place) -> Stretch | None:
        """The entries from there on; None if they must be read first: then the reader is woken."""
        entries = self._pages.get(place)
        if entries is not None:
            self._pages.move_to_end(place)
            self.taken(reader, place)
            return entries
        waiting = self._waiting.get(place)
        if waiting is not None:
            waiting.append(reader)
            return None
        self._waiting[place] = [reader]
        self._queue.append(place)
        self._go_on()
        return None

    def keep_rest(self, place: Place, entries: Stretch, position: int) -> None:
        """Keep what comes after `position` of the page at `place`, which a reader takes in several steps: it is not
        read again."""
        rest = entries[bisect_right(entries, position, key=_position_of) :]
        if rest:
            self._pages[place._replace(position=position)] = Stretch(rest, entries.upto)
            self._make_room()

    def forget(self) -> None:
        """Called now and then: drop what nobody waits for, and what leads nowhere: it would for ever."""
        for place in [place for place, entries in self._pages.items() if entries.upto <= place.position]:
            del self._pages[place]
        for place, readers in list(self._woken.items()):
            readers.difference_update(
                [one for one in readers if one.replay is None or one.replay.position != place.position]
            )
            if not readers:
                del self._woken[place]
        if not self._waiting and not self._woken:
            self._pages.clear()
        self._go_on()

    def taken(self, reader: Reader, place: Place) -> None:
        """The reader, if it was woken for this page, does not need it any more."""
        readers = self._woken.get(place)
        if readers is not None:
            readers.discard(reader)
            if not readers:
                del self._woken[place]
                self._go_on()

    def left(self, reader: Reader) -> None:
        """The reader has gone: what it was woken for is not kept for it."""
        for place in [place for place, readers in self._woken.items() if reader in readers]:
            self.taken(reader, place)

    def _go_on(self) -> None:
        while (
            self._queue and len(self._tasks) < READS_AT_A_TIME and len(self._woken) + len(self._tasks) < HISTORY_PAGES
        ):
            place = self._queue.popleft()
            if all(reader.fd < 0 for reader in self._waiting[place]):  # who comes and leaves holds up nobody else
                del self._waiting[place]
                continue
            task = asyncio.get_running_loop().create_task(self._fetch(place))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._go_on()

    async def _fetch(self, place: Place) -> None:
        try:
            entries = await self._read(place.channel, place.position, HISTORY_ENTRIES, place.shards)
        except Exception as error:
            reason = error.reason if isinstance(error, RelayUnavailable) else repr(error)
            log.warning("history_not_read", channel=place.channel, reason=reason)
            for reader in self._waiting.pop(place):
                self._fail(reader)
            return
        self._pages[place] = entries
        readers = [reader for reader in self._waiting.pop(place) if reader.fd >= 0]
        if readers:
            self._woken[place] = set(readers)
        self._make_room()
        for reader in readers:
            self._wake(reader)

    def _make_room(self) -> None:
        for place in [place for place in self._pages if place not in self._woken]:
            if len(self._pages) <= HISTORY_PAGES:
                return
            del self._pages[place]
