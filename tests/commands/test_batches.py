"""Standard input as batches."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.commands.batches import Batch, InvalidLine, batches, with_defaults


def _reader(*pieces: bytes) -> Callable[[int], bytes]:
    rest = list(pieces)
    return lambda _size: rest.pop(0) if rest else b""


def test_what_arrives_together_goes_out_together_and_half_a_line_waits() -> None:
    found = list(batches(_reader(b'{"a":1}\n{"a"', b":2}\n", b"{}")))
    assert [batch.lines for batch in found] == [[b'{"a":1}'], [b'{"a":2}'], [b"{}"]]
    assert [batch.numbers for batch in found] == [[1], [2], [3]]


def test_a_batch_has_a_bound() -> None:
    assert [len(batch.lines) for batch in batches(_reader(b"{}\n" * 10), max_lines=4)] == [4, 4, 2]


@given(st.lists(st.sampled_from([b"{}", b"\n", b" ", b"\r\n", b"x", b"\n\n"]), max_size=30), st.integers(1, 5))
def test_no_line_is_lost_or_moved_however_the_input_is_cut(pieces: list[bytes], max_lines: int) -> None:
    found = [
        item for batch in batches(_reader(*pieces), max_lines) for item in zip(batch.lines, batch.numbers, strict=True)
    ]
    lines = b"".join(pieces).split(b"\n")
    assert found == [(line, number) for number, line in enumerate(lines, 1) if line.strip()]


def test_defaults_fill_in_what_a_line_does_not_say() -> None:
    lines = [b'{"data":"a"}', b'{"topic":"own"}', b'{"topics":["own"],"private":false}']
    filled = with_defaults(Batch(lines, [1, 2, 3]), {"topics": ["t"], "private": True})
    assert [json.loads(line) for line in filled.lines] == [
        {"data": "a", "topics": ["t"], "private": True},
        {"topic": "own", "private": True},
        {"topics": ["own"], "private": False},
    ]


def test_without_defaults_lines_are_not_even_looked_at() -> None:
    assert with_defaults(Batch([b"{nonsense"], [1]), {}).body == b"{nonsense\n"


@pytest.mark.parametrize("line", [b"{", b"[]", b"1", b"\xff", b"null"])
def test_a_line_that_cannot_be_filled_in_is_named_by_its_number(line: bytes) -> None:
    with pytest.raises(InvalidLine, match="line 7 is not"):
        with_defaults(Batch([line], [7]), {"private": True})
