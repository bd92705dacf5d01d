"""How streams end, and what a client can count on when they do."""

from __future__ import annotations

import json
import signal
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests.conftest import StartNode
from tests.harness.process import Node, wait_until
from tests.harness.stream import Block, Stream, request_bytes
from tests.http.endpoint import ENDPOINTS, Endpoint, connections, facts, hello_of, open_stream, used_connection
from tests.http.test_refusals import token
from tests.wire.parser import StrictParser

both_ways = pytest.mark.parametrize("way", ["first", "later"])


def farewell(stream: Stream, seconds: float = 10) -> Block:
    """The last block of a stream that ends as it should."""
    blocks = stream.wait_end(seconds)
    assert stream.clean_end
    parser = StrictParser()
    parser.feed(stream.raw)
    parser.end()
    return blocks[-1]


def assert_farewell(block: Block, code: str, *, reconnect: bool) -> None:
    assert block.type == code
    assert block.id is None
    assert (facts(block)["code"], facts(block)["reconnect"]) == (code, reconnect)
    assert (block.get("retry") is not None) == reconnect


LIMITS = {"max_age": {"max_age_seconds": 0.5}, "idle": {"idle_seconds": 0.5}}


@pytest.fixture(scope="module", params=LIMITS)
def hasty_node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, str]]:
    """A server that ends streams soon, and the code by which it does."""
    server = Node(tmp_path_factory.mktemp("hasty"), **LIMITS[request.param]).start()
    yield server, request.param
    server.kill()


@pytest.mark.parametrize("how", ["first", "later", "1.0"])
def test_a_stream_that_ran_its_time_says_so_and_ends_whole(
    hasty_node: tuple[Node, str], endpoint: Endpoint, how: str
) -> None:
    """H06: a clean end, which native clients answer with a reconnect after `retry`."""
    server, code = hasty_node
    path = endpoint.path("a")
    with Stream(server.port, path, version="1.0") if how == "1.0" else open_stream(server, path, how) as stream:
        hello_of(stream)
        assert_farewell(farewell(stream), code, reconnect=True)
        assert stream.socket.recv(1) == b""


@both_ways
def test_the_end_of_a_tokens_life_ends_the_stream_and_401_meets_the_reconnect(
    keyed_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """H04: the event comes before the end, so a client can fetch a new token."""
    headers = {"Authorization": f"Bearer {token(seconds=3, subscribe=['*'])}"}
    start = time.monotonic()
    with open_stream(keyed_node, endpoint.path(topic), way, **headers) as stream:
        hello_of(stream)
        assert_farewell(farewell(stream), "auth_expired", reconnect=False)
    assert time.monotonic() - start < 3 + 1 + 1
    with open_stream(keyed_node, endpoint.path(topic), way, **headers) as answer:
        assert answer.status == 401


def test_a_drain_sends_every_reader_a_farewell_with_a_delay_of_its_own(node: StartNode) -> None:
    """H06: spread, whole, and exit code 0."""
    server = node(drain_seconds=0.5)
    streams = [open_stream(server, endpoint.path("a"), way) for endpoint in ENDPOINTS for way in ("first", "later") * 2]
    for stream in streams:
        hello_of(stream)
    assert server.stop() == 0
    delays = set()
    for stream in streams:
        block = farewell(stream)
        assert_farewell(block, "draining", reconnect=True)
        delays.add(block.get("retry"))
        stream.close()
    assert len(delays) > 1


@both_ways
@pytest.mark.parametrize("how", ["fin", "reset", "surplus", "half-closed"])
def test_a_client_that_goes_is_forgotten(shared_node: Node, how: str, way: str) -> None:
    """H06: by FIN, by RST, by a byte too many (after which it is no EventSource)."""
    endpoint = Endpoint(f"{how}-{way}")
    stream = open_stream(shared_node, endpoint.path("a"), way)
    hello_of(stream)
    wait_until(lambda: connections(shared_node, endpoint.channel) == 1, what="one reader")
    if how == "reset":
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif how == "surplus":
        stream.socket.sendall(b"x")
    elif how == "half-closed":
        stream.socket.shutdown(socket.SHUT_WR)
    if how in ("fin", "reset"):
        stream.close()
    wait_until(lambda: connections(shared_node, endpoint.channel) == 0, 10, "no reader")
    stream.close()


@both_ways
def test_bytes_after_the_request_end_the_stream(shared_node: Node, endpoint: Endpoint, topic: str, way: str) -> None:
    """H15: nothing that follows is answered on this connection."""
    with open_stream(shared_node, endpoint.path(topic), way) as stream:
        hello_of(stream)
        stream.socket.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        while stream.next_block() is not None:
            pass
        assert b"HTTP/1." not in stream.raw + stream.received


def test_an_id_line_without_its_blank_line_is_never_the_last_thing_sent(node: StartNode) -> None:
    """E11, E12, E17: kill -9 amid a burst; what a client holds is a prefix, and its cursor belongs to it."""
    server = node()
    endpoint = Endpoint("wire")
    with open_stream(server, endpoint.path("a")) as stream:
        hello_of(stream)
        lines = "\n".join(json.dumps({"topic": "a", "data": f"{number}\n{number}"}) for number in range(2000))
        assert server.request("POST", endpoint.stream_path, lines, Content_Type="application/x-ndjson")[0] == 200
        server.kill()
        while stream.next_piece():
            pass
        parser = StrictParser()
        parser.feed(stream.raw)
        events = parser.events[1:]
        assert [event.data for event in events] == [f"{number}\n{number}" for number in range(len(events))]
        assert not events or parser.last_event_id == events[-1].last_event_id


LARGE = "x" * 300_000


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("relay", ["memory:", "sqlite:log.db"])
def test_a_publish_that_has_begun_when_the_node_is_told_to_stop_is_answered(
    node: StartNode, relay: str, framing: str
) -> None:
    """A body that the HTTP server takes in, of which half has come: it is published, and one that begins later is
    told that the node is going.
    """
    server = node(relay=relay, drain_seconds=0)
    body = json.dumps({"topic": "a", "data": LARGE}).encode()
    size = {"Content_Length": str(len(body))} if framing == "length" else {"Transfer_Encoding": "chunked"}
    head = request_bytes(
        "/channels/main/events", method="POST", Host="localhost", Content_Type="application/json", **size
    )
    body = body if framing == "length" else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    with used_connection(server) as connection, used_connection(server) as late:
        connection.sendall(head + body[:100_000])
        assert server.process is not None
        server.get("/health")  # a few turns of the loop: it has begun
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: published(late) == 503, 4, "no more publishes")
        connection.sendall(body[100_000:])
        answer = Stream(0, "", connection=connection, request=b"")
        assert answer.status == 200
        event_id = json.loads(answer.body())["ids"][0]
        assert server.process.wait(10) == 0
    assert "requests_cut" not in server.log()
    if relay != "memory:":
        server.start()
        with open_stream(server, "/channels/main/events?last=1") as stream:
            assert [(block.id, block.data) for block in stream.events(1)] == [(event_id, LARGE)]


def published(connection: socket.socket) -> int:
    """The status of a small publish."""
    named = {"Host": "localhost", "Content_Type": "application/json", "Content_Length": "2"}
    connection.sendall(request_bytes("/channels/main/events", method="POST", **named) + b"{}")
    answer = Stream(0, "", connection=connection, request=b"")
    answer.body()
    return answer.status
