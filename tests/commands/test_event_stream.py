"""The client's parser against the corpus and against the tests' own parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.commands.event_stream import BlockTooLarge, EventStream
from tests.wire.corpus import CASES, Case, name_of
from tests.wire.parser import Parser

PIECES = [
    b"data: a\n",
    b"data",
    b"id: 1\n",
    b"id\n",
    b"id: \0\n",
    b"event: x\n",
    b"retry: 1\n",
    b"retry: 1x\n",
    b"\n",
    b":\n",
]
AWKWARD = [b"\r", b"\xef\xbb\xbf", b"\xef", b"\xff", b"\xe2\x82", b" ", b":"]


def _cut(text: bytes, size: int) -> list[bytes]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 1 << 20])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_every_case_of_the_corpus_is_read_as_the_standard_says_in_pieces_of_any_size(case: Case, size: int) -> None:
    stream = EventStream()
    messages = [message for piece in _cut(case.stream, size) for message in stream.feed(piece)]
    got = [(message.type, message.data, message.id) for message in messages]
    assert got == [(event.type, event.data, event.last_event_id) for event in case.events]
    assert (stream.last_event_id, stream.retry_ms) == (case.last_event_id, case.retry_ms)


@given(st.lists(st.lists(st.sampled_from(PIECES + AWKWARD)).map(b"".join)))
def test_any_bytes_in_any_pieces_are_read_as_the_other_parser_reads_them(pieces: list[bytes]) -> None:
    ours, other = EventStream("before"), Parser("before")
    for piece in pieces:
        got = [(message.type, message.data, message.id) for message in ours.feed(piece)]
        assert got == [(event.type, event.data, event.last_event_id) for event in other.feed(piece)]
        assert (ours.last_event_id, ours.retry_ms) == (other.last_event_id, other.retry_ms)


def test_a_message_tells_its_own_id_from_one_that_is_left_over() -> None:
    messages = EventStream().feed(b"id: 1\ndata: a\n\ndata: b\n\nid: 2\n\ndata: c\n\n")
    assert [(message.id, message.own_id) for message in messages] == [("1", True), ("1", False), ("2", False)]


@pytest.mark.parametrize("piece", [b"data: aaaaaaaa\n", b"data: aaaa", b"x"])
def test_a_block_without_end_is_refused(piece: bytes) -> None:
    stream = EventStream(max_block_bytes=100)
    for _ in range(100 // len(piece)):
        stream.feed(piece)
    with pytest.raises(BlockTooLarge):
        stream.feed(b"data: " + b"a" * 100)


def test_many_small_blocks_are_no_large_one() -> None:
    stream = EventStream(max_block_bytes=100)
    assert sum(len(stream.feed(b"data: aaaaaaaa\n\n")) for _ in range(1000)) == 1000
