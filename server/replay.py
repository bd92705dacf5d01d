"""Replay: readers that are still behind the live stream, brought up to it in slices.

Owns the readers between admission and their feed's ring, the pages they share, and the joint of replay and live. Must
never know how bytes reach a socket (it asks the broadcaster) or where old entries come from (it asks `history`).

Invariants: a reader joins its feed in the same step in which a look at the log finds nothing more, so no event falls
between; a declared gap is written before the first event after the hole; what a replaying reader costs is one `Replay`,
whatever the length of the replay. Cost: a page (at most `span_bytes`) is scanned and joined once per feed and position,
and shared by all who ask for it: 5,000 clients that return with one cursor cost one scan. Every slice gives the loop
back.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from server.endings import UNAVAILABLE, Ending
from server.feed import Feed
from server.frames import cursor_block, gap_frame
from server.history import History, ReadHistory
from server.ids import format_id
from server.reader import Reader
from server.relay.protocol import Entry

SCAN_ENTRIES = 2_000  # looked at in one step, so that a selection that matches little still yields the loop
BUILT_PAGES = 64


class Page(NamedTuple):
    """Selected frames joined and wrapped: `first` is the position before the first of them, `next` where to go on,
    `full` if more may follow."""

    data: bytes
    first: int
    next: int
    events: int
    full: bool


class Replay:
    """What a replaying reader needs: the position that it has, and a gap still to be declared as (reason, from)."""

    __slots__ = ("gap", "position")

    def __init__(self, position: int, gap: tuple[str, str | None] | None) -> None:
        self.position = position
        self.gap = gap


class Out(Protocol):
    """What replay needs of the broadcaster."""

    span_bytes: int

    def write(self, reader: Reader, data: bytes, position: int) -> bool:
        """True if all of it went into the socket; else the reader is stalled or closed."""

    def go_live(self, reader: Reader) -> None:
        """Make the reader a live one at its feed's head."""

    def wake(self) -> None:
        """Run a slice soon."""

    def close(self, reader: Reader, ending: Ending) -> None:
        """End the reader."""


class Replayer:
    """See the module's head. `mark` and `floor` are the relay's, by channel name."""

    def __init__(self, out: Out, history: ReadHistory, mark: Callable[[str], int], floor: Callable[[str], int]) -> None:
        self._out = out
        self._mark = mark
        self._floor = floor
        self._ready: deque[Reader] = deque()
        self._built: OrderedDict[tuple[Feed, int], Page] = OrderedDict()
        self.history = History(history, self.resume, self._give_up)
        self.replayed = 0

    @property
    def busy(self) -> bool:
        """True if some reader can go on now."""
        return bool(self._ready)

    def resume(self, reader: Reader) -> None:
        """The reader's socket takes bytes: go on with its replay."""
        self._ready.append(reader)
        self._out.wake()

    def forget(self) -> None:
        """Called now and then: drop the shared pages when nobody replays."""
        if not self._ready:
            self._built.clear()
        self.history.forget()

    def run(self, deadline: float) -> None:
        """Serve readers in turn until `deadline` of time.monotonic() or until none can go on."""
        ready = self._ready
        while ready:
            reader = ready.popleft()
            if reader.fd >= 0 and self._step(reader):
                ready.append(reader)
            if time.monotonic() > deadline:
                return

    def _step(self, reader: Reader) -> bool:
        """Write one page; True if the reader can go on at once."""
        replay = reader.replay
        assert replay is not None
        feed = reader.feed
        page = self._page(reader, replay, feed)
        if page is None:
            return False
        if not page.events and not page.full:
            self._join(reader, replay, feed)
            return False
        replay.position = page.next
        if not page.events:
            return True
        data = page.data
        if replay.gap is not None:
            data = self._declare(replay, feed, page.first) + data
        self.replayed += page.events
        return self._out.write(reader, data, page.next)

    def _declare(self, replay: Replay, feed: Feed, to: int) -> bytes:
        assert replay.gap is not None
        reason, since = replay.gap
        replay.gap = None
        return feed.encoding.wrap(gap_frame(reason, since, format_id(feed.channel.epoch, to)))

    def _join(self, reader: Reader, replay: Replay, feed: Feed) -> None:
        mark = self._mark(feed.channel.name)
        data = feed.encoding.wrap(cursor_block(format_id(feed.channel.epoch, mark)))
        if replay.gap is not None:
            data = self._declare(replay, feed, mark) + data
        reader.replay = None
        reader.cursor = feed.ring.head
        if self._out.write(reader, data, mark):
            self._out.go_live(reader)

    def _page(self, reader: Reader, replay: Replay, feed: Feed) -> Page | None:
        """The page after the replay's position; None if it has to come from the relay first."""
        position = replay.position
        channel = feed.channel
        page = self._built.get((feed, position))
        if page is not None and (page.full or page.next == channel.log.head):
            self.history.taken(reader, channel.name, position)
            return page
        floor = self._floor(channel.name)
        if position < floor:  # trimmed while we were on our way: the hole has to be declared
            if replay.gap is None:
                replay.gap = ("history", format_id(channel.epoch, position))
            position = replay.position = floor
        if position < channel.log.floor:
            entries = self.history.page(reader, channel.name, position)
            if entries is None:
                return None
            return self._build(feed, position, entries, more=True)
        entries = channel.log.after(position, SCAN_ENTRIES)
        return self._build(feed, position, entries, more=len(entries) == SCAN_ENTRIES)

    def _build(self, feed: Feed, position: int, entries: list[Entry], *, more: bool) -> Page:
        wants = feed.selection.wants
        frames: list[bytes] = []
        size, first, last = 0, position, position
        for entry in entries:
            if wants(entry.event):
                if not frames:
                    first = entry.position - 1
                elif size + len(entry.frame) > self._out.span_bytes:
                    more = True
                    break
                frames.append(entry.frame)
                size += len(entry.frame)
            last = entry.position
        if more and last == position:  # the relay has nothing between here and what memory holds
            last = feed.channel.log.floor
        page = Page(feed.encoding.wrap(b"".join(frames)) if frames else b"", first, last, len(frames), more)
        if len(self._built) >= BUILT_PAGES:
            self._built.popitem(last=False)
        self._built[feed, position] = page
        return page

    def _give_up(self, reader: Reader) -> None:
        """The relay can't give the reader what it needs: it is ended, and comes back."""
        self._out.close(reader, UNAVAILABLE)
