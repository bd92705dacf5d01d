"""Opening: the one place where a request becomes a reader, whichever way it came in.

Owns the response head, the first block, where the reader starts, and when it will end. The front door and the Tornado
handler both end here. Must never parse a request.

Invariant: the decision where to start and the joining of the live feed are one synchronous step.
Cost: one write, one epoll registration, and the reader's record: about 20 microseconds, most of it the kernel's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import ujson

from server.admission import Admission
from server.broadcaster import Broadcaster
from server.channel import Channel, Start
from server.endings import AUTH_EXPIRED, MAX_AGE
from server.frames import Encoding, cursor_block, gap_frame
from server.heads import http_date
from server.hub import Hub
from server.ids import EARLIEST, format_id
from server.lifetimes import Lifetimes
from server.reader import REPLAYING, Reader
from server.replay import Replay, Replayer
from server.selection import Selection

SECURITY_HEADERS = "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
VARY = "Origin, Authorization, Cookie"
EXPOSED = "Mercure-Last-Event-ID, Last-Event-ID, Link"


@dataclass(slots=True)
class Subscription:
    """What an admitted request asks for. `cursor` None: none given ("" is one that was given empty). `expires`: unix
    seconds or None.

    `origin` is the allowed origin to name in the answer, or None. `greeting` makes the blocks that a stream begins with
    whose client has nothing yet: the present state of what it watches. They carry no ids. `look_again` is called before
    the opening of a stream that had to wait for the relay, and raises if there is no room for it any more: many may
    have been admitted meanwhile that are not open yet.
    """

    channel: Channel
    selection: Selection
    cursor: str | None
    last: int
    subject: str
    expires: float | None
    origin: str | None
    remote: str
    encoding: Encoding
    marks: tuple[str, ...] = ()
    greeting: Callable[[], bytes] | None = None
    look_again: Callable[[], None] | None = None


class Opener:
    """See the module's head. `retry_ms` is the range of the jittered reconnection delay."""

    def __init__(
        self,
        hub: Hub,
        broadcaster: Broadcaster,
        replayer: Replayer,
        lifetimes: Lifetimes,
        admission: Admission,
        *,
        retry_ms: tuple[int, int],
        max_age_jitter: float,
    ) -> None:
        self._hub = hub
        self._broadcaster = broadcaster
        self._replayer = replayer
        self._lifetimes = lifetimes
        self._admission = admission
        self._retry_low, self._retry_range = retry_ms[0], retry_ms[1] - retry_ms[0] + 1
        self._max_age_jitter = max_age_jitter
        self.opened = 0
        self.resumed = 0
        self.incomplete = dict.fromkeys(("history", "epoch", "future", "unknown"), 0)
        self._date_second = 0
        self._head = ""
        self._head_plain = ""

    def locate(self, wanted: Subscription) -> Start | None:
        """Where the stream starts; None if `find` has to ask the relay."""
        return self._hub.locate(wanted.channel, wanted.cursor, wanted.last, wanted.selection)

    async def find(self, wanted: Subscription) -> Start:
        """Where the stream starts, by asking the relay. Raises RelayUnavailable."""
        return await self._hub.find(wanted.channel, wanted.cursor, wanted.last, wanted.selection)

    def open(self, fd: int, wanted: Subscription, start: Start) -> None:
        """Write head and first block into the non-blocking socket `fd`, which is the reader's from now on: whatever
        goes wrong here, it is closed here."""
        feed = wanted.channel.enter(wanted.selection, wanted.encoding)
        reader = Reader(fd, feed, *self._admission.enter(wanted.remote, wanted.subject))
        reader.marks = wanted.marks
        self._set_deadline(reader, wanted)
        try:
            self._broadcaster.add(reader)
            self._begin(reader, wanted, start)
        except BaseException:
            self._broadcaster.close(reader)
            raise

    def _begin(self, reader: Reader, wanted: Subscription, start: Start) -> None:
        channel, encoding, feed = wanted.channel, wanted.encoding, reader.feed
        self._lifetimes.add(reader)
        self.opened += 1
        mark = self._hub.relay.mark(channel.name)
        position = start.position
        if start.found:
            self.resumed += 1
        elif start.gap:
            self.incomplete[start.gap] += 1
        first = self._first_block(channel, wanted, start, mark)
        if wanted.greeting is not None and not start.found:
            first += wanted.greeting()
        if start.found and position is not None and position >= channel.log.head:
            # Nothing to replay: live at once. The cursor moves on as after any replay, whether or not events that
            # this reader can't see were in between.
            first += cursor_block(format_id(channel.epoch, max(mark, position)))
            position = None
        head = self.head(wanted, start)
        if position is None:
            if feed in channel.holes:  # that is for those who are here already
                self._broadcaster.publish([channel.tell(feed)])
            reader.cursor = feed.ring.head
        else:
            reader.cursor = REPLAYING
            gap = (start.gap, self._declared_from(wanted)) if start.gap else None
            reader.replay = Replay(position, position if start.found else 0, gap, start.last, start.missed)
        if self._broadcaster.write(reader, head + encoding.wrap(first), mark):
            if reader.replay is None:
                self._broadcaster.go_live(reader)
            else:
                self._replayer.resume(reader)

    def _set_deadline(self, reader: Reader, wanted: Subscription) -> None:
        now = reader.opened = time.monotonic()
        max_age = wanted.channel.policy.max_age_seconds
        if max_age:
            reader.deadline = now + max_age * (1.0 - self._max_age_jitter * random.random())
            reader.ending = MAX_AGE
        if wanted.expires is not None:
            expiry = now + max(0.0, wanted.expires - time.time())
            if not reader.deadline or expiry < reader.deadline:
                reader.deadline, reader.ending = expiry, AUTH_EXPIRED

    def _first_block(self, channel: Channel, wanted: Subscription, start: Start, mark: int) -> bytes:
        """`retry`, `hello` and, for a stream that goes live with a gap, the gap."""
        position = start.position
        if start.found and position is not None:
            cursor = format_id(channel.epoch, position)
        elif position is None and start.gap is None:
            cursor = format_id(channel.epoch, mark)
        else:
            cursor = ""
        retry = self._retry_low + int(random.random() * self._retry_range)
        policy = channel.policy
        id_line, quoted = (f"id: {cursor}\n", f'"{cursor}"') if cursor else ("", "null")
        block = (
            f"retry: {retry}\n{id_line}event: {policy.hello_event}\n"
            f'data: {{"client_id":"{random.getrandbits(64):016x}","channel":"{channel.name}",'
            f'"epoch":"{channel.epoch}",'
            f'"cursor":{quoted},"complete":{"false" if start.gap else "true"},'
            f'"heartbeat_seconds":{policy.heartbeat_seconds:g}}}\n\n'
        ).encode()
        if start.gap and position is None:
            now = format_id(channel.epoch, mark)
            block += gap_frame(start.gap, self._declared_from(wanted), now) + cursor_block(now)
        return block

    @staticmethod
    def _declared_from(wanted: Subscription) -> str | None:
        """The client's cursor as it may stand inside JSON in a data line, or None if it is not fit for that."""
        cursor = wanted.cursor
        return (
            cursor
            if cursor and len(cursor) <= 64 and cursor.isascii() and ujson.dumps(cursor) == f'"{cursor}"'
            else None
        )

    def head(self, wanted: Subscription, start: Start) -> bytes:
        """The response head of a stream."""
        second = int(time.time())
        if second != self._date_second:
            self._date_second = second
            common = (
                "200 OK\r\nContent-Type: text/event-stream\r\n"
                "Cache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\n"
                f"Connection: close\r\nVary: {VARY}\r\n{SECURITY_HEADERS}Date: {http_date()}\r\n"
            )
            self._head = f"HTTP/1.1 {common}Transfer-Encoding: chunked\r\n"
            self._head_plain = f"HTTP/1.0 {common}"
        text = self._head if wanted.encoding is Encoding.CHUNKED else self._head_plain
        if wanted.cursor is not None:
            answer = wanted.cursor if start.found else EARLIEST
            text = f"{text}Mercure-Last-Event-ID: {answer}\r\nLast-Event-ID: {answer}\r\n"
        if wanted.origin is not None:
            text = (
                f"{text}Access-Control-Allow-Origin: {wanted.origin}\r\nAccess-Control-Allow-Credentials: true\r\n"
                f"Access-Control-Expose-Headers: {EXPOSED}\r\n"
            )
        return f"{text}\r\n".encode()
