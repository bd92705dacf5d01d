"""Heartbeats: what they are, that they come in time, and that they never stand inside an event."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import select
import threading
import time
from collections.abc import Iterator

import pytest

from tests.conftest import StartNode
from tests.harness.process import Node, wait_until
from tests.harness.stream import Stream
from tests.http.endpoint import Endpoint, facts, hello_of, open_stream
from tests.wire.parser import StrictParser

BEAT_SECONDS = 0.5
STYLES = {"silent": "comment", "spoken": "event", "moving": "cursor"}
both_ways = pytest.mark.parametrize("way", ["first", "later"])


@pytest.fixture(scope="module")
def beating_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server with a channel for each style; elsewhere the style is the default."""
    channels = json.dumps({name: {"heartbeat_style": style} for name, style in STYLES.items()})
    server = Node(tmp_path_factory.mktemp("beating"), heartbeat_seconds=BEAT_SECONDS, channels=channels).start()
    yield server
    server.kill()


def bytes_after_hello(stream: Stream, count: int) -> list[bytes]:
    """The next `count` pieces of the body, as they came."""
    hello_of(stream)
    return [stream.next_piece() for _ in range(count)]


@both_ways
@pytest.mark.parametrize(
    ("channel", "form"),
    [
        ("silent", rb":\n"),
        ("spoken", rb"event: heartbeat\ndata: \{\"ts\": ?[0-9.]+\}\n\n"),
        ("moving", rb":\nid: [0-9a-z]{6}-[0-9a-f]{13}\n\n"),
        ("wire", rb":\nid: [0-9a-z]{6}-[0-9a-f]{13}\n\n"),
        ("main", rb":\nid: [0-9a-z]{6}-[0-9a-f]{13}\n\n"),
    ],
)
def test_a_heartbeat_is_exactly_its_channels_style(beating_node: Node, channel: str, form: bytes, way: str) -> None:
    """E06, E14: `comment`, `event` with the time, or `cursor`, which is the default."""
    with open_stream(beating_node, Endpoint(channel).path("a"), way) as stream:
        for piece in bytes_after_hello(stream, 2):
            assert re.fullmatch(form, piece), piece


def test_a_spoken_heartbeat_tells_the_time(beating_node: Node) -> None:
    """E14: in seconds since 1970."""
    with open_stream(beating_node, Endpoint("spoken").path("a")) as stream:
        hello_of(stream)
        assert abs(facts(stream.next_event())["ts"] - time.time()) < 5


@both_ways
def test_a_cursor_heartbeat_moves_past_what_was_not_selected(beating_node: Node, topic: str, way: str) -> None:
    """E06: so a quiet filter's long silence is no gap on reconnect, and nothing is read twice."""
    endpoint = Endpoint("moving")
    with open_stream(beating_node, endpoint.path(topic), way) as stream:
        hello_of(stream)
        ids = endpoint.publish(beating_node, topic + "-other", "x", "y")
        while (block := stream.next_block()) is not None and (block.id or "") < ids[-1]:
            assert block.data is None
        assert block is not None
        cursor = block.id
    with open_stream(beating_node, endpoint.path(topic), way, Last_Event_ID=cursor) as stream:
        assert hello_of(stream)["complete"] is True
        [event_id] = endpoint.publish(beating_node, topic, "a")
        assert stream.events(1)[0].id == event_id


def test_no_silence_is_longer_than_the_interval(node: StartNode) -> None:
    """H17: bytes flow at least every interval, and a fifth of it for a busy machine, in every style and way in. The
    best of three: the machine may stand still for a moment.
    """
    channels = json.dumps({name: {"heartbeat_style": style} for name, style in STYLES.items()})
    server = node(heartbeat_seconds=1, channels=channels)
    tries: list[list[list[float]]] = []
    while not (tries and all(map(in_time, tries[-1]))):
        assert len(tries) < 3, tries
        tries.append(silences(server))


