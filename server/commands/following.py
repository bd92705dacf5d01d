"""Following: one subscription over as many connections as it takes.

Owns what an EventSource owns: the cursor, when to come back and when to stop. Control events (docs/protocol.md) are
told from published ones by having no id of their own. Must never know how messages are shown.

A stream that is silent for longer than the server promised in `hello` counts as lost: without that a connection cut off
by a network that forgot it would be waited on for ever.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlencode

from server.commands.backoff import Backoff, retry_after_seconds
from server.commands.event_stream import BlockTooLarge, EventStream, Message
from server.commands.meter import Meter
from server.commands.posting import describe
from server.commands.remote import (
    EXIT_REFUSED,
    MAX_ANSWER_BYTES,
    Remote,
    authorisation,
    exit_code,
    json_object,
    refusal,
    visible,
)
from server.endings import ENDINGS, FINISHED, Ending

READ_BYTES = 64 * 1024
EVENT_STREAM = "text/event-stream"
# A connection that brings no `hello` yet; then as many heartbeats as may go missing.
FIRST_BYTES_SECONDS = 30.0
MISSED_HEARTBEATS = 2.5
DEFAULT_RETRY_SECONDS = 1.0
MAX_RETRY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Subscription:
    """What is asked for: the same on every connection."""

    remote: Remote
    channel: str
    topics: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    last: int | None = None
    token: str | None = None

    @property
    def target(self) -> str:
        """Path and query."""
        given = [("topic", topic) for topic in self.topics] + [("type", kind) for kind in self.types]
        if self.last is not None:
            given.append(("last", str(self.last)))
        path = self.remote.events_path(self.channel)
        return f"{path}?{urlencode(given)}" if given else path


class Ended(Exception):
    """The stream is over and must not be asked for again. `code` is the exit code."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class _Lost(Exception):
    """No stream for now. `floor_seconds` is the least time to wait."""

    def __init__(self, reason: str, floor_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.floor_seconds = floor_seconds


class Follower:
    """Follows a subscription from `cursor` ("" for now). `note` is told what a person should know."""

    def __init__(
        self,
        subscription: Subscription,
        cursor: str,
        meter: Meter,
        note: Callable[[str], None],
        *,
        backoff: Backoff | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.cursor = cursor
        self._subscription = subscription
        self._meter = meter
        self._note = note
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._failures = 0
        self._streams = 0
        self._retry_seconds = DEFAULT_RETRY_SECONDS
        self._greeted = False
        self._silence_seconds: float | None = FIRST_BYTES_SECONDS
        self._ending: Ending | None = None

    def follow(self) -> Iterator[list[Message]]:
        """Published messages as they come, those that came together together. Raises Ended."""
        while True:
            try:
                yield from self._stream()
                reason, floor = self._after_end(), 0.0
            except _Lost as lost:
                reason, floor = str(lost), lost.floor_seconds
            seconds = self._backoff.delay(self._failures, max(floor, self._retry_seconds))
            self._failures += 1
            self._meter.state = "waiting"
            self._note(f"{reason}; coming back in {seconds:.1f} s")
            self._sleep(seconds)

    def _after_end(self) -> str:
        ending = self._ending
        if ending is None:
            return "the stream ended"
        if not ending.reconnect:
            raise Ended(ending.reason, 0 if ending is FINISHED else exit_code(ending.status))
        return f"the server ended the stream: {ending.reason}"

    def _stream(self) -> Iterator[list[Message]]:
        """One connection, to its end. Raises _Lost, Ended."""
        self._greeted, self._ending, self._silence_seconds = False, None, FIRST_BYTES_SECONDS
        with closing(self._subscription.remote.connection()) as connection:
            try:
                connection.connect()
                # Kept because http.client lets go of it once the answer has begun.
                sock = connection.sock
                connection.request("GET", self._subscription.target, headers=self._headers())
                sock.settimeout(self._silence_seconds)
                with connection.getresponse() as response:
                    self._check(response)
                    for messages in self._pieces(response):
                        yield messages
                        sock.settimeout(self._silence_seconds)
            except (OSError, http.client.HTTPException, BlockTooLarge) as error:
                # An ending that was received is the reason, however the connection went down after it.
                if self._ending is None:
                    raise _Lost(f"lost {self._subscription.remote.host}: {describe(error)}") from None

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": EVENT_STREAM, "Cache-Control": "no-store"} | authorisation(self._subscription.token)
        if self.cursor:
            # The bytes of the header are the id's UTF-8; http.client writes each character as one byte.
            headers["Last-Event-ID"] = self.cursor.encode().decode("latin-1")
        return headers

    def _check(self, response: http.client.HTTPResponse) -> None:
        """Raise Ended or _Lost unless a stream has begun."""
        status = response.status
        if status == 204:
            raise Ended(FINISHED.reason, 0)
        if status == 200:
            media_type = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
            if media_type != EVENT_STREAM:
                raise Ended(f"this is {visible(media_type) or 'something'}, not an event stream", EXIT_REFUSED)
            self._meter.reconnects += self._streams > 0
            self._streams += 1
            self._meter.state = "live"
            return
        reason = refusal(status, response.read(MAX_ANSWER_BYTES))
        if status == 429 or status >= 500:
            raise _Lost(reason, retry_after_seconds(response.getheader("Retry-After")))
        raise Ended(reason, exit_code(status))

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[list[Message]]:
        stream = EventStream(self.cursor)
        while piece := response.read1(READ_BYTES):
            self._meter.bytes += len(piece)
            messages = stream.feed(piece)
            if stream.retry_ms is not None:
                self._retry_seconds = min(stream.retry_ms / 1000, MAX_RETRY_SECONDS)
            published = [message for message in messages if not self._is_control(message)]
            # The messages are handed over before their cursor counts as reached.
            yield published
            self.cursor = stream.last_event_id

    def _is_control(self, message: Message) -> bool:
        """True, and acted upon, if the server speaks for itself."""
        if not self._greeted:
            self._greeted = message.type not in ENDINGS
            if self._greeted:
                self._failures = 0
                return self._hello(json_object(message.data))
        if message.own_id:
            return False
        if message.type == "gap":
            self._gap(json_object(message.data))
        elif message.type in ENDINGS:
            self._ending = ENDINGS[message.type]
        else:
            return message.type == "heartbeat"
        return True

    def _hello(self, body: dict[str, object]) -> bool:
        """The first message of a stream, whatever the channel calls it; other servers have none."""
        if not {"epoch", "cursor"} <= body.keys():
            self._silence_seconds = None
            return False
        beat = body.get("heartbeat_seconds")
        self._silence_seconds = beat * MISSED_HEARTBEATS if isinstance(beat, (int, float)) and beat > 0 else None
        self._note(f"connected to channel {visible(str(body.get('channel', '')))}")
        return True

    def _gap(self, body: dict[str, object]) -> None:
        self._meter.gaps += 1
        start, end = (visible(str(body.get(name) or "?"))[:80] for name in ("from", "to"))
        self._note(
            f"gap ({visible(str(body.get('reason')))[:80]}): events after {start} and up to {end} may be missing"
        )
