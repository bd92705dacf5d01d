"""Every way of losing an event must show in the load generator's report, and nothing else may."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.storm import LOSSES
from tests.benchmarks.conftest import Script, Storm
from tests.benchmarks.scripted_server import HEAD, OK, frame, to_everybody


def losses(report: dict[str, int]) -> dict[str, int]:
    return {name: report[name] for name in LOSSES if report[name]}


def test_a_faithful_server_loses_nothing(storm: Storm, script: Script) -> None:
    report = storm(script(), readers=5, count=20, publishers=3)
    assert losses(report) == {}
    assert (report["accepted"], report["expected"], report["delivered"]) == (20, 100, 100)


def test_one_event_that_one_reader_does_not_get_is_one_missed(storm: Storm, script: Script) -> None:
    server = script(lambda reader, number, event: [] if (reader, number) == (2, 5) else [frame(event)])
    report = storm(server, linger_seconds=1)
    assert losses(report) == {"missed": 1}
    assert (report["expected"], report["delivered"]) == (32, 31)


def test_an_event_that_comes_twice_is_repeated_and_not_delivered_twice(storm: Storm, script: Script) -> None:
    server = script(lambda reader, number, event: [frame(event)] * (2 if (reader, number) == (1, 3) else 1))
    report = storm(server)
    assert losses(report) == {"repeated": 1}
    assert report["delivered"] == 32


def test_events_of_one_publisher_that_change_places_are_disordered(storm: Storm, script: Script) -> None:
    held: list[bytes] = []

    def swap(reader: int, number: int, event: bytes) -> Sequence[bytes]:
        if (reader, number) == (0, 3):
            held.append(frame(event))
            return []
        return [frame(event), *held] if (reader, number) == (0, 4) else [frame(event)]

    assert losses(storm(script(swap))) == {"disordered": 1}


@pytest.mark.parametrize("size", [1, 7, 26, 27, 28, 100])
def test_a_mark_that_is_cut_between_two_reads_is_found(storm: Storm, script: Script, size: int) -> None:
    def cut(_reader: int, _number: int, event: bytes) -> Sequence[bytes]:
        whole = frame(event)
        return [whole[at : at + size] for at in range(0, len(whole), size)]

    report = storm(script(cut), readers=2, count=4)
    assert losses(report) == {}
    assert report["delivered"] == 8


def test_an_event_for_another_filter_is_misrouted(storm: Storm, script: Script) -> None:
    def by_group(reader: int, number: int, event: bytes) -> Sequence[bytes]:
        leak = (reader, number) == (1, 4)
        return [frame(event)] if number % 2 == reader % 2 or leak else []

    report = storm(script(by_group), groups=2, count=10)
    assert losses(report) == {"misrouted": 1}
    assert (report["expected"], report["delivered"]) == (20, 20)


def test_an_event_that_this_run_did_not_publish_is_foreign(storm: Storm, script: Script) -> None:
    stray = frame(b"*0000000000000001.00ffffff*")
    server = script(
        lambda reader, number, event: [frame(event), stray] if (reader, number) == (0, 0) else [frame(event)]
    )
    assert losses(storm(server)) == {"foreign": 1}


def test_a_connection_that_ends_is_counted_and_its_events_are_missed(storm: Storm, script: Script) -> None:
    report = storm(script(hang_up_after=lambda reader: 2 if reader == 3 else None), linger_seconds=1)
    assert losses(report) == {"ended": 1, "missed": 5}


def test_a_refused_reader_is_counted_and_nothing_is_expected_for_it(storm: Storm, script: Script) -> None:
    report = storm(script(refuse=lambda reader: reader == 1))
    assert losses(report) == {"refused": 1}
    assert (report["opened"], report["expected"]) == (3, 24)


def test_a_refused_publish_is_counted_and_not_expected(storm: Storm, script: Script) -> None:
    full = b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n"
    report = storm(script(answer=lambda number: full if number == 2 else OK))
    assert losses(report) == {"refused_events": 1}
    assert (report["accepted"], report["expected"], report["delivered"]) == (7, 28, 28)


def test_a_server_that_delivers_nothing_cannot_make_the_run_last(storm: Storm, script: Script) -> None:
    report = storm(script(lambda *_: []), linger_seconds=0.2)
    assert losses(report) == {"missed": 32}


def test_a_server_that_never_answers_a_publish_cannot_make_the_run_last(storm: Storm, script: Script) -> None:
    report = storm(script(answer=lambda _: b""), publish_seconds=0.2, linger_seconds=0.1, publishers=1)
    assert losses(report) == {"unsent": 8}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n4\r\n1;x=y\r\n2\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: close\r\n\r\n42",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n42",
    ],
    ids=["chunked", "length and close", "until close"],
)
def test_an_answer_to_a_publish_is_understood_however_it_is_framed(storm: Storm, script: Script, answer: bytes) -> None:
    report = storm(script(answer=lambda _: answer), publishers=2)
    assert losses(report) == {}
    assert report["accepted"] == 8


def test_latency_counts_from_the_time_an_event_was_due(storm: Storm, script: Script) -> None:
    # A publisher that waits 50 ms for each answer is late by 50 ms more with every event that is due at once.
    def slowly(_number: int) -> bytes:
        time.sleep(0.05)  # the server's script
        return OK

    report = storm(script(answer=slowly), count=8, rate=8000, publishers=1)
    assert losses(report) == {}
    assert report["latency_max_ms"] > 7 * 50
    assert report["answer_max_ms"] > 7 * 50


def test_one_at_a_time_publishes_the_next_event_when_everybody_has_the_last(storm: Storm, script: Script) -> None:
    lead: list[int] = []
    seen: dict[int, int] = {}

    def note(reader: int, number: int, event: bytes) -> Sequence[bytes]:
        seen[reader] = number
        lead.append(number - min(seen.values()))
        return [frame(event)]

    report = storm(script(note), one_at_a_time=True, gap_seconds=0.001, publishers=2)
    assert losses(report) == {}
    assert max(lead[4:]) <= 1


def test_a_batch_is_one_request_with_an_event_a_line(storm: Storm, script: Script) -> None:
    server = script()
    report = storm(server, batch=3, count=8, prefix='{"data":"', suffix='"}')
    assert losses(report) == {}
    assert [body.count(b"\n") + 1 for body in server.bodies] == [3, 3, 2]
    assert all(
        line.startswith(b'{"data":"*') and line.endswith(b'-"}') for body in server.bodies for line in body.split(b"\n")
    )


def test_an_event_has_the_size_that_was_asked_for(storm: Storm, script: Script) -> None:
    server = script()
    storm(server, bytes=300)
    assert {len(body) for body in server.bodies} == {300}


def test_a_stalled_reader_expects_nothing_and_holds_nothing_up(storm: Storm, script: Script) -> None:
    server = script(lambda reader, _, event: [frame(event)] if reader != 3 else [])
    report = storm(server, stalled=1)
    assert losses(report) == {}
    assert (report["opened"], report["stalled"], report["expected"]) == (4, 1, 24)


def test_unix_sockets_work_for_readers_and_publishers(storm: Storm, script: Script, tmp_path: Path) -> None:
    report = storm(script(path=str(tmp_path / "s")))
    assert losses(report) == {}
    assert report["delivered"] == 32


def test_readers_spread_over_several_source_addresses(storm: Storm, script: Script) -> None:
    server = script()
    assert losses(storm(server, sources=3)) == {}
    assert {connection.getpeername()[0] for connection in server.readers.values()} <= {
        "127.0.0.1",
        "127.0.0.2",
        "127.0.0.3",
    }


def everything(_reader: int, events: list[bytes]) -> Sequence[bytes]:
    # The first event is the one whose id is the cursor.
    return [frame(event) for event in events[1:]]


def test_those_who_return_are_caught_up_when_they_have_all_old_events(storm: Storm, script: Script) -> None:
    server = script(history=everything)
    report = storm(server, readers=6, witnesses=2, replay=50, count=20, rate=100, return_seconds=0.05)
    assert losses(report) == {}
    assert (report["caught_up"], report["expected"]) == (4, 6 * 20 + 4 * 50)
    assert [server.cursors[number] for number in range(6)] == ["", "", "42", "42", "42", "42"]


def test_a_hole_in_a_replay_is_missed(storm: Storm, script: Script) -> None:
    def without_the_tenth(reader: int, events: list[bytes]) -> Sequence[bytes]:
        return [frame(event) for number, event in enumerate(events) if number and (reader, number) != (4, 10)]

    report = storm(
        script(history=without_the_tenth),
        readers=6,
        witnesses=2,
        replay=50,
        count=20,
        rate=100,
        return_seconds=0.05,
        linger_seconds=1,
    )
    assert report["missed"] == 1
    assert report["caught_up"] == 3


def test_a_live_event_before_the_end_of_a_replay_is_disordered(storm: Storm, script: Script) -> None:
    def last_old_event_at_the_end(_reader: int, events: list[bytes]) -> Sequence[bytes]:
        return [frame(event) for event in [*events[1:5], *events[6:], events[5]]]

    report = storm(
        script(history=last_old_event_at_the_end),
        readers=3,
        witnesses=2,
        replay=5,
        count=20,
        rate=100,
        return_seconds=0.1,
    )
    assert report["disordered"] > 0
    assert report["missed"] == 0


def test_the_id_is_found_after_the_text_that_is_named(storm: Storm, script: Script) -> None:
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"ids":["ab-1","cd"]}'
    server = script(history=everything, answer=lambda _: answer)
    storm(server, readers=2, witnesses=1, replay=3, count=2, return_seconds=0, cursor_after='"ids":["')
    assert server.cursors[1] == "ab-1"


def test_the_first_read_may_hold_events_after_the_head(storm: Storm, script: Script) -> None:
    # The head and the replay in one write.
    server = script(history=lambda _reader, events: [b"".join(frame(event) for event in events[1:])])
    report = storm(server, readers=3, witnesses=1, replay=20, count=4, return_seconds=0)
    assert losses(report) == {}
    assert HEAD.startswith(b"HTTP/1.1 200")
    assert report["caught_up"] == 2


def test_holding_measures_time_without_events(storm: Storm, script: Script) -> None:
    report = storm(script(to_everybody), count=0, hold_seconds=0.2)
    assert losses(report) == {}
    assert report["hold_seconds"] >= 0.2