def silences(server: Node) -> list[list[float]]:
    """The times between two pieces, of streams of every style and way in."""
    with contextlib.ExitStack() as opened:
        ways = [(name, way) for name in STYLES for way in ("first", "later")]
        streams = [opened.enter_context(open_stream(server, Endpoint(name).path("a"), way)) for name, way in ways]
        moments = moments_of_pieces(streams, 5)
    return [[later - earlier for earlier, later in itertools.pairwise(times)] for times in moments]


def in_time(gaps: list[float]) -> bool:
    """Not more often than promised either: the first may be early because readers are spread over the interval."""
    return max(gaps) <= 1.2 and min(gaps[1:]) >= 0.5


def moments_of_pieces(streams: list[Stream], count: int) -> list[list[float]]:
    """When each stream's first `count` pieces came, its hello among them."""
    moments: list[list[float]] = [[] for _ in streams]
    for stream, times in zip(streams, moments, strict=True):
        hello_of(stream)
        times.append(time.monotonic())
    while min(map(len, moments)) < count:
        readable, _, _ = select.select([stream.socket for stream in streams], [], [], 5)
        assert readable
        for stream, times in zip(streams, moments, strict=True):
            if stream.socket in readable:
                assert stream.next_piece()
                times.append(time.monotonic())
    return moments


def test_readers_that_came_together_do_not_all_beat_at_once(beating_node: Node) -> None:
    """H17: beats are spread over the interval, so they are no burst. The best of three: after a moment in which the
    machine stood still what was due goes out at once.
    """
    best = max(seconds_between_beats(beating_node) for _ in range(3))
    assert best > BEAT_SECONDS / 8


def seconds_between_beats(beating_node: Node) -> float:
    """From the first to the last first beat of readers that came together."""
    streams = [open_stream(beating_node, Endpoint("silent").path("a")) for _ in range(16)]
    for stream in streams:
        hello_of(stream)
    moments: list[float] = []

    def first_beat(stream: Stream) -> None:
        stream.next_piece()
        moments.append(time.monotonic())

    threads = [threading.Thread(target=first_beat, args=[stream]) for stream in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    for stream in streams:
        stream.close()
    assert len(moments) == len(streams)
    return max(moments) - min(moments)


@pytest.fixture(scope="module")
def hectic_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server that beats every ten milliseconds, in each style, and lets readers be far behind."""
    channels = json.dumps({name: {"heartbeat_style": style} for name, style in STYLES.items()})
    folder = tmp_path_factory.mktemp("hectic")
    server = Node(folder, heartbeat_seconds=0.01, channels=channels, lag_events=100_000, lag_bytes=100_000_000).start()
    yield server
    server.kill()


@pytest.mark.parametrize("channel", STYLES)
def test_a_heartbeat_never_stands_inside_an_event(hectic_node: Node, channel: str) -> None:
    """E17: thousands of events at once beside a beat every ten milliseconds; none is lost, doubled or split."""
    endpoint = Endpoint(channel)
    count, batches = 1000, 10
    streams = [open_stream(hectic_node, endpoint.path("a"), way) for way in ("first", "later")]
    parsers = [StrictParser() for _ in streams]

    beats = [0 for _ in streams]

    def read(number: int) -> None:
        seen = 0
        while seen < count * batches and (piece := streams[number].next_piece()):
            messages = sum(event.type == "message" for event in parsers[number].feed(piece))
            seen += messages
            beats[number] += not messages

    def silence() -> None:
        """For some beats, on each stream."""
        goal = max(beats) + 2
        wait_until(lambda: min(beats) >= goal)

    for stream in streams:
        hello_of(stream)
    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(streams))]
    for thread in threads:
        thread.start()
    for batch in range(batches):
        silence()
        lines = "\n".join(json.dumps({"topic": "a", "data": f"{batch}.{number}\nmore"}) for number in range(count))
        assert hectic_node.request("POST", endpoint.stream_path, lines, Content_Type="application/x-ndjson")[0] == 200
    expected = [f"{batch}.{number}\nmore" for batch in range(batches) for number in range(count)]
    for thread, stream, parser in zip(threads, streams, parsers, strict=True):
        thread.join(20)
        stream.close()
        assert [event.data for event in parser.events if event.type == "message"] == expected
