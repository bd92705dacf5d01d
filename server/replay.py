"""Replay: readers that are still behind the live stream, brought up to it in slices.

Owns the readers between admission and their feed's ring, the pages they share, and the joint of replay and live. Must
never know how bytes reach a socket (it asks the broadcaster) or where old entries come from (it asks `history`).

Invariants: a reader joins its feed in the same step in which a look at the log finds nothing more, so no event falls
between; a declared gap is written before the first event after the hole; the positions that are named to a reader are
those of what it may read, marks and the present, never that of a floor or of what was looked at; a page that leads
nowhere is no reason to look again at once; what a replaying reader costs is one `Replay`, whatever the length of the
replay, and while its socket takes nothing one page, which others at its position share.
Cost: a page is scanned and joined once per feed and position, and shared by all who ask for it: 5,000 clients that
return with one cursor cost one scan. Every slice gives the loop back, and a look at the log ends after `STEP_SECONDS`
whatever the selection costs; readers that used up their time let the others go first.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from server.endings import UNAVAILABLE, Ending
from server.feed import Feed
from server.frames import cursor_block, gap_frame
from server.history import History, Place, ReadHistory
from server.ids import format_id
from server.reader import Reader
from server.relay.positions import microseconds, present_behind
from server.relay.protocol import Entry
from server.shards import Shards

SCAN_ENTRIES = 2_000  # the most that are looked at in one step
STEP_SECONDS = 0.001  # the longest look at the log in one step; the clock is asked after each entry (0.05 us)
# About half of what a socket takes by default (`send_buffer_bytes`). The page that a socket does not take is held: with
# `span_bytes`, readers that come back each with its own cursor and read slowly would hold a quarter of a megabyte each.
PAGE_BYTES = 1 << 16
BUILT_PAGES = 64


FloorOf = Callable[[str, Shards], int]


class Page(NamedTuple):
    """Selected frames joined and wrapped: `first` is the position before the first of them, `last` that of the last,
    `next` where to go on, `full` if more may follow."""

    data: bytes
    first: int
    last: int
    next: int
    events: int
    full: bool


class Replay:
    """What a replaying reader needs: the position that it has, the last one that its client knows of (`told`), a gap
    still to be declared as (reason, from), how many selected entries it has first to go back over, and up to where it
    has been declared, or will be, that some are missing."""

    __slots__ = ("back", "gap", "missed", "position", "told")

    def __init__(
        self, position: int, told: int, gap: tuple[str, str | None] | None, back: int = 0, missed: int = 0
    ) -> None:
        self.missed = missed
        self.position = position
        self.told = told
        self.gap = gap
        self.back = back


class Out(Protocol):
    """What replay needs of the broadcaster."""

    span_bytes: int

    def write(self, reader: Reader, data: bytes, position: int) -> bool:
        """True if all of it went into the socket; else the reader is stalled or closed."""

    def go_live(self, reader: Reader) -> None:
        """Make the reader a live one at its feed's head."""

    def publish(self, feeds: Iterable[Feed]) -> None:
        """Bring the live readers of these feeds to their heads, soon."""

    def wake(self) -> None:
        """Run a slice soon."""

    def close(self, reader: Reader, ending: Ending) -> None:
        """End the reader."""


