"""The two endpoints that stream, behind one face, and the ways in which a request for a stream can reach the server.

A first request is read by the front door; a later one on a kept-alive connection by the HTTP server behind it. Both
must end in the same stream.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tests.harness.process import Node
from tests.harness.stream import Block, Stream, request_bytes

HUB = "/.well-known/mercure"
FORM = "application/x-www-form-urlencoded"
WAYS = ("first", "later", "bytewise")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A channel as clients see it: where to read it and where to publish to it."""

    channel: str

    @property
    def stream_path(self) -> str:
        return HUB if self.channel == "main" else f"/channels/{self.channel}/events"

    def path(self, topic: str, **parameters: str) -> str:
        """A subscription's path. Underscores in the parameters' names stay."""
        return f"{self.stream_path}?{urlencode({'topic': topic} | parameters)}"

    def publish(self, node: Node, topic: str, *data: str, **fields: Any) -> list[str]:
        """Publish one event for each `data`; their ids."""
        return [self._publish_one(node, topic, one, fields) for one in data]

    def _publish_one(self, node: Node, topic: str, data: str, fields: dict[str, Any]) -> str:
        event = {"topic": topic, "data": data} | fields
        if self.channel == "main":
            status, _, body = node.request("POST", HUB, urlencode(event), Content_Type=FORM)
            assert status == 200, body
            return body.decode()
        status, _, body = node.request("POST", self.stream_path, json.dumps(event), Content_Type="application/json")
        assert status == 200, body
        [event_id] = json.loads(body)["ids"]
        return str(event_id)


ENDPOINTS = (Endpoint("main"), Endpoint("wire"))


def used_connection(node: Node) -> socket.socket:
    """A kept-alive connection on which one request was already answered."""
    connection = socket.create_connection(("127.0.0.1", node.port), timeout=10)
    health = Stream(node.port, "/health", connection=connection, request=request_bytes("/health", Host="localhost"))
    assert health.status == 200
    health.body()
    return connection


def open_stream(node: Node, path: str, way: str = "first", **headers: str | None) -> Stream:
    """A GET of `path` that reaches the server by one of WAYS."""
    if way == "first":
        return Stream(node.port, path, **headers)
    headers.setdefault("Host", f"127.0.0.1:{node.port}")
    request = request_bytes(path, **headers)
    if way == "later":
        return Stream(node.port, path, connection=used_connection(node), request=request)
    connection = socket.create_connection(("127.0.0.1", node.port), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in request:
        connection.sendall(bytes([byte]))
    return Stream(node.port, path, connection=connection, request=b"")


def facts(block: Block | None) -> dict[str, Any]:
    """The JSON object that a control event carries."""
    assert block is not None
    return dict(json.loads(block.data or ""))


def hello_of(stream: Stream) -> dict[str, Any]:
    """The facts of a stream's first event, which must be `hello`."""
    block = stream.next_event()
    assert block.type == "hello", block
    return facts(block)


def connections(node: Node, channel: str) -> int:
    """How many readers a channel has, as `/stats` tells."""
    counts = json.loads(node.get("/stats")[2])["connections"]
    return int(counts.get("by_channel", counts).get(channel, 0))
