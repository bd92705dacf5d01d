"""Frames as bytes: what an event looks like on the wire, rule by rule, read back by the independent parser."""

from __future__ import annotations

from typing import Any

import pytest

from server.endings import ENDINGS
from server.event import Event, InvalidEvent
from server.frames import COMMENT_HEARTBEAT, Encoding, cursor_block, encode
from tests.wire.parser import CONTROL, Dispatched, StrictParser, parse_strictly

ID = "k3x9q1-6440f3a1b2c3d"


def event_with(field: str, text: str) -> Event:
    fields: dict[str, Any] = {field: text}
    return Event(**fields)


def read_back(event: Event) -> Dispatched:
    """The one event that the frame holds."""
    parser = parse_strictly(encode(event, ID))
    parser.end()
    assert len(parser.events) == 1
    assert parser.last_event_id == ID
    return parser.events[0]


@pytest.mark.parametrize(
    ("event", "frame"),
    [
        (Event(data="a"), b"id: 1\ndata: a\n\n"),
        (Event(data=""), b"id: 1\ndata: \n\n"),
        (Event(data="a\nb"), b"id: 1\ndata: a\ndata: b\n\n"),
        (Event(data="a", type="x"), b"id: 1\nevent: x\ndata: a\n\n"),
        (Event(data="a", retry_ms=0), b"id: 1\nretry: 0\ndata: a\n\n"),
        (Event(data="a", type="x", retry_ms=5000), b"id: 1\nevent: x\nretry: 5000\ndata: a\n\n"),
        (Event(data=": a"), b"id: 1\ndata: : a\n\n"),
        (Event(data="é\U0001f680"), b"id: 1\ndata: \xc3\xa9\xf0\x9f\x9a\x80\n\n"),
    ],
)
def test_a_frame_is_exactly_these_bytes(event: Event, frame: bytes) -> None:
    assert encode(event, "1") == frame


@pytest.mark.parametrize("plane", range(17))
def test_characters_of_every_plane_come_back(plane: int) -> None:
    """E01: the stream is UTF-8 and nothing else."""
    points = [*range(plane << 16, (plane + 1) << 16, 1 if plane == 0 else 97), (plane << 16) + 0xFFFF]
    text = "".join(chr(point) for point in points if not 0xD800 <= point <= 0xDFFF and point != 0x0D)
    assert read_back(Event(data=text)).data == text


@pytest.mark.parametrize("surrogate", [chr(0xD800), chr(0xDFFF), f"a{chr(0xD83D)}z"])
@pytest.mark.parametrize("field", ["data", "type", "id"])
def test_a_lone_surrogate_is_refused(field: str, surrogate: str) -> None:
    """E01: what UTF-8 cannot say is refused before it is an event."""
    with pytest.raises(InvalidEvent) as refusal:
        event_with(field, surrogate)
    assert refusal.value.field == field


@pytest.mark.parametrize("data", ["\ufeff", "\ufeffa", "a\n\ufeffb", "\ufeff\n\ufeff"])
def test_a_byte_order_mark_is_data_like_any_other(data: str) -> None:
    """E02: no frame begins with a mark, and a mark in the data stands behind its field's name."""
    assert encode(Event(data=data), ID)[:1] in (b":", b"i", b"e", b"d", b"r")
    assert read_back(Event(data=data)).data == data


@pytest.mark.parametrize(
    ("data", "read"),
    [
        ("a\nb", "a\nb"),
        ("a\rb", "a\nb"),
        ("a\r\nb", "a\nb"),
        ("a\n\rb", "a\n\nb"),
        ("a\r\rb", "a\n\nb"),
        ("a\r", "a\n"),
        ("\r", "\n"),
        ("\r\n", "\n"),
        ("\r\r\n\n", "\n\n\n"),
    ],
)
def test_each_line_end_comes_back_as_lf(data: str, read: str) -> None:
    """E03: LF, CR and CRLF each end one line of data."""
    assert read_back(Event(data=data)).data == read


def test_a_lone_cr_starts_a_new_data_line() -> None:
    """E03: a CR that is let through would end the line at the client and make a field of what follows."""
    assert encode(Event(data="a\rid: 666\rb"), "1") == b"id: 1\ndata: a\ndata: id: 666\ndata: b\n\n"


@pytest.mark.parametrize("offset", range(-3, 4))
def test_crlf_at_a_chunk_edge_is_one_line_end(offset: int) -> None:
    """E03: a line end that falls on the edge of 16 KiB."""
    head = "a" * (16384 - len(f"id: {ID}\ndata: ") + offset)
    assert read_back(Event(data=f"{head}\r\nb")).data == f"{head}\nb"


