"""Events: what is published. An `Event` that exists can be encoded.

Owns the rules for every field of an event: what is refused, with which field and reason. Must never know of channels'
policies, tokens, sockets or clocks. Everything that leaves a server as `id:`, `event:` or `retry:` passed through here,
so no later stage checks again.

Invariants: text is encodable as UTF-8 (no lone surrogates); ids, types and topics hold no control or format characters,
so they cannot forge a line; a location is on the earth. Cost: one `Event` (a slotted object) per published event;
validation is a few compiled-regex searches. Source: HTML Living Standard 9.2 (event streams); Mercure draft-08,
"Publication".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from server.endings import CONTROL_EVENTS
from server.region import Location, OutOfRange, check_location

MAX_TOPICS = 100
MAX_TOPIC_BYTES = 4096
MAX_ID_BYTES = 256
MAX_TYPE_BYTES = 256
MAX_RETRY_MS = 9_999_999

# EventSource fires these itself; an event of that name would be mistaken for the connection's own.
_TAKEN_TYPES = CONTROL_EVENTS | {"open", "error"}

# Category Cc, Cf and lone surrogates (Cs). Python's re has no \p{Cf}; the ranges are Unicode 15's, checked against
# unicodedata by a test.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")


class InvalidEvent(ValueError):
    """A field broke a rule. `too_large` tells a size limit (HTTP 413) from any other (400)."""

    def __init__(self, field: str, reason: str, *, too_large: bool = False) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
        self.too_large = too_large


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `topics[0]` is the canonical topic; `id` is the publisher's own id or None; `retry_ms` None means
    none. `location` (latitude and longitude, in degrees) selects readers by region; it is not sent to them.

    Raises InvalidEvent.
    """

    topics: tuple[str, ...] = ()
    data: str = ""
    type: str | None = None
    id: str | None = None
    retry_ms: int | None = None
    private: bool = False
    location: Location | None = None

    def __post_init__(self) -> None:
        check_topics(self.topics)
        if _SURROGATE.search(self.data):
            raise InvalidEvent("data", "must be encodable as UTF-8")
        if self.type is not None:
            _check_text("type", self.type, MAX_TYPE_BYTES)
            if self.type in _TAKEN_TYPES:
                raise InvalidEvent("type", f"{self.type!r} is reserved")
        if self.id is not None:
            check_id(self.id)
        retry = self.retry_ms
        if retry is not None and not 0 <= retry <= MAX_RETRY_MS:
            raise InvalidEvent("retry", f"must be from 0 to {MAX_RETRY_MS} milliseconds")
        if self.location is not None:
            _check_location(self.location)


def is_safe(text: str) -> bool:
    """True if `text` has no control, format or surrogate character."""
    return _UNSAFE.search(text) is None


def check_id(value: str) -> None:
    """Raise InvalidEvent unless `value` may be a publisher's own event id."""
    _check_text("id", value, MAX_ID_BYTES)
    if value != value.strip():
        raise InvalidEvent("id", "must not begin or end with white space: a header would lose it")
    if value.startswith("#"):
        raise InvalidEvent("id", "must not start with #")
    if value == "earliest":
        raise InvalidEvent("id", "'earliest' is reserved")


def _check_text(field: str, value: str, max_bytes: int) -> None:
    if not value:
        raise InvalidEvent(field, "must not be empty")
    if not is_safe(value):
        raise InvalidEvent(field, "must not hold control or format characters")
    # A character takes at most four bytes: the exact count is only needed near the limit.
    if len(value) * 4 > max_bytes and len(value.encode()) > max_bytes:
        raise InvalidEvent(field, f"must be at most {max_bytes} bytes", too_large=True)


def _check_location(location: Location) -> None:
    try:
        check_location(location)
    except OutOfRange as error:
        raise InvalidEvent(f"location.{error.field}", error.reason) from None


def check_topics(topics: tuple[str, ...]) -> None:
    """Raise InvalidEvent unless these may be an event's topics."""
    if len(topics) > MAX_TOPICS:
        raise InvalidEvent("topic", f"must be at most {MAX_TOPICS}", too_large=True)
    for topic in topics:
        _check_text("topic", topic, MAX_TOPIC_BYTES)
        if topic == "*":
            raise InvalidEvent("topic", "'*' selects topics and cannot be one")
