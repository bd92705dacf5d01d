"""The parser that judges the server, judged by the corpus."""

from __future__ import annotations

import pytest

from tests.wire.corpus import CASES, Case, name_of
from tests.wire.parser import Parser, StrictParser, WireError, parse

every_case = pytest.mark.parametrize("case", CASES, ids=name_of)


def outcome(parser: Parser) -> tuple[object, ...]:
    return parser.events, parser.last_event_id, parser.retry_ms


@every_case
def test_a_stream_is_read_as_the_standard_says(case: Case) -> None:
    assert outcome(parse(case.stream)) == (case.events, case.last_event_id, case.retry_ms)


@every_case
@pytest.mark.parametrize("step", [1, 2])
def test_pieces_of_one_and_two_bytes_read_the_same(case: Case, step: int) -> None:
    """E19: byte-wise delivery, with CRLF, characters and the byte-order mark split."""
    assert outcome(parse(case.stream, step=step)) == (case.events, case.last_event_id, case.retry_ms)


@every_case
def test_a_cut_at_any_byte_reads_the_same(case: Case) -> None:
    """E19: two pieces, split at every offset."""
    for offset in range(len(case.stream) + 1):
        parser = Parser()
        parser.feed(case.stream[:offset])
        parser.feed(b"")
        parser.feed(case.stream[offset:])
        assert outcome(parser) == (case.events, case.last_event_id, case.retry_ms), offset


@every_case
def test_an_end_at_any_byte_gives_a_prefix_and_never_half_an_event(case: Case) -> None:
    """E11, E12: what an early end leaves is a prefix of the events, and a cursor that belongs to it."""
    for offset in range(len(case.stream) + 1):
        parser = parse(case.stream[:offset])
        count = len(parser.events)
        assert parser.events == case.events[:count], offset


@every_case
def test_strict_reading_accepts_only_what_the_server_may_send(case: Case) -> None:
    strict = StrictParser()
    if case.ours:
        strict.feed(case.stream)
        strict.end()
        assert outcome(strict) == (case.events, case.last_event_id, case.retry_ms)
    else:
        with pytest.raises(WireError):
            read_to_the_end(strict, case.stream)


def read_to_the_end(strict: StrictParser, stream: bytes) -> None:
    strict.feed(stream)
    strict.end()


def test_a_cursor_outlives_its_connection() -> None:
    """E10: the next connection starts with the id of the last; an event without an id inherits it."""
    first = parse(b"id: 1\ndata: a\n\n")
    second = parse(b"data: b\n\n", last_event_id=first.last_event_id)
    assert second.events[0].last_event_id == "1"


def test_the_rules_of_the_wire_all_stand_in_the_corpus() -> None:
    # E17 (heartbeats), E18 (sizes) and E20 (properties) are about the server, not about a stream's bytes.
    assert {case.rule for case in CASES} == {f"E{number:02}" for number in range(1, 20)} - {"E17", "E18"}