@pytest.mark.parametrize("character", ["\u0085", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x1f"])
def test_other_unicode_breaks_stay_within_one_line(character: str) -> None:
    """E04: `str.splitlines` would split at each of these."""
    event = Event(data=f"a{character}b{character}")
    assert encode(event, ID).count(b"data:") == 1
    assert read_back(event).data == f"a{character}b{character}"


@pytest.mark.parametrize("data", [" a", "  a", " ", "\ta", "a ", " \n a\n", ""])
def test_leading_spaces_and_empty_data_come_back(data: str) -> None:
    """E05: a client drops exactly one space after the colon. E06: a data line without a value still dispatches."""
    assert read_back(Event(data=data)).data == data


def test_a_cursor_block_dispatches_nothing_and_moves_the_cursor() -> None:
    """E06: the heartbeat that carries the cursor."""
    parser = parse_strictly(cursor_block(ID))
    parser.end()
    assert (parser.events, parser.last_event_id, parser.cursor_blocks) == ([], ID, 1)


@pytest.mark.parametrize("data", ["a\n", "\n", "\n\n", "a\n\n", "\na", "a\r"])
def test_trailing_line_ends_come_back(data: str) -> None:
    """E07: a client drops exactly one trailing LF, which is the frame's own."""
    assert read_back(Event(data=data)).data == data.replace("\r", "\n")


def test_the_frame_of_a_trailing_lf_has_an_empty_last_line() -> None:
    """E07."""
    assert encode(Event(data="a\n"), "1") == b"id: 1\ndata: a\ndata: \n\n"


@pytest.mark.parametrize("field", ["type", "id"])
@pytest.mark.parametrize(
    "text", ["a\nb", "a\rb", "a\r\ndata: x", "a\0b", "\n", "a\x7f", "a\x85", "a\u200b", "a\ufeff", "a\u2066"]
)
def test_a_type_or_id_that_could_forge_a_field_is_refused(field: str, text: str) -> None:
    """E08, E09: no line ends, NUL, control or format characters in a type or an id."""
    with pytest.raises(InvalidEvent) as refusal:
        event_with(field, text)
    assert refusal.value.field == field


@pytest.mark.parametrize("name", ["open", "error", "hello", *sorted(CONTROL)])
def test_the_names_of_the_connections_own_events_are_refused(name: str) -> None:
    """E08: a publisher cannot speak for the connection."""
    with pytest.raises(InvalidEvent):
        Event(type=name)


def test_an_event_without_type_is_a_message() -> None:
    """E08: no `event:` line stands for `message`."""
    assert read_back(Event(data="a")).type == "message"


@pytest.mark.parametrize("event_id", ["", "earliest", "#a", " a", "a ", "\u3000a"])
def test_an_id_that_means_something_else_is_refused(event_id: str) -> None:
    """E10: an empty `id:` would reset the client's cursor; a header would lose white space at its edges."""
    with pytest.raises(InvalidEvent):
        Event(id=event_id)


def test_the_id_stands_before_the_data_so_no_cut_moves_the_cursor_alone() -> None:
    """E11, E12: wherever three frames are cut, the cursor belongs to what was dispatched."""
    frames = [encode(Event(data=f"{number}\n\n", type="t"), f"{ID[:-1]}{number}") for number in range(3)]
    stream = b"".join(frames)
    for offset in range(len(stream)):
        parser = parse_strictly(stream[:offset])
        assert parser.last_event_id == (parser.events[-1].last_event_id if parser.events else "")


@pytest.mark.parametrize("retry_ms", [0, 1, 3000, 9_999_999])
def test_retry_is_ascii_digits(retry_ms: int) -> None:
    """E13."""
    parser = parse_strictly(encode(Event(retry_ms=retry_ms), ID))
    assert parser.retry_ms == retry_ms


@pytest.mark.parametrize("retry_ms", [-1, 10_000_000])
def test_a_retry_beyond_seven_digits_is_refused(retry_ms: int) -> None:
    """E13."""
    with pytest.raises(InvalidEvent):
        Event(retry_ms=retry_ms)


def test_the_comment_heartbeat_is_one_colon() -> None:
    """E14: two bytes, nothing to inject into, and no event."""
    assert COMMENT_HEARTBEAT == b":\n"
    parser = parse_strictly(COMMENT_HEARTBEAT)
    parser.end()
    assert (parser.comments, parser.events) == (1, [])


@pytest.mark.parametrize("code", sorted(ENDINGS))
def test_a_farewell_is_one_event_without_an_id(code: str) -> None:
    """E10, E13, E15: the last block of a stream uses our fields only and leaves the cursor alone."""
    parser = StrictParser("before")
    parser.feed(ENDINGS[code].farewell())
    parser.end()
    assert [(event.type, event.last_event_id) for event in parser.events] == [(code, "before")]
    assert (parser.retry_ms is not None) == ENDINGS[code].reconnect


def test_nul_is_legal_data() -> None:
    """E16."""
    assert read_back(Event(data="a\0b")).data == "a\0b"


def test_every_line_end_costs_seven_bytes_on_the_wire() -> None:
    """E18: which is why the limit is on the encoded size."""
    one, two = (len(encode(Event(data="\n" * count), ID)) for count in (1000, 2000))
    assert two - one == 7 * 1000


def test_whole_frames_are_wrapped_in_one_chunk() -> None:
    """E17: the unit of a write is whole frames, so a heartbeat cannot stand inside one."""
    assert Encoding.CHUNKED.wrap(b"id: 1\n\n") == b"7\r\nid: 1\n\n\r\n"
    assert Encoding.PLAIN.wrap(b"id: 1\n\n") == b"id: 1\n\n"
    assert (Encoding.CHUNKED.end, Encoding.PLAIN.end) == (b"0\r\n\r\n", b"")
