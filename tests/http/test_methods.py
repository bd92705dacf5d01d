"""Methods other than GET on the addresses of streams."""

from __future__ import annotations

import socket

import pytest

from tests.harness.process import Node, wait_until
from tests.harness.stream import Stream, request_bytes
from tests.http.conftest import ALLOWED
from tests.http.endpoint import Endpoint, connections, open_stream, used_connection

METHODS = ["DELETE", "PATCH", "PUT"]


@pytest.mark.parametrize("way", ["first", "later"])
def test_head_answers_the_headers_and_closes(shared_node: Node, endpoint: Endpoint, topic: str, way: str) -> None:
    """H14: the same head as GET, no body, no stream left behind."""
    path = endpoint.path(topic)
    with open_stream(shared_node, path) as stream:
        expected = stream.headers
    connection = (
        used_connection(shared_node)
        if way == "later"
        else socket.create_connection(("127.0.0.1", shared_node.port), 10)
    )
    with Stream(
        0, path, connection=connection, request=request_bytes(path, method="HEAD", Host=f"127.0.0.1:{shared_node.port}")
    ) as head:
        assert head.status == 200
        assert {k: v for k, v in head.headers.items() if k not in ("date", "transfer-encoding")} == {
            k: v for k, v in expected.items() if k not in ("date", "transfer-encoding")
        }
        assert head.received + connection.recv(1) == b""


def test_head_holds_no_connection(shared_node: Node, endpoint: Endpoint, topic: str) -> None:
    """H14: a hub that treats HEAD as a stream counts a reader until it times out."""
    for _ in range(5):
        assert shared_node.request("HEAD", endpoint.path(topic))[0] == 200
    wait_until(lambda: connections(shared_node, endpoint.channel) == 0, what="no reader")


@pytest.mark.parametrize("origin", [None, ALLOWED])
@pytest.mark.parametrize("way", ["first", "later"])
def test_options_never_needs_a_token(
    keyed_node: Node, endpoint: Endpoint, topic: str, origin: str | None, way: str
) -> None:
    """H14: a preflight carries no credentials."""
    host = f"127.0.0.1:{keyed_node.port}"
    connection = (
        used_connection(keyed_node) if way == "later" else socket.create_connection(("127.0.0.1", keyed_node.port), 10)
    )
    request = request_bytes(
        endpoint.path(topic), method="OPTIONS", Host=host, Origin=origin, Access_Control_Request_Method="GET"
    )
    with Stream(0, "", connection=connection, request=request) as answer:
        assert answer.status == 204
        assert "content-length" not in answer.headers or answer.headers["content-length"] == "0"


@pytest.mark.parametrize("method", METHODS)
def test_other_methods_are_405_with_allow(shared_node: Node, endpoint: Endpoint, topic: str, method: str) -> None:
    """H02, H14: an error is never an event stream."""
    status, headers, _ = shared_node.request(method, endpoint.path(topic), Accept="text/event-stream")
    assert status == 405
    assert {"GET", "HEAD", "POST"} <= {name.strip() for name in headers["allow"].split(",")}
    assert headers["content-type"].split(";")[0] == "application/json"
    assert "no-store" in headers["cache-control"]


def test_a_get_with_a_body_is_still_one_request(shared_node: Node, endpoint: Endpoint, topic: str) -> None:
    """H08: whatever is made of it, the answer is whole: a stream or a refusal, and never the body read as a request."""
    request = (
        request_bytes(endpoint.path(topic), Host="localhost", Content_Length="25") + b"GET /health HTTP/1.1\r\n\r\nxyz"
    )
    with Stream(shared_node.port, "", request=request) as answer:
        assert answer.status in (200, 400, 413)
        while answer.status == 200 and answer.next_block(5) is not None:
            pass
        assert b"HTTP/1." not in answer.received + answer.raw
