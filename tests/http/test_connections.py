"""Requests as they come over real connections: in pieces, several at once, half, or not at all."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.harness.process import Node, wait_until
from tests.harness.stream import Stream, request_bytes
from tests.http.endpoint import FORM, HUB, Endpoint, connections, facts, hello_of, open_stream, used_connection

HEALTH = request_bytes("/health", Host="localhost")


def connect(node: Node) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.port), timeout=10)


def test_pipelined_requests_are_answered_in_order(shared_node: Node) -> None:
    """H15: two requests in one segment on a kept-alive connection."""
    with connect(shared_node) as connection:
        connection.sendall(HEALTH + request_bytes("/nowhere", Host="localhost") + HEALTH)
        statuses, received = [], b""
        for _ in range(3):
            answer = Stream(0, "", connection=connection, request=b"", received=received)
            statuses.append(answer.status)
            answer.body()
            received = answer.received
        assert statuses == [200, 404, 200]


def test_a_stream_may_be_the_last_of_pipelined_requests(shared_node: Node, endpoint: Endpoint, topic: str) -> None:
    """H15: a publish and a subscription in one segment."""
    body = f"topic={topic}&data=a"
    publish = (
        request_bytes(HUB, method="POST", Host="localhost", Content_Type=FORM, Content_Length=str(len(body)))
        + body.encode()
    )
    with connect(shared_node) as connection:
        connection.sendall(publish + request_bytes(endpoint.path(topic), Host=f"127.0.0.1:{shared_node.port}"))
        answer = Stream(0, "", connection=connection, request=b"")
        assert answer.status == 200
        answer.body()
        with Stream(0, "", connection=connection, request=b"", received=answer.received) as stream:
            assert stream.headers["content-type"] == "text/event-stream"
            hello_of(stream)
            [event_id] = endpoint.publish(shared_node, topic, "b")
            assert stream.events(1)[0].id == event_id


@pytest.mark.parametrize("way", ["first", "later"])
def test_a_request_after_a_stream_in_the_same_segment_is_never_answered(
    shared_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """H15: bytes behind the request of a stream end it, begun or not; the connection closes."""
    request = request_bytes(endpoint.path(topic), Host=f"127.0.0.1:{shared_node.port}")
    with connect(shared_node) if way == "first" else used_connection(shared_node) as connection:
        connection.sendall(request + HEALTH)
        connection.settimeout(10)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                received += piece
        assert received.count(b"HTTP/1.") <= 1
        assert b'"status"' not in received


@pytest.mark.parametrize("cut", range(0, 100, 7))
def test_a_request_cut_in_two_reads_the_same(shared_node: Node, endpoint: Endpoint, topic: str, cut: int) -> None:
    """H08: two segments, wherever the cut is."""
    request = request_bytes(endpoint.path(topic), Host=f"127.0.0.1:{shared_node.port}", X_Filler="y" * 20)
    with connect(shared_node) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(request[:cut])
        shared_node.get("/health")  # one turn of the loop: the first piece was read alone
        with Stream(0, "", connection=connection, request=request[cut:]) as stream:
            assert hello_of(stream)["complete"] is True


def test_half_a_request_leaves_nothing_behind(shared_node: Node) -> None:
    """H06: a client that hangs up before its request is whole."""
    endpoint = Endpoint("half")
    request = request_bytes(endpoint.path("a"), Host="localhost")
    for cut in (0, 1, 20, len(request) - 1):
        with connect(shared_node) as connection:
            connection.sendall(request[:cut])
    with open_stream(shared_node, endpoint.path("a")) as stream:
        hello_of(stream)
        wait_until(lambda: connections(shared_node, "half") == 1, what="one reader")


def test_header_names_of_any_case_are_read(shared_node: Node, endpoint: Endpoint, topic: str) -> None:
    """H08, H12: libraries and proxies write them as they like."""
    ids = endpoint.publish(shared_node, topic, "a", "b")
    host = f"127.0.0.1:{shared_node.port}"
    for name in ("last-event-id", "LAST-EVENT-ID", "Last-Event-Id"):
        for way in ("first", "later"):
            head = f"GET {endpoint.path(topic)} HTTP/1.1\r\nhost: {host}\r\n{name}:{ids[0]}  \r\n\r\n".encode()
            connection = connect(shared_node) if way == "first" else used_connection(shared_node)
            with Stream(0, "", connection=connection, request=head) as stream:
                assert facts(stream.next_event())["cursor"] == ids[0]


@pytest.mark.parametrize("target", ["http://{host}{path}", "{path}#fragment"])
@pytest.mark.parametrize("way", ["first", "later"])
def test_other_forms_of_the_target_have_an_answer(
    shared_node: Node, endpoint: Endpoint, topic: str, target: str, way: str
) -> None:
    """H08: the absolute form that proxies use, or a fragment that has no business here: a stream or a 4xx, in time."""
    path = target.format(host=f"127.0.0.1:{shared_node.port}", path=endpoint.path(topic))
    with open_stream(shared_node, path, way) as stream:
        assert stream.status == 200 or 400 <= stream.status < 500


def test_two_streams_by_different_ways_see_one_order(shared_node: Node, endpoint: Endpoint, topic: str) -> None:
    """H15: and the same ids."""
    with (
        open_stream(shared_node, endpoint.path(topic)) as first,
        open_stream(shared_node, endpoint.path(topic), "later") as later,
    ):
        hello_of(first), hello_of(later)
        ids = endpoint.publish(shared_node, topic, *map(str, range(50)))
        assert [block.id for block in first.events(50)] == [block.id for block in later.events(50)] == ids
