"""The cursor table of docs/protocol.md, row by row, on both endpoints and by both ways in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from tests.harness.process import Node
from tests.harness.stream import Block, Stream
from tests.http.endpoint import FORM, Endpoint, facts, hello_of, open_stream
from tests.wire.parser import StrictParser, parse_strictly

RETAINED = 10
both_ways = pytest.mark.parametrize("way", ["first", "later"])


@pytest.fixture(scope="module")
def short_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server that keeps little."""
    server = Node(tmp_path_factory.mktemp("short"), ring_events=RETAINED).start()
    yield server
    server.kill()


def open_at(node: Node, endpoint: Endpoint, topic: str, cursor: str | None, way: str = "first") -> Stream:
    return open_stream(node, endpoint.path(topic), way, Last_Event_ID=cursor)


def gap_of(stream: Stream) -> dict[str, str | None]:
    """The facts of the `gap` that must come next."""
    block = stream.next_event()
    assert block.type == "gap", block
    assert block.id is None
    found = facts(block)
    assert sorted(found) == ["from", "reason", "to"]
    return found


def data_of(blocks: list[Block]) -> list[str | None]:
    return [block.data for block in blocks]


def assert_live(stream: Stream, node: Node, endpoint: Endpoint, topic: str) -> None:
    """What is published now is the next event."""
    [event_id] = endpoint.publish(node, topic, "live")
    [block] = stream.events(1)
    assert (block.data, block.id) == ("live", event_id)


def assert_not_found(stream: Stream) -> None:
    """The head and hello of a stream whose cursor was not found."""
    assert stream.status == 200
    assert stream.headers["mercure-last-event-id"] == stream.headers["last-event-id"] == "earliest"
    block = stream.next_event()
    assert block.type == "hello"
    assert block.id is None
    assert (facts(block)["complete"], facts(block)["cursor"]) == (False, None)


def next_cursor_block(stream: Stream) -> str:
    """The id of the next block, which must be a lone id."""
    block = stream.next_block()
    assert block is not None
    fields = [field for field in block.fields if field != ("", "")]
    assert [name for name, _ in fields] == ["id"], block
    return fields[0][1]


@both_ways
@pytest.mark.parametrize("cursor", [None, ""])
def test_no_cursor_starts_live(shared_node: Node, endpoint: Endpoint, topic: str, cursor: str | None, way: str) -> None:
    """H12: none, or an empty header."""
    endpoint.publish(shared_node, topic, "before")
    with open_at(shared_node, endpoint, topic, cursor, way) as stream:
        assert ("mercure-last-event-id" in stream.headers) == ("last-event-id" in stream.headers)
        if cursor is None:
            assert "last-event-id" not in stream.headers
        hello = hello_of(stream)
        assert hello["complete"] is True
        assert_live(stream, shared_node, endpoint, topic)


