"""Frames as values: whole blocks that can be joined in any way, and their wrapping. The format itself: tests/wire."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.event import Event
from server.frames import COMMENT_HEARTBEAT, LAST_CHUNK, Encoding, cursor_block, encode
from tests.server.engine import unchunked

LINES = st.text("ab\r\n\u2028\u0085: é", max_size=30)


def test_fields_come_in_one_order() -> None:
    event = Event(("a",), "x\r\ny\rz\n", "kind", retry_ms=50)
    assert encode(event, "7") == b"id: 7\nevent: kind\nretry: 50\ndata: x\ndata: y\ndata: z\ndata: \n\n"


def test_topics_do_not_show_on_the_wire() -> None:
    assert encode(Event(("secret-topic",), "x"), "7") == b"id: 7\ndata: x\n\n"


@given(LINES)
def test_a_frame_is_one_block_with_a_data_line_for_each_line(data: str) -> None:
    frame = encode(Event(data=data), "7").decode()
    *lines, last, end = frame.split("\n")
    assert (last, end) == ("", "")
    assert "" not in lines
    values = [line.removeprefix("data: ") for line in lines[1:]]
    assert "\n".join(values) == data.replace("\r\n", "\n").replace("\r", "\n")


def test_only_cr_lf_and_both_end_a_line() -> None:
    for separator in "\u2028\u2029\x0b\x0c\x1c\x1d\x1e\x85":
        assert encode(Event(data=f"a{separator}b"), "7").count(b"data: ") == 1


def test_a_frame_never_begins_with_a_byte_order_mark() -> None:
    assert encode(Event(data="\ufeffx"), "7").startswith(b"id: ")


def test_a_cursor_block_holds_nothing_but_the_cursor() -> None:
    assert cursor_block("k3x9q1-6440f3a1b2c3d") == b"id: k3x9q1-6440f3a1b2c3d\n\n"


def test_a_heartbeat_is_the_shortest_comment() -> None:
    assert COMMENT_HEARTBEAT == b":\n"


@given(st.lists(st.binary(min_size=1, max_size=50)))
def test_chunks_hold_what_was_wrapped(payloads: list[bytes]) -> None:
    wrapped = b"".join(Encoding.CHUNKED.wrap(payload) for payload in payloads) + Encoding.CHUNKED.end
    assert unchunked(wrapped) == (b"".join(payloads), True)


def test_for_http_1_0_nothing_is_added() -> None:
    assert Encoding.PLAIN.wrap(b"abc") == b"abc"
    assert (Encoding.PLAIN.end, Encoding.CHUNKED.end) == (b"", LAST_CHUNK)


def test_encodings_are_two_values_that_can_be_told_apart() -> None:
    assert len({Encoding.CHUNKED, Encoding.PLAIN}) == 2
    assert [repr(one) for one in (Encoding.CHUNKED, Encoding.PLAIN)] == ["Encoding.CHUNKED", "Encoding.PLAIN"]
