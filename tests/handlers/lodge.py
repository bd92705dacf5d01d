"""The parts behind the HTTP surface, and requests to them as values."""

from __future__ import annotations

import json
from typing import Any

import jwt

from config.settings import Settings
from handlers.cors import Origins
from handlers.http_connections import HttpConnections, Serve
from handlers.publish import Publisher
from handlers.revocations import Revoker
from handlers.rooms import Rooms
from handlers.subscribe import Subscriber
from handlers.surface import StreamSurface
from handlers.vitals import Vitals
from server.auth import Authenticator
from server.cluster import Cluster
from server.exchange import Request, Response
from server.node import Limits, Node
from server.peers import Peers
from server.relay.memory import MemoryRelay
from server.serving import policy_of

SECRET = "a secret of at least thirty-two bytes, for tests"
ORIGIN = "https://app.example"
KEYED: dict[str, Any] = {"jwt_secret": SECRET, "allowed_origins": [ORIGIN]}
MERCURE = "/.well-known/mercure"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}


class Lodge:
    """A node with its surface. Construct on a running loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        relay = MemoryRelay(settings.idempotency_seconds, settings.idempotency_keys)
        limits = Limits(100, max_connections_per_subject=settings.max_connections_per_subject,
                        max_channels=settings.max_channels, max_frame_bytes=settings.max_frame_bytes)  # fmt: skip
        self.node = Node(relay, lambda name: policy_of(settings, name), limits)
        self.rooms = Rooms(
            self.node.hub,
            self.node.admission,
            Authenticator(settings),
            Origins(settings.allowed_origins, development=settings.development),
            Peers(settings.trusted_proxies),
            lambda name: policy_of(settings, name),
            settings.open_channels,
        )
        publisher = Publisher(self.rooms, max_body_bytes=settings.max_body_bytes, max_events=settings.max_batch_events)
        self.subscriber = Subscriber(self.rooms)
        self.surface = StreamSurface(self.rooms, self.subscriber, publisher)
        cluster = Cluster(None, self.node.broadcaster, self.rooms.authenticator.revocations, self.node.presence)
        self.vitals = Vitals(self.node, cluster, self.rooms)
        self.revoker = Revoker(cluster, self.rooms)
        self.connections = HttpConnections(
            self.surface,
            lambda stream, address: self.serve(stream, address),
            most=settings.max_http_connections,
            max_body_bytes=settings.max_body_bytes,
        )
        self.serve: Serve

    @property
    def events(self) -> list[Any]:
        """What was published to `main`, oldest first."""
        return [entry.event for entry in self.node.hub.channels["main"].log.after(0, 10_000)]


def request(path: str, body: bytes = b"", *, method: str = "", remote: str = "127.0.0.1", **headers: str) -> Request:
    """A request as a value. Underscores in header names become hyphens."""
    path, _, query = path.partition("?")
    named = {name.replace("_", "-").lower().encode(): value.encode() for name, value in headers.items()}
    return Request(method or ("POST" if body else "GET"), path, query, {b"host": b"localhost"} | named, remote, body)


def token(**claims: Any) -> str:
    """A signed token."""
    return jwt.encode(claims, SECRET, "HS256")


def bearer(**claims: Any) -> dict[str, str]:
    """The header that brings a token."""
    return {"Authorization": f"Bearer {token(**claims)}"}


def facts(response: Response) -> Any:
    """The JSON of an answer."""
    return json.loads(response.body)
