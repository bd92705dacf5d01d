"""The front door: accepts connections, answers what is hot by itself, and hands everything else to the HTTP server.

Owns sockets from accept until they are a reader's, the HTTP server's, or closed. It reads the head of a request and
decides: a streaming GET (the socket becomes a reader's), and a small, complete publish POST (the socket stays for the
next one) are answered here. All else goes to `hand_over`, with the bytes that were read, for good. Must never know what
paths mean (it asks the `Surface`) or of tokens and limits.

Invariants: a socket has one owner; a request that is not complete within `header_seconds` ends, and so does an answer
that is not taken; what waits here is bounded in number and in bytes; an error of accept is survived with a pause and
one log line; a publish that has begun to come is answered, also when the door closes.
Cost per streaming connection: accept, read, parse (llhttp by httptools), and the opening; no object of the socket
module. A connection through Tornado's HTTPServer costs ten times that, and a publish through Tornado's Application
about 540 microseconds against 35 here.

Tried and rejected: looking with MSG_PEEK and leaving the bytes for the next owner (a socket object, two more system
calls and an edge-triggered epoll per connection); the HTTP server takes bytes that were read just as well.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from server.exchange import Request, Response
from server.heads import Head, parse_head, response_bytes
from server.logs import get_logger
from server.opening import Opener, Subscription

READ_BYTES = 65_536  # the most of one request that is held here
MAX_HEAD_BYTES = 16_384
ACCEPTS_PER_TURN = 64
MAX_WAITING = 4_096  # beyond it the one that waits longest goes
PAUSE_SECONDS = 0.2
SETTLED_SECONDS = 1.0  # for so long no accept may have failed before all is well again
EVICT_SECONDS = 1.0  # without free descriptors, who has not said anything for this long makes room
WATCH = select.EPOLLIN | select.EPOLLRDHUP
WATCH_WRITABLE = select.EPOLLOUT
POLL_SECONDS = 0.05
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

SURPLUS = b"nothing may come after the request for a stream"

log = get_logger("door")


def _has_left(fd: int) -> bool:
    """True if the peer has said goodbye already."""
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))


class Surface(Protocol):
    """The HTTP surface as the door sees it."""

    def is_stream(self, path: str) -> bool:
        """True if a GET of this path is a stream."""

    def is_publish(self, path: str) -> bool:
        """True if a POST to this path is a publish."""

    def subscribe(self, request: Request) -> Subscription | Response | None:
        """Admit or refuse a streaming GET; None if that takes waiting."""

    def publish(self, request: Request) -> Response | Awaitable[Response]:
        """Answer a publish."""


class Knock:
    """A connection at the door, what it has sent, and what it has still to take of an answer (`rest`). `since`: its
    accept, the last answer, or the first byte of the next request, whichever came last."""

    __slots__ = ("answering", "close", "data", "fd", "remote", "rest", "served", "since", "watched")

    def __init__(self, fd: int, remote: str, now: float) -> None:
        self.fd = fd
        self.remote = remote
        self.since = now
        self.data = b""
        self.rest = b""
        self.close = False
        self.served = False
        self.answering = False
        self.watched = False


class Door:
    """See the module's head."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        surface: Surface,
        opener: Opener,
        hand_over: Callable[[int, str, bytes], None],
        make_room: Callable[[], object] = lambda: None,
        *,
        header_seconds: float,
    ) -> None:
        self._loop = loop
        self._surface = surface
        self._opener = opener
        self._hand_over = hand_over
        self._make_room = make_room
        self._header_seconds = header_seconds
        self._listeners: list[socket.socket] = []
        self._paused: dict[socket.socket, float] = {}
        self._knocks: dict[int, Knock] = {}
        self._epoll = select.epoll()
        self._tasks: set[asyncio.Task[None]] = set()
        self._complained = 0.0
        self._failed = 0.0
        self._why = ""
        self.accepted = self.handed_over = self.timed_out = self.accept_errors = self.published = 0
        loop.add_reader(self._epoll.fileno(), self._poll)

    # --- accepting
    # -----------------------------------------------------------------------------------------------------------

    def listen(self, sock: socket.socket) -> None:
        """Accept from a listening, non-blocking socket."""
        self._listeners.append(sock)
        self._loop.add_reader(sock.fileno(), self._accept, sock)

    def stop_listening(self) -> None:
        """Accept no more; connections on which nothing is under way are closed."""
        for sock in self._listeners:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._listeners.clear()
        self._paused.clear()
        for knock in list(self._knocks.values()):
            if not knock.data and not knock.rest:
                self._close(knock)

    def _accept(self, listener: socket.socket) -> None:
        accept = listener._accept  # type: ignore[attr-defined]  # the descriptor alone: a socket object costs as much as the accept
        now = time.monotonic()
        for _ in range(ACCEPTS_PER_TURN):
            try:
                fd, address = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._pause(listener, error)
                    return
                continue  # the peer gave up between its knock and our answer
            os.set_blocking(fd, False)
            self.accepted += 1
            self._look(Knock(fd, address[0] if isinstance(address, tuple) else "", now))

    def _pause(self, listener: socket.socket, error: OSError) -> None:
        """Without a free descriptor accept would fail at once, again and again: stop asking for a moment, and make
        room if somebody only waits."""
        now = time.monotonic()
        self.accept_errors += 1
        self._failed, self._why = now, os.strerror(error.errno or 0)
        self._loop.remove_reader(listener.fileno())
        self._paused[listener] = now + PAUSE_SECONDS
        self._loop.call_later(PAUSE_SECONDS, self._unpause, listener)
        self._evict(EVICT_SECONDS)
        if now - self._complained >= 1.0:
            self._complained = now
            log.error(
                "accept_failed",
                error=self._why,
                pause_seconds=PAUSE_SECONDS,
                errors=self.accept_errors,
            )

    def state(self) -> str:
        """`ok`, or why newcomers have to wait."""
        return self._why if self._why and time.monotonic() - self._failed < SETTLED_SECONDS else "ok"

    def _unpause(self, listener: socket.socket) -> None:
        if self._paused.pop(listener, None) is not None:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _evict(self, waited_seconds: float) -> None:
        """Close the connection that waits longest, if that is long enough; served ones only last."""
        oldest = time.monotonic() - waited_seconds
        waiting = [knock for knock in self._knocks.values() if knock.since <= oldest]
        knock = next((knock for knock in waiting if not knock.served), None) or next(iter(waiting), None)
        if knock is not None:
            self._close(knock)
        else:
            self._make_room()  # behind the door

    # --- waiting
    # -------------------------------------------------------------------------------------------------------------

    def _wait(self, knock: Knock) -> None:
        if not knock.watched:
            if len(self._knocks) >= MAX_WAITING:
                self._evict(0.0)
            knock.watched = True
            self._knocks[knock.fd] = knock
            self._epoll.register(knock.fd, WATCH)

    def _leave(self, knock: Knock) -> None:
        """Stop watching a connection; it stays open."""
        if knock.watched:
            knock.watched = False
            del self._knocks[knock.fd]
            self._epoll.unregister(knock.fd)

    def _close(self, knock: Knock) -> None:
        if knock.fd >= 0:
            if knock.watched:
                del self._knocks[knock.fd]
            os.close(knock.fd)
            knock.fd = -1

    def _poll(self) -> None:
        for fd, _ in self._epoll.poll(0, 256):
            knock = self._knocks.get(fd)
            if knock is not None:
                self._look(knock)

    def expire(self, now: float) -> None:
        """Called now and then: close connections whose request does not come to an end, or does not come."""
        for knock in list(self._knocks.values()):
            if now - knock.since > self._header_seconds:
                self.timed_out += 1
                self._close(knock)

    @property
    def waiting(self) -> int:
        """Connections whose request is not complete."""
        return len(self._knocks)

    def facts(self) -> dict[str, int]:
        """How many wait now, and running totals since the start."""
        return {
            "waiting": self.waiting,
            "accepted": self.accepted,
            "published": self.published,
            "handed_over": self.handed_over,
            "timed_out": self.timed_out,
            "accept_errors": self.accept_errors,
        }

    # --- looking at a request
    # ------------------------------------------------------------------------------------------------

    def _look(self, knock: Knock) -> None:
        """Read what has come and decide. A defect of ours costs one connection, never the door."""
        try:
            if knock.rest:
                self._say_the_rest(knock)
                return
            try:
                data = os.read(knock.fd, READ_BYTES)
            except BlockingIOError:
                self._wait(knock)
                return
            except OSError:
                data = b""
            if not data:
                self._close(knock)
                return
            if knock.served and not knock.data:
                knock.since = time.monotonic()
            knock.data = knock.data + data if knock.data else data
            self._decide(knock)
        except Exception:
            log.exception("request_failed", remote=knock.remote)
            self._close(knock)

    def _decide(self, knock: Knock) -> None:
        data = knock.data
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(data) > MAX_HEAD_BYTES:
                self._refuse(knock, 431, b"the request head is larger than 16384 bytes")
            elif b"\n\n" in data:
                self._refuse(knock, 400, b"lines of the request head end with CR LF")
            else:
                self._wait(knock)
            return
        head = parse_head(data[:end] if len(data) > end else data)
        if head is not None and not head.unusual:
            if head.method == "GET":
                if head.content_length < 0 and self._surface.is_stream(head.path):
                    self._stream(knock, head, surplus=len(data) > end)
                    return
            elif (
                head.method == "POST"
                and 0 <= head.content_length <= READ_BYTES - end
                and self._surface.is_publish(head.path)
            ):
                if len(data) < end + head.content_length:
                    self._wait(knock)
                else:
                    self._publish(knock, head, end)
                return
        self._to_http_server(knock)

    def _to_http_server(self, knock: Knock) -> None:
        self._leave(knock)
        self.handed_over += 1
        fd, knock.fd = knock.fd, -1
        self._hand_over(fd, knock.remote, knock.data)

    def _refuse(self, knock: Knock, status: int, reason: bytes) -> None:
        body = b'{"code":"bad_request","reason":"%b"}' % reason
        self._say(knock, response_bytes(Response(status, body), close=True, http_1_0=False), close=True)

    def _say(self, knock: Knock, data: bytes, *, close: bool) -> None:
        """Write an answer; what the socket does not take at once goes out as it can. Then close, or wait for more."""
        try:
            sent = os.write(knock.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(knock)
            return
        if sent < len(data):
            knock.rest, knock.close = data[sent:], close
            knock.since = time.monotonic()
            self._wait(knock)
            self._epoll.modify(knock.fd, WATCH_WRITABLE)
        elif close:
            self._close(knock)
        else:
            self._go_on_soon(knock)

    def _say_the_rest(self, knock: Knock) -> None:
        rest, knock.rest = knock.rest, b""
        self._epoll.modify(knock.fd, WATCH)
        self._say(knock, rest, close=knock.close)

    def _go_on_soon(self, knock: Knock) -> None:
        """The answer is out: look at what came after the request, if anything."""
        knock.served = True
        knock.since = time.monotonic()
        if knock.data:
            self._loop.call_soon(self._go_on, knock)  # not at once: a publisher that pipelines must not keep the loop
        else:
            self._wait(knock)

    # --- streams
    # -------------------------------------------------------------------------------------------------------------

    def _stream(self, knock: Knock, head: Head, *, surplus: bool) -> None:
        # Else each of them keeps a descriptor until the loop's next turn, and who stands behind them waits for a pause
        # for every few. Where there are descriptors a question to the kernel for each stream would cost more.
        if self._why and self.state() != "ok" and _has_left(knock.fd):
            self._close(knock)
            return
        answer = self._surface.subscribe(head.request(knock.remote))
        if isinstance(answer, Subscription):
            start = self._opener.locate(answer)
            if start is not None:
                self._leave(knock)
                if surplus:
                    self._refuse(knock, 400, SURPLUS)
                else:
                    fd, knock.fd = knock.fd, -1
                    self._opener.open(fd, answer, start)
                return
        elif answer is not None:
            self._say(knock, response_bytes(answer, close=True, http_1_0=head.http_1_0), close=True)
            return
        self._to_http_server(knock)  # it takes waiting, which is the handlers' business

    # --- publishes
    # -----------------------------------------------------------------------------------------------------------

    def _publish(self, knock: Knock, head: Head, end: int) -> None:
        total = end + head.content_length
        data = knock.data
        body, knock.data = data[end:total], data[total:]
        answer = self._surface.publish(head.request(knock.remote, body))
        self.published += 1
        if isinstance(answer, Response):
            self._answer(knock, head, answer)
            return
        self._leave(knock)
        knock.answering = True
        task = self._loop.create_task(self._answer_later(knock, head, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_later(self, knock: Knock, head: Head, answer: Awaitable[Response]) -> None:
        response = await answer
        knock.answering = False
        self._answer(knock, head, response)

    def _answer(self, knock: Knock, head: Head, answer: Response) -> None:
        close = not head.keep_alive or not self._listeners
        self._say(knock, response_bytes(answer, close=close, http_1_0=head.http_1_0), close=close)

    def _go_on(self, knock: Knock) -> None:
        if knock.fd >= 0 and not knock.answering and not knock.rest:
            self._decide(knock)

    async def finish(self, seconds: float) -> None:
        """Wait for requests that have begun to come, publishes under way and answers; then close what is left."""
        await asyncio.sleep(0)  # a request that came behind another is looked at in the loop's next turn
        for _ in range(round(seconds / POLL_SECONDS)):
            if not self._tasks and not self._knocks:
                break
            await asyncio.sleep(POLL_SECONDS)
        for knock in list(self._knocks.values()):
            self._close(knock)
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
