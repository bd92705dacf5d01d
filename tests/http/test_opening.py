"""How a stream opens: status, headers, first bytes, whichever way the request came."""

from __future__ import annotations

import re
import select
import socket
import time

import pytest

from tests.harness.process import Node
from tests.harness.stream import Stream, request_bytes
from tests.http.endpoint import HUB, WAYS, Endpoint, facts, hello_of, open_stream
from tests.wire.parser import StrictParser

ID = re.compile(r"[0-9a-z]{6}-[0-9a-f]{13}", re.ASCII)


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_opens_with_the_headers_that_keep_it_flowing(
    shared_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """H02, H09, H15: nothing cached, transformed, buffered or measured, and no reuse of the connection."""
    with open_stream(shared_node, endpoint.path(topic), way) as stream:
        assert stream.head.startswith(b"HTTP/1.1 200 ")
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["connection"].lower() == "close"
        assert stream.headers["vary"] == "Origin, Authorization, Cookie"
        assert stream.headers["transfer-encoding"] == "chunked"
        assert not {"content-length", "content-encoding", "etag", "set-cookie", "location"} & stream.headers.keys()


@pytest.mark.parametrize("way", WAYS[1:])
def test_every_way_in_gives_the_same_head_and_the_same_hello(
    shared_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """H09: a later request on a kept-alive connection, or one that trickles in, differs in nothing but the moment."""
    with (
        open_stream(shared_node, endpoint.path(topic)) as first,
        open_stream(shared_node, endpoint.path(topic), way) as other,
    ):
        heads = [
            sorted(line for line in stream.head.split(b"\r\n") if not line.startswith(b"Date:"))
            for stream in (first, other)
        ]
        assert heads[0] == heads[1]
        hellos = [hello_of(first), hello_of(other)]
        assert hellos[0].pop("client_id") != hellos[1].pop("client_id")
        for hello in hellos:
            assert ID.fullmatch(hello.pop("cursor"))
        assert hellos[0] == hellos[1]
        endpoint.publish(shared_node, topic, "a")
        assert first.next_event() == other.next_event()


@pytest.mark.parametrize("way", WAYS)
def test_the_first_block_tells_all_that_recovery_needs(
    shared_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """X05: native clients cannot read headers, so epoch, cursor and completeness stand in the stream."""
    with open_stream(shared_node, endpoint.path(topic), way) as stream:
        block = stream.next_block()
        assert block is not None
        assert [name for name, _ in block.fields] == ["retry", "id", "event", "data"]
        hello = facts(block)
        assert sorted(hello) == ["channel", "client_id", "complete", "cursor", "epoch", "heartbeat_seconds"]
        assert hello["channel"] == endpoint.channel
        assert hello["cursor"] == block.id
        assert hello["complete"] is True
        assert hello["heartbeat_seconds"] == 30
        assert ID.fullmatch(hello["cursor"])
        assert hello["cursor"].startswith(hello["epoch"] + "-")


@pytest.mark.parametrize("way", WAYS)
def test_the_first_bytes_come_at_once_on_an_idle_topic(
    shared_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """H10: head and hello within 200 ms, without waiting for an event. The best of three: the machine may be busy."""
    best = min(seconds_to_hello(shared_node, endpoint.path(topic), way) for _ in range(3))
    assert best < 0.2


def seconds_to_hello(node: Node, path: str, way: str) -> float:
    start = time.monotonic()
    with open_stream(node, path, way) as stream:
        hello_of(stream)
        return time.monotonic() - start


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_first_write_holds_the_head_and_the_first_block(
    shared_node: Node, endpoint: Endpoint, topic: str, version: str
) -> None:
    """H10: one segment, so a proxy has something to pass on from the start."""
    with socket.create_connection(("127.0.0.1", shared_node.port), timeout=10) as connection:
        connection.sendall(request_bytes(endpoint.path(topic), version=version, Host="localhost"))
        select.select([connection], [], [], 10)
        first = connection.recv(65536)
    head, _, body = first.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.[01] 200 ", head)
    assert b"event: hello\n" in body
    assert b"\n\n" in body


def test_the_body_begins_with_a_field_and_never_with_a_byte_order_mark(
    shared_node: Node, endpoint: Endpoint, topic: str
) -> None:
    """E02: a payload that begins with U+FEFF changes nothing in that."""
    with open_stream(shared_node, endpoint.path(topic)) as stream:
        [event_id] = endpoint.publish(shared_node, topic, "\ufeffa")
        assert stream.events(1)[0].data == "\ufeffa"
        parser = StrictParser()
        parser.feed(stream.raw)
        assert parser.last_event_id == event_id


@pytest.mark.parametrize(
    "accept",
    [None, "*/*", "text/html", "application/json", "text/event-stream;q=0.1, */*;q=0.9", "text/*", "nonsense", ""],
)
@pytest.mark.parametrize("way", ["first", "later"])
def test_no_accept_header_is_refused(
    shared_node: Node, endpoint: Endpoint, topic: str, accept: str | None, way: str
) -> None:
    """H08: curl, fetch-based clients and those that send none all get the stream."""
    with open_stream(shared_node, endpoint.path(topic), way, Accept=accept) as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
        assert hello_of(stream)["complete"] is True


@pytest.mark.parametrize(
    "headers",
    [{"Accept_Encoding": "gzip, deflate, br"}, {"Range": "bytes=0-"}, {"If_None_Match": "*"}, {"Upgrade": "h2c"}],
)
@pytest.mark.parametrize("way", ["first", "later"])
def test_headers_that_ask_for_another_form_change_nothing(
    shared_node: Node, endpoint: Endpoint, topic: str, headers: dict[str, str], way: str
) -> None:
    """H09: no encoding, no range, no 304, no upgrade."""
    with open_stream(shared_node, endpoint.path(topic), way, **headers) as stream:
        assert stream.status == 200
        assert "content-encoding" not in stream.headers
        hello_of(stream)


@pytest.mark.parametrize("way", ["first", "later"])
def test_http_1_0_gets_a_body_that_the_close_ends(shared_node: Node, endpoint: Endpoint, topic: str, way: str) -> None:
    """H15: no chunks towards HTTP/1.0."""
    keep = {"Connection": "keep-alive", "Host": "localhost"}
    with socket.create_connection(("127.0.0.1", shared_node.port), timeout=10) as connection:
        if way == "later":
            Stream(0, "", connection=connection, request=request_bytes("/health", version="1.0", **keep)).body()
        with Stream(
            0, "", connection=connection, request=request_bytes(endpoint.path(topic), version="1.0", **keep)
        ) as stream:
            assert stream.status == 200
            assert "transfer-encoding" not in stream.headers
            assert stream.headers["connection"].lower() == "close"
            hello_of(stream)
            endpoint.publish(shared_node, topic, "a")
            assert stream.events(1)[0].data == "a"
            parser = StrictParser()
            parser.feed(stream.raw)
            assert [event.type for event in parser.events] == ["hello", "message"]


def test_each_connection_draws_its_own_retry(shared_node: Node, endpoint: Endpoint, topic: str) -> None:
    """E13, H06: digits only, within the configured range, and not the same for all."""
    values = set()
    for _ in range(8):
        with open_stream(shared_node, endpoint.path(topic)) as stream:
            value = stream.next_event().get("retry") or ""
            assert re.fullmatch("[0-9]{1,7}", value)
            assert 1000 <= int(value) <= 5000
            values.add(value)
    assert len(values) > 1


@pytest.mark.parametrize(
    "path", [f"{HUB}/?topic=a", f"/{HUB}?topic=a", "/channels/wire/events/", "/channels//events", "/channels/wire"]
)
def test_no_stream_address_redirects(shared_node: Node, path: str) -> None:
    """H07: a redirect would carry the cursor along; an address is right or it is not."""
    status, headers, _ = shared_node.get(path, Accept="text/event-stream")
    assert 400 <= status < 500
    assert "location" not in headers


def test_unknown_parameters_are_ignored(shared_node: Node, endpoint: Endpoint, topic: str) -> None:
    """H08: cache busters and analytics marks do no harm."""
    with open_stream(shared_node, endpoint.path(topic, utm_source="x", _="1700000000")) as stream:
        assert stream.status == 200
        hello_of(stream)
