"""Hypothesis: whatever is accepted arrives as exactly one event, unchanged but for line ends (E20)."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from server.event import Event, InvalidEvent
from server.frames import COMMENT_HEARTBEAT, Encoding, cursor_block, encode
from tests.wire.parser import Parser, StrictParser, WireError, parse, parse_strictly

# Half of it from the characters that mean something in the format, so that they meet.
AWKWARD = st.text(alphabet=list("\r\n\0 :\t\ufeff\u2028\u0085aédit{\U0001f680"), max_size=40)
ANY_TEXT = AWKWARD | st.text(max_size=80) | st.text(alphabet=st.characters(), max_size=20)
IDS = st.from_regex(r"[0-9a-z]{6}-[0-9a-f]{13}", fullmatch=True)


def event_or_none(**fields: Any) -> Event | None:
    """The event, or None where it is refused; any other exception is a failure."""
    try:
        return Event(**fields)
    except InvalidEvent:
        return None


EVENTS = st.builds(
    event_or_none,
    data=ANY_TEXT,
    type=st.none()
    | st.text(alphabet=st.characters(exclude_categories=["Cc", "Cf", "Cs"]), min_size=1, max_size=20)
    | ANY_TEXT,
    id=st.none() | ANY_TEXT,
    retry_ms=st.none() | st.integers(-10, 20_000_000),
)

PIECES = [
    b"data: a\n",
    b"id: 1\n",
    b"event: x\n",
    b"retry: 1\n",
    b"\n",
    b":\n",
    b":x\n",
    b"x\n",
    b"\r",
    b"\xef\xbb\xbf",
    b"\xff",
]
STREAMS = st.lists(st.sampled_from(PIECES)).map(b"".join)


def as_read(data: str) -> str:
    return data.replace("\r\n", "\n").replace("\r", "\n")


def without_chunks(body: bytes) -> tuple[bytes, bool]:
    """The content of a chunked body, and whether it was ended."""
    content = b""
    while body:
        size_text, _, rest = body.partition(b"\r\n")
        size = int(size_text, 16)
        assert rest[size : size + 2] == b"\r\n"
        content, body = content + rest[:size], rest[size + 2 :]
        if size == 0:
            return content, not body
    return content, False


@given(EVENTS, IDS)
def test_an_accepted_event_arrives_once_and_whole(event: Event | None, event_id: str) -> None:
    """E20: encode, then parse strictly, gives the same type, data, id and retry."""
    assume(event is not None)
    assert event is not None
    wire_id = event.id or event_id
    parser = parse_strictly(encode(event, wire_id))
    parser.end()
    [read] = parser.events
    assert (read.type, read.data, read.last_event_id) == (event.type or "message", as_read(event.data), wire_id)
    assert parser.retry_ms == event.retry_ms


@given(
    st.lists(st.tuples(EVENTS, IDS, st.sampled_from(["", "comment", "cursor"])), max_size=8),
    st.sampled_from([Encoding.CHUNKED, Encoding.PLAIN]),
    st.data(),
)
def test_frames_and_heartbeats_in_any_order_and_grouping_arrive_in_order(
    sent: list[tuple[Event | None, str, str]], encoding: Encoding, draw: st.DataObject
) -> None:
    """E17, E20: spans of joined frames, wrapped for transfer, unwrapped and read in pieces."""
    pieces: list[bytes] = []
    expected = []
    for event, event_id, heartbeat in sent:
        if event is not None:
            pieces.append(encode(event, event_id))
            expected.append((event.type or "message", as_read(event.data), event_id))
        if heartbeat:
            pieces.append(COMMENT_HEARTBEAT if heartbeat == "comment" else COMMENT_HEARTBEAT + cursor_block(event_id))
    body = b""
    while pieces:
        count = draw.draw(st.integers(1, len(pieces)))
        body += encoding.wrap(b"".join(pieces[:count]))
        pieces = pieces[count:]
    content, ended = without_chunks(body + encoding.end) if encoding is Encoding.CHUNKED else (body, True)
    parser = parse_strictly(content, step=draw.draw(st.integers(1, 50)))
    parser.end()
    assert ended
    assert [(event.type, event.data, event.last_event_id) for event in parser.events] == expected


@given(st.lists(st.tuples(EVENTS, IDS), min_size=1, max_size=4), st.data())
def test_an_early_end_and_a_resume_lose_and_repeat_nothing(
    sent: list[tuple[Event | None, str]], draw: st.DataObject
) -> None:
    """E12, E20: cut anywhere; what the cursor says is missing is exactly what was not dispatched."""
    events = {f"{number}": event for number, (event, _) in enumerate(sent) if event is not None}
    frames = [encode(event, event_id) for event_id, event in events.items()]
    stream = b"".join(frames)
    first = parse(stream[: draw.draw(st.integers(0, len(stream)))])
    keys = list(events)
    start = keys.index(first.last_event_id) + 1 if first.last_event_id else 0
    second = parse(b"".join(frames[start:]), last_event_id=first.last_event_id)
    assert [event.last_event_id for event in first.events + second.events] == keys


@given(st.binary(max_size=100) | STREAMS, st.data())
def test_no_bytes_upset_the_parser_and_no_cut_changes_its_reading(stream: bytes, draw: st.DataObject) -> None:
    """E19: the judge itself is total and does not depend on how the bytes were cut."""
    whole = parse(stream)
    offset = draw.draw(st.integers(0, len(stream)))
    pieces = Parser()
    pieces.feed(stream[:offset])
    pieces.feed(stream[offset:])
    assert (pieces.events, pieces.last_event_id, pieces.retry_ms) == (whole.events, whole.last_event_id, whole.retry_ms)


@given(STREAMS)
def test_what_passes_strictly_reads_the_same_leniently(stream: bytes) -> None:
    strict = StrictParser()
    with contextlib.suppress(WireError):
        strict.feed(stream)
    lenient = parse(stream)
    assert strict.events == lenient.events[: len(strict.events)]