@both_ways
def test_hellos_own_cursor_loses_and_repeats_nothing(
    shared_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """H12: the id of a fresh stream's hello is a cursor like any other."""
    endpoint.publish(shared_node, topic, "before")
    with open_at(shared_node, endpoint, topic, None, way) as stream:
        cursor = hello_of(stream)["cursor"]
    endpoint.publish(shared_node, topic, "between", "and again")
    with open_at(shared_node, endpoint, topic, cursor, way) as stream:
        assert hello_of(stream)["complete"] is True
        assert data_of(stream.events(2)) == ["between", "and again"]
        assert_live(stream, shared_node, endpoint, topic)


@both_ways
def test_earliest_gives_all_that_is_retained(shared_node: Node, endpoint: Endpoint, topic: str, way: str) -> None:
    """H12."""
    ids = endpoint.publish(shared_node, topic, "a", "b")
    with open_at(shared_node, endpoint, topic, "earliest", way) as stream:
        assert stream.headers["mercure-last-event-id"] == stream.headers["last-event-id"] == "earliest"
        block = stream.next_event()
        assert (block.type, block.id, facts(block)["cursor"]) == ("hello", None, None)
        assert [found.id for found in stream.events(2)] == ids
        assert next_cursor_block(stream) >= ids[-1]
        assert_live(stream, shared_node, endpoint, topic)


@both_ways
def test_an_id_within_retention_gives_everything_after_it(
    shared_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """H12: complete, and the client's own cursor comes back in head and hello."""
    ids = endpoint.publish(shared_node, topic, "a", "b", "c")
    with open_at(shared_node, endpoint, topic, ids[0], way) as stream:
        assert stream.headers["mercure-last-event-id"] == stream.headers["last-event-id"] == ids[0]
        block = stream.next_event()
        assert (block.type, block.id) == ("hello", ids[0])
        assert (facts(block)["complete"], facts(block)["cursor"]) == (True, ids[0])
        assert [found.id for found in stream.events(2)] == ids[1:]
        assert_live(stream, shared_node, endpoint, topic)


@both_ways
def test_the_newest_id_gives_nothing_old(shared_node: Node, endpoint: Endpoint, topic: str, way: str) -> None:
    """H12: nothing after it yet, and it is no gap."""
    ids = endpoint.publish(shared_node, topic, "a")
    with open_at(shared_node, endpoint, topic, ids[-1], way) as stream:
        assert hello_of(stream)["complete"] is True
        assert_live(stream, shared_node, endpoint, topic)


@both_ways
def test_the_id_of_another_topics_event_is_a_cursor_too(
    shared_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """H12: order is the channel's, not the topic's."""
    [cursor] = endpoint.publish(shared_node, topic + "-other", "x")
    endpoint.publish(shared_node, topic, "a")
    with open_at(shared_node, endpoint, topic, cursor, way) as stream:
        assert hello_of(stream)["complete"] is True
        assert data_of(stream.events(1)) == ["a"]


@both_ways
def test_an_id_older_than_what_is_retained_is_a_gap(short_node: Node, endpoint: Endpoint, topic: str, way: str) -> None:
    """H12: reason `history`, then what is left, then live."""
    ids = endpoint.publish(short_node, topic, *map(str, range(3 * RETAINED)))
    with open_at(short_node, endpoint, topic, ids[3], way) as stream:
        assert_not_found(stream)
        gap = gap_of(stream)
        assert (gap["reason"], gap["from"]) == ("history", ids[3])
        replayed = [block.id for block in stream.events(RETAINED)]
        assert replayed == ids[-RETAINED:]
        assert gap["to"] is None or ids[3] < str(gap["to"]) <= ids[-RETAINED]
        assert next_cursor_block(stream) >= ids[-1]
        assert_live(stream, short_node, endpoint, topic)


@both_ways
def test_an_id_of_another_epoch_is_a_gap(shared_node: Node, endpoint: Endpoint, topic: str, way: str) -> None:
    """H12: reason `epoch`, whatever its position."""
    ids = endpoint.publish(shared_node, topic, "a", "b")
    position = ids[0].split("-")[1]
    foreign = "aaaaaa" if not ids[0].startswith("aaaaaa") else "bbbbbb"
    with open_at(shared_node, endpoint, topic, f"{foreign}-{position}", way) as stream:
        assert_not_found(stream)
        assert gap_of(stream)["reason"] == "epoch"
        assert [block.id for block in stream.events(2)] == ids
        assert next_cursor_block(stream) >= ids[-1]
        assert_live(stream, shared_node, endpoint, topic)


@both_ways
@pytest.mark.parametrize("ahead", [60, 10**9, 16**13])
def test_an_id_ahead_of_the_log_is_a_gap_and_live_goes_on(
    shared_node: Node, endpoint: Endpoint, topic: str, ahead: int, way: str
) -> None:
    """H12: reason `future`; a cursor ahead must not become a bound that holds back what comes."""
    [event_id] = endpoint.publish(shared_node, topic, "a")
    epoch, position = event_id.split("-")
    cursor = f"{epoch}-{min(int(position, 16) + ahead * 1_000_000, 16**13 - 1):013x}"
    with open_at(shared_node, endpoint, topic, cursor, way) as stream:
        assert_not_found(stream)
        assert gap_of(stream)["reason"] == "future"
        assert next_cursor_block(stream) < cursor
        assert_live(stream, shared_node, endpoint, topic)


@both_ways
def test_a_publishers_own_id_resumes_after_its_earliest_occurrence(
    shared_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """H12: the later twin is replayed."""
    own = f"own/{topic}"
    assert endpoint.publish(shared_node, topic, "a", id=own) == [own]
    endpoint.publish(shared_node, topic, "b")
    endpoint.publish(shared_node, topic, "c", id=own)
    with open_at(shared_node, endpoint, topic, own, way) as stream:
        assert stream.headers["mercure-last-event-id"] == stream.headers["last-event-id"] == own
        assert hello_of(stream)["complete"] is True
        assert data_of(stream.events(2)) == ["b", "c"]
        assert_live(stream, shared_node, endpoint, topic)


@both_ways
@pytest.mark.parametrize("own", ["ünï-☃", "a b", "a:b{c}", "x" * 256])
def test_any_id_that_a_publisher_may_bring_is_a_cursor(
    shared_node: Node, endpoint: Endpoint, topic: str, own: str, way: str
) -> None:
    """H11: the header's bytes are the id's in UTF-8, whatever a library takes them for."""
    own = f"{own}{topic}"[-256:].encode()[-256:].decode(errors="ignore")
    endpoint.publish(shared_node, topic, "a", id=own)
    endpoint.publish(shared_node, topic, "b")
    cursor = own.encode().decode("latin-1")
    with open_at(shared_node, endpoint, topic, cursor, way) as stream:
        assert stream.headers["mercure-last-event-id"] == cursor
        assert hello_of(stream)["complete"] is True
        assert data_of(stream.events(1)) == ["b"]


@pytest.mark.parametrize("own", [" a", "a ", "\u3000a", "a\u00a0"])
def test_an_id_whose_edges_a_header_would_lose_is_refused_or_resumes(
    shared_node: Node, endpoint: Endpoint, topic: str, own: str
) -> None:
    """H11, H12: a header's value is trimmed on its way, so such an id would never be found again."""
    fields = {"topic": topic, "data": "a", "id": f"{own[0]}{topic}{own[-1]}"}
    body = urlencode(fields) if endpoint.channel == "main" else json.dumps(fields)
    kind = FORM if endpoint.channel == "main" else "application/json"
    status, _, _ = shared_node.request("POST", endpoint.stream_path, body, Content_Type=kind)
    if status == 200:
        with open_at(shared_node, endpoint, topic, fields["id"].encode().decode("latin-1")) as stream:
            assert hello_of(stream)["complete"] is True
    else:
        assert status == 400


@both_ways
def test_a_cut_at_any_byte_and_a_resume_give_every_event_once(
    shared_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """E11, E12: for every place where a connection may break, the cursor that the client has then brings the rest."""
    with open_stream(shared_node, endpoint.path(topic)) as stream:
        ids = endpoint.publish(shared_node, topic, "a\nb", "", "c\n")
        stream.events(3)
        wire = stream.raw
    places = {place_of(parse_strictly(wire[:cut])) for cut in range(len(wire) + 1)}
    assert len(places) == 5  # before hello, after it, after each event
    for cursor, seen in places:
        with open_at(shared_node, endpoint, topic, cursor or "earliest", way) as stream:
            hello_of(stream)
            assert [*seen, *(block.id for block in stream.events(3 - len(seen)))] == ids


def place_of(parser: StrictParser) -> tuple[str, tuple[str, ...]]:
    """A client's cursor and the ids of what it was given."""
    events = tuple(event.last_event_id for event in parser.events if event.type != "hello")
    return parser.last_event_id, events


GARBAGE = [
    "garbage",
    "0",
    "-1",
    "18446744073709551616",
    "99999999999999999999999999",
    "k3x9q1-",
    "k3x9q1-6440F3A1B2C3D",
    "k3x9q1-6440f3a1b2c3d0",
    "K3X9Q1-6440f3a1b2c3d",
    "a:5",
    '{"a": [1]}',
    "' OR 1=1 --",
    "../../etc/passwd",
    "%00%0d%0a",
    "\xe9\xff\x80",
    "\xe2\x98\x83",
    "a\tb",
    "x" * 4096,
]


@both_ways
@pytest.mark.parametrize("cursor", GARBAGE, ids=range(len(GARBAGE)))
def test_any_other_cursor_is_a_gap_of_its_own_kind(
    shared_node: Node, endpoint: Endpoint, topic: str, cursor: str, way: str
) -> None:
    """H11, H12: any bytes, any length: reason `unknown`, then all that is retained, then live; nothing hangs."""
    ids = endpoint.publish(shared_node, topic, "a", "b")
    with open_at(shared_node, endpoint, topic, cursor, way) as stream:
        assert_not_found(stream)
        assert gap_of(stream)["reason"] == "unknown"
        assert [block.id for block in stream.events(2)] == ids
        assert next_cursor_block(stream) >= ids[-1]
        assert_live(stream, shared_node, endpoint, topic)


@both_ways
def test_an_id_of_another_channel_is_never_taken_for_this_ones(
    shared_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """H12: each channel has a log of its own."""
    other = Endpoint("other")
    [foreign] = other.publish(shared_node, topic, "elsewhere")
    ids = endpoint.publish(shared_node, topic, "a")
    with open_at(shared_node, endpoint, topic, foreign, way) as stream:
        assert_not_found(stream)
        assert gap_of(stream)["reason"] == "epoch"
        assert [block.id for block in stream.events(1)] == ids


@both_ways
def test_a_cursor_that_comes_twice_has_an_answer(shared_node: Node, endpoint: Endpoint, topic: str, way: str) -> None:
    """H12: a refusal, a declared gap, or a resume from one of the two; never a hang or a silent hole."""
    ids = endpoint.publish(shared_node, topic, "a", "b", "c")
    double = f"{ids[1]}\r\nLast-Event-ID: {ids[0]}"
    with open_at(shared_node, endpoint, topic, double, way) as stream:
        assert stream.status in (200, 400)
        if stream.status == 200:
            start = facts(stream.next_event())["cursor"]
            if start is None:
                gap_of(stream)
            events = stream.events(3 if start is None else 2 - ids.index(start))
            assert [block.id for block in events] == (ids if start is None else ids[ids.index(start) + 1 :])


@both_ways
def test_a_cursor_in_the_query_works_under_every_name(
    shared_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """H13: first connections of native clients and polyfills have no header."""
    ids = endpoint.publish(shared_node, topic, "a", "b")
    for name in ("last_event_id", "lastEventID", "lastEventId", "Last-Event-ID"):
        with open_stream(shared_node, endpoint.path(topic, **{name: ids[0]}), way) as stream:
            assert stream.headers["mercure-last-event-id"] == stream.headers["last-event-id"] == ids[0]
            assert hello_of(stream)["complete"] is True
            assert [block.id for block in stream.events(1)] == ids[1:]


@both_ways
def test_the_header_wins_over_the_query_and_an_empty_one_falls_through(
    shared_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """H13: a reconnecting client's header is newer than the address it was given."""
    ids = endpoint.publish(shared_node, topic, "a", "b", "c")
    path = endpoint.path(topic, last_event_id=ids[0])
    for header, expected in ((ids[1], ids[2:]), ("", ids[1:]), (None, ids[1:])):
        with open_stream(shared_node, path, way, Last_Event_ID=header) as stream:
            hello_of(stream)
            assert [block.id for block in stream.events(len(expected))] == expected


def test_the_names_in_the_query_have_an_order(shared_node: Node, endpoint: Endpoint, topic: str) -> None:
    """H13: an old library that sends two names for one thing gets one answer."""
    ids = endpoint.publish(shared_node, topic, "a", "b", "c", "d")
    names = ["last_event_id", "lastEventID", "lastEventId", "Last-Event-ID"]
    for position in range(len(names)):
        # In reverse, so that the order in the address is not what decides.
        given = dict(reversed(list(zip(names[position:], ids, strict=False))))
        with open_stream(shared_node, endpoint.path(topic, **given)) as stream:
            assert hello_of(stream)["cursor"] == ids[0]


@both_ways
def test_a_cursor_wins_over_last(shared_node: Node, topic: str, way: str) -> None:
    """H13: `last=N` is for the first connection; a reconnect with the same address brings a cursor."""
    endpoint = Endpoint("wire")
    ids = endpoint.publish(shared_node, topic, "a", "b", "c")
    path = endpoint.path(topic, last="1")
    with open_stream(shared_node, path, way) as stream:
        assert hello_of(stream)["cursor"] is None
        assert [block.id for block in stream.events(1)] == ids[2:]
        assert next_cursor_block(stream) >= ids[-1]
        assert_live(stream, shared_node, endpoint, topic)
    with open_stream(shared_node, path, way, Last_Event_ID=ids[0]) as stream:
        assert hello_of(stream)["complete"] is True
        assert [block.id for block in stream.events(2)] == ids[1:]


def test_every_id_of_ours_is_safe_in_a_header(shared_node: Node, endpoint: Endpoint, topic: str) -> None:
    """X03: no preflight for an id, and one byte per character."""
    safe = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-")
    for event_id in endpoint.publish(shared_node, topic, "a", "b"):
        assert set(event_id) <= safe
        assert len(event_id) <= 64
