"""Opening: the head and the first block of every kind of stream, where it starts, and when it will end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import server.opening
from server.channel import Start
from server.endings import AUTH_EXPIRED, MAX_AGE
from server.frames import Encoding
from server.ids import format_id, parse_id
from server.opening import Opener
from tests.server.engine import SMALLEST_BUFFER, Peer, until
from tests.server.house import House, Stream, with_house

# --- the head


@pytest.mark.parametrize(
    ("encoding", "first"), [(Encoding.CHUNKED, "HTTP/1.1 200 OK"), (Encoding.PLAIN, "HTTP/1.0 200 OK")]
)
def test_the_head_is_the_one_of_the_protocol(encoding: Encoding, first: str) -> None:
    async def check(house: House) -> None:
        stream = await house.stream(encoding=encoding)
        assert stream.status == first
        assert stream.headers.pop("Date").endswith("GMT")
        assert ("Transfer-Encoding" in stream.headers) == (encoding is Encoding.CHUNKED)
        stream.headers.pop("Transfer-Encoding", None)
        assert stream.headers == {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store, no-transform",
            "X-Accel-Buffering": "no",
            "Connection": "close",
            "Vary": "Origin, Authorization, Cookie",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }

    with_house(check)


def test_an_allowed_origin_is_named_and_no_other() -> None:
    async def check(house: House) -> None:
        headers = (await house.stream(origin="https://app.example")).headers
        assert headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert headers["Access-Control-Allow-Credentials"] == "true"
        assert headers["Access-Control-Expose-Headers"] == "Mercure-Last-Event-ID, Last-Event-ID, Link"

    with_house(check)


def test_a_cursor_in_any_form_is_answered_with_itself_if_found_else_with_earliest() -> None:
    async def check(house: House) -> None:
        [first, _] = house.publish("1", "2")
        house.publish("3", id="own id")
        for cursor, answer in (
            (first, first),
            ("own id", "own id"),
            ("", "earliest"),
            ("earliest", "earliest"),
            ("never", "earliest"),
            (format_id("zzzzzz", 5), "earliest"),
        ):
            headers = (await house.stream(cursor)).headers
            assert (headers["Last-Event-ID"], headers["Mercure-Last-Event-ID"]) == (answer, answer)

    with_house(check)


def test_the_date_follows_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(house: House) -> None:
        dates = []
        for now in (1e9, 1e9 + 0.9, 1e9 + 1):
            monkeypatch.setattr(server.opening.time, "time", lambda now=now: now)
            dates.append(Stream(house.node.opener.head(house.wanted(), Start(None)) + b"x").headers["Date"])
        assert dates == ["Sun, 09 Sep 2001 01:46:40 GMT"] * 2 + ["Sun, 09 Sep 2001 01:46:41 GMT"]

    with_house(check)


# --- the first block


def test_a_fresh_stream_begins_with_hello_and_the_present() -> None:
    async def check(house: House) -> None:
        [newest] = house.publish("before")
        stream = await house.stream()
        retry, event_id, event, _ = stream.blocks[0].split("\n")
        assert 1000 <= int(retry.removeprefix("retry: ")) <= 5000
        assert event == "event: hello"
        hello = stream.hello
        assert event_id == f"id: {hello['cursor']}"
        assert hello["cursor"] >= newest
        assert len(hello.pop("client_id")) == 16
        assert hello.pop("cursor")
        assert hello == {"channel": "main", "epoch": house.channel.epoch, "complete": True, "heartbeat_seconds": 30}
        assert stream.blocks[1:] == []

    with_house(check)


def test_a_hello_may_have_another_name_and_half_seconds_are_told() -> None:
    async def check(house: House) -> None:
        stream = await house.stream()
        assert "event: welcome\n" in stream.blocks[0]
        assert stream.hello["heartbeat_seconds"] == 0.5

    with_house(check, hello_event="welcome", heartbeat_seconds=0.5)


def test_every_connection_draws_its_own_delay_and_name() -> None:
    async def check(house: House) -> None:
        streams = [await house.stream() for _ in range(50)]
        delays = {int(stream.blocks[0].split("\n")[0].removeprefix("retry: ")) for stream in streams}
        assert len(delays) > 10
        assert min(delays) >= 100
        assert max(delays) <= 200
        assert len({stream.hello["client_id"] for stream in streams}) == 50

    with_house(check, limits={"retry_min_ms": 100, "retry_max_ms": 200})


def test_a_delay_without_a_range_is_that_delay() -> None:
    async def check(house: House) -> None:
        assert (await house.stream()).blocks[0].startswith("retry: 100\n")

    with_house(check, limits={"retry_min_ms": 100, "retry_max_ms": 100})


# --- where it starts


def test_a_stream_with_a_cursor_gets_what_it_missed_and_then_a_cursor_of_the_present() -> None:
    async def check(house: House) -> None:
        ids = house.publish("1", "2", "3")
        stream = await house.stream(ids[0])
        assert (stream.hello["cursor"], stream.hello["complete"]) == (ids[0], True)
        assert stream.blocks[0].split("\n")[1] == f"id: {ids[0]}"
        assert stream.data == ["2", "3"]
        assert stream.blocks[-1].startswith("id: ")
        assert stream.blocks[-1][4:] >= ids[2]
        assert house.node.opener.resumed == 1

    with_house(check)


def test_a_stream_that_missed_nothing_gets_a_cursor_of_the_present_and_is_live() -> None:
    async def check(house: House) -> None:
        ids = house.publish("1", "2")
        peer = house.open(ids[1])
        live = house.publish("3")
        await house.settled()
        stream = Stream(peer.read_all())
        assert stream.hello["complete"] is True
        assert stream.data == ["3"]
        assert parse_id(stream.blocks[1].removeprefix("id: ")) is not None
        assert stream.blocks[1][4:] < live[0]

    with_house(check)


@pytest.mark.parametrize("events", [0, 3])
def test_earliest_is_everything_and_hello_has_no_cursor_meanwhile(events: int) -> None:
    async def check(house: House) -> None:
        house.publish(*map(str, range(events)))
        stream = await house.stream("earliest")
        assert (stream.hello["cursor"], stream.hello["complete"]) == (None, True)
        assert "id: " not in stream.blocks[0]
        assert stream.data == [str(number) for number in range(events)]
        assert stream.blocks[-1].startswith("id: ")

    with_house(check)


def test_the_last_few_come_first() -> None:
    async def check(house: House) -> None:
        house.publish(*map(str, range(5)))
        stream = await house.stream(last=2)
        assert (stream.hello["cursor"], stream.hello["complete"], stream.data) == (None, True, ["3", "4"])

    with_house(check)


def gap_of(stream: Stream) -> dict[str, Any]:
    [block] = [block for block in stream.blocks if block.startswith("event: gap\n")]
    facts = json.loads(block.partition("data: ")[2])
    assert isinstance(facts, dict)
    return facts


@pytest.mark.parametrize(
    ("cursor", "reason", "data"),
    [
        (format_id("zzzzzz", 5), "epoch", ["1", "2"]),
        ("never-there", "unknown", ["1", "2"]),
    ],
)
def test_a_cursor_that_cannot_be_proved_complete_gets_a_gap_before_anything_else(
    cursor: str, reason: str, data: list[str]
) -> None:
    async def check(house: House) -> None:
        first = house.publish("1", "2")[0]
        stream = await house.stream(cursor)
        assert stream.hello["complete"] is False
        assert stream.hello["cursor"] is None
        assert stream.blocks[1].startswith("event: gap\n")
        gap = gap_of(stream)
        assert (gap["reason"], gap["from"]) == (reason, cursor)
        assert gap["to"] < first
        assert stream.data == data

    with_house(check)


def test_a_gap_on_a_stream_without_history_comes_with_the_cursor_of_the_present() -> None:
    async def check(house: House) -> None:
        stream = await house.stream("never-there")
        assert gap_of(stream)["to"] == stream.blocks[-1].removeprefix("id: ")

    with_house(check)


@pytest.mark.parametrize("with_cursor", [False, True])
def test_who_opens_a_stream_behind_a_hole_is_not_told_of_it_and_who_was_there_is(with_cursor: bool) -> None:
    async def check(house: House) -> None:
        [newest] = house.publish("1")
        was_there = house.open()
        await house.settled()
        was_there.read_all()
        house.channel.lose((), "history", house.channel.log.head + 1, house.channel.log.head + 2)
        comes = house.open(newest if with_cursor else None)
        house.publish("2")
        await house.settled()
        stream = Stream(comes.read_all())
        assert stream.hello["complete"] is True
        assert stream.data == ["2"]
        assert b"event: gap" not in stream.body
        assert was_there.read_all().count(b"event: gap") == 1
        assert not house.channel.holes

    with_house(check)


def test_a_cursor_from_the_future_gets_a_gap_and_is_live() -> None:
    async def check(house: House) -> None:
        house.publish("1")
        future = format_id(house.channel.epoch, 16**13 - 1)
        peer = house.open(future)
        house.publish("2")
        await house.settled()
        stream = Stream(peer.read_all())
        assert gap_of(stream)["reason"] == "future"
        assert gap_of(stream)["to"] == stream.blocks[2].removeprefix("id: ")
        assert stream.data == ["2"]

    with_house(check)


@given(st.text(max_size=80) | st.sampled_from(['"', "\\", "</script>", "x" * 65, "a\nid: 1", "\u2028", "{}"]))
def test_whatever_a_client_calls_its_cursor_forges_nothing(cursor: str) -> None:
    async def check(house: House) -> None:
        house.publish("1")
        peer = Peer()
        house.peers.append(peer)
        # The head repeats a cursor only if it was found.
        house.node.opener.open(peer.fd, house.wanted(cursor), Start(None, gap="unknown"))
        assert house.node.opener.incomplete["unknown"] == 1
        stream = Stream(peer.read_all())
        assert gap_of(stream)["from"] in (cursor, None)
        assert [block.split("\n")[0].partition(":")[0] for block in stream.blocks] == ["retry", "event", "id"]

    with_house(check)


# --- the reader


def test_a_reader_is_counted_in_and_out_again() -> None:
    async def check(house: House) -> None:
        node = house.node
        peers = [house.open(subject="shop") for _ in range(3)]
        assert (node.admission.held, node.broadcaster.readers, house.channel.readers, node.opener.opened) == (
            3,
            3,
            3,
            3,
        )
        assert [reader.subject.key for reader in house.readers if reader.subject] == ["shop"] * 3
        for peer in peers:
            peer.close()
        await until(lambda: node.broadcaster.readers == 0)
        assert (node.admission.held, house.channel.readers, node.ended) == (0, 0, {"peer": 3})

    with_house(check)


def test_a_peer_that_left_before_its_stream_began_costs_nothing() -> None:
    async def check(house: House) -> None:
        peer = Peer()
        peer.close()
        house.node.opener.open(peer.fd, house.wanted(), Start(None))
        assert (house.node.admission.held, house.channel.feeds) == (0, {})

    with_house(check)


def test_a_head_that_does_not_fit_is_sent_on_when_there_is_room() -> None:
    async def check(house: House) -> None:
        house.publish("x" * 50_000, "y")
        peer = house.open("earliest", buffer_bytes=SMALLEST_BUFFER)
        live = []

        def all_there() -> bool:
            peer.read(1000)
            if not live and house.node.broadcaster.stalled:
                live.extend(house.publish("z"))
            return live != [] and live[0].encode() in peer.received and peer.received.endswith(b"\n\n\r\n")

        await until(all_there)
        assert Stream(peer.received).data == ["x" * 50_000, "y", "z"]

    with_house(check)


@pytest.mark.parametrize(
    ("max_age", "expires", "deadline", "ending"),
    [
        (100.0, None, (80.0, 100.0), MAX_AGE),
        (100.0, 10.0, (10.0, 10.0), AUTH_EXPIRED),
        (100.0, 1000.0, (80.0, 100.0), MAX_AGE),
        (0.0, 1000.0, (1000.0, 1000.0), AUTH_EXPIRED),
        (100.0, -5.0, (0.0, 0.0), AUTH_EXPIRED),
    ],
)
def test_a_reader_ends_by_its_age_or_its_token_whichever_comes_first(
    max_age: float,
    expires: float | None,
    deadline: tuple[float, float],
    ending: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def check(house: House) -> None:
        monkeypatch.setattr(server.opening.time, "time", lambda: 5000.0)
        for _ in range(20):
            house.open(expires=None if expires is None else 5000.0 + expires)
        for reader in house.readers:
            low, high = deadline
            assert low - 1e-6 <= reader.deadline - reader.opened <= high + 1e-6
            assert reader.ending is ending

    with_house(check, max_age_seconds=max_age)


def test_without_an_age_and_a_token_a_stream_has_no_end() -> None:
    async def check(house: House) -> None:
        house.open()
        assert [(reader.deadline, reader.ending) for reader in house.readers] == [(0.0, None)]

    with_house(check, max_age_seconds=0.0)


@pytest.mark.parametrize("part", ["_first_block", "head"])
def test_an_opening_that_fails_closes_the_socket_once_and_leaves_nothing(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(house: House) -> None:
        def defective(*_: object) -> None:
            raise RuntimeError("a defect")

        monkeypatch.setattr(Opener, part, defective)
        with pytest.raises(RuntimeError):
            house.open()
        [peer] = house.peers
        peer.read_all()
        assert peer.ended
        assert (house.readers, house.node.admission.held, house.channel.readers) == ([], 0, 0)

    with_house(check)