class Replayer:
    """See the module's head. `mark` and `floor` are the relay's, by channel name."""

    def __init__(self, out: Out, history: ReadHistory, mark: Callable[[str], int], floor: FloorOf) -> None:
        self._out = out
        self._mark = mark
        self._floor = floor
        self._ready: deque[Reader] = deque()
        self._slow: deque[Reader] = deque()  # ready too, but their selections cost much
        self._stuck: list[Reader] = []  # what they were given leads nowhere
        self._built: OrderedDict[tuple[Feed, str, int], Page] = OrderedDict()
        self.history = History(history, self.resume, self._give_up)
        self.replayed = 0

    @property
    def busy(self) -> bool:
        """True if some reader can go on now."""
        return bool(self._ready or self._slow)

    def resume(self, reader: Reader) -> None:
        """The reader's socket takes bytes: go on with its replay."""
        self._ready.append(reader)
        self._out.wake()

    def forget(self) -> None:
        """Called now and then: drop the shared pages when nobody replays, and let those look again who got nowhere."""
        if not self.busy:
            self._built.clear()
        self.history.forget()
        stuck, self._stuck = self._stuck, []
        for reader in stuck:
            self.resume(reader)

    def run(self, deadline: float) -> None:
        """Serve readers in turn until `deadline` of time.monotonic() or until none can go on."""
        self._serve(self._slow, 0.0)  # one at least, or they might wait for ever
        if self._serve(self._ready, deadline) <= deadline:
            self._serve(self._slow, deadline)

    def _serve(self, queue: deque[Reader], deadline: float) -> float:
        """Serve readers of a queue, at least one, until `deadline`; the present."""
        now = time.monotonic()
        while queue:
            reader = queue.popleft()
            again = self._step(reader, now + STEP_SECONDS)
            began, now = now, time.monotonic()
            if again:
                (self._slow if now - began > STEP_SECONDS else self._ready).append(reader)
            if now > deadline:
                break
        return now

    def _step(self, reader: Reader, deadline: float) -> bool:
        """Write one page, or look for one until `deadline`; True if the reader can go on at once."""
        replay = reader.replay
        if replay is None or reader.stall is not None:  # it has left meanwhile, or a heartbeat is on its way to it
            self.history.left(reader)
            return False
        feed = reader.feed
        if replay.back:
            self._go_back(replay, feed, deadline)
            return True
        page = self._page(reader, replay, feed, deadline)
        if page is None:
            return False
        if not page.events and not page.full:
            self._join(reader, replay, feed)
            return False
        if not page.events:
            if page.next == replay.position:
                self._stuck.append(reader)
                return False
            replay.position = page.next
            return True
        if replay.gap is not None:  # written by itself: joined to the page it would make a copy for each reader
            replay.position = page.first
            if not self._out.write(reader, self._declare(replay, feed, page.first), page.first):
                return False
        replay.position = page.next
        replay.told = page.last
        self.replayed += page.events
        return self._out.write(reader, page.data, page.next)

    @staticmethod
    def _go_back(replay: Replay, feed: Feed, deadline: float) -> None:
        """Go back over what memory holds, newest first, until enough was selected or `deadline` comes."""
        wants = feed.selection.wants
        floor = feed.floor
        entries = feed.channel.log.before(replay.position, SCAN_ENTRIES)
        for entry in entries:
            if entry.position <= floor:
                break
            replay.back -= wants(entry.event)
            replay.position = entry.position - 1
            if not replay.back or time.monotonic() > deadline:
                return
        else:
            if len(entries) == SCAN_ENTRIES:
                return
        replay.back = 0
        replay.position = floor

    def _declare(self, replay: Replay, feed: Feed, to: int) -> bytes:
        """The gap. Of several shards one may lack what is after `to`, where others have something: then all up to the
        present may be missing. Where exactly it ends is the position of an event that may be anybody's."""
        assert replay.gap is not None
        reason, since = replay.gap
        replay.gap = None
        if to < replay.missed:
            to = present_behind(replay.missed, microseconds(time.time()))
        return feed.encoding.wrap(gap_frame(reason, since, format_id(feed.channel.epoch, to)))

    def _join(self, reader: Reader, replay: Replay, feed: Feed) -> None:
        if feed in feed.channel.holes:  # that is for those who are live: this one knows what it has
            self._out.publish([feed.channel.tell(feed)])
        mark = max(self._mark(feed.channel.name), replay.told)
        data = feed.encoding.wrap(cursor_block(format_id(feed.channel.epoch, mark)))
        if replay.gap is not None:
            data = self._declare(replay, feed, mark) + data
        reader.replay = None
        reader.cursor = feed.ring.head
        if self._out.write(reader, data, mark):
            self._out.go_live(reader)

    def _page(self, reader: Reader, replay: Replay, feed: Feed, deadline: float) -> Page | None:
        """The page after the replay's position; None if it has to come from the relay first."""
        position = replay.position
        channel = feed.channel
        page = self._built.get((feed, channel.epoch, position))
        if page is not None and (page.full or page.next == channel.log.head):
            self.history.taken(reader, Place(channel.name, channel.epoch, position, feed.shards))
            return page
        floor = self._floor(channel.name, feed.shards)
        if position < floor and floor > replay.missed:  # trimmed while we were on our way: it has to be declared
            if replay.gap is None:
                replay.gap = ("history", format_id(channel.epoch, replay.told) if replay.told else None)
            replay.missed = floor
        if (
            position < floor and channel.following.count == 1
        ):  # there is nothing below it; of several shards there may be
            position = replay.position = floor
        # Who has all up to the newest that was delivered gets the rest live: what has lost something may have its floor
        # beyond that.
        if position < feed.floor and position < channel.log.head:
            place = Place(channel.name, channel.epoch, position, feed.shards)
            entries = self.history.page(reader, place)
            if entries is None:
                return None
            page = self._build(feed, position, entries, deadline, more=True, beyond=entries.upto)
            self.history.keep_rest(place, entries, page.next)
            return page
        kept = channel.log.after(position, SCAN_ENTRIES)
        return self._build(feed, position, kept, deadline, more=len(kept) == SCAN_ENTRIES, beyond=position)

    def _build(
        self, feed: Feed, position: int, entries: list[Entry], deadline: float, *, more: bool, beyond: int
    ) -> Page:
        """`beyond`: how far it is known that behind these entries there are none."""
        wants = feed.selection.wants
        most_bytes = min(PAGE_BYTES, self._out.span_bytes)
        frames: list[bytes] = []
        size, first, last, selected = 0, position, position, position
        for entry in entries:
            if wants(entry.event):
                if not frames:
                    first = entry.position - 1
                elif size + len(entry.frame) > most_bytes:
                    more = True
                    break
                frames.append(entry.frame)
                selected = entry.position
                size += len(entry.frame)
            last = entry.position
            if time.monotonic() > deadline:
                more = True
                break
        if more and last == position:  # the relay has nothing between here and there
            last = max(position, min(feed.floor, beyond))
        page = Page(feed.encoding.wrap(b"".join(frames)) if frames else b"", first, selected, last, len(frames), more)
        if last > position or not more:  # else it is one of this moment
            if len(self._built) >= BUILT_PAGES:
                self._built.popitem(last=False)
            self._built[feed, feed.channel.epoch, position] = page
        return page

    def _give_up(self, reader: Reader) -> None:
        """The relay can't give the reader what it needs: it is ended, and comes back."""
        self._out.close(reader, UNAVAILABLE)
