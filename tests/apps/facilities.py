"""What tests of `facilities` share: a node with the application, and what it answers. Knows no test."""

from __future__ import annotations

import json
from typing import Any

from tests.apps.asking import headers_of
from tests.harness.process import Node
from tests.harness.stream import Stream

ONE = "/api/facilities/fac_001"
SEARCH = "/api/facilities/search?lat=6.5244&lon=3.3792&radius=10"
STREAM = "/api/stream/facilities/fac_001"
LAGOS = "/api/stream/facilities/region?lat=6.5244&lon=3.3792&radius=25"
# Nothing changes by itself.
SETTINGS: dict[str, Any] = {"apps": "facilities", "simulate": False, "drain_seconds": 0}
OPERATOR = {"sub": "desk", "ringcast": {"operate": True}}


class Answer:
    """What a node answered."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.json: Any = json.loads(body) if body else None

    @property
    def cache(self) -> str:
        return self.headers.get("x-cache", "")


def ask(
    node: Node, path: str, body: object = None, *, method: str = "", claims: dict[str, Any] | None = None
) -> Answer:
    """A GET, or a PATCH of `body`, or another method."""
    headers = {"Content_Type": "application/json"} | headers_of(claims)
    method = method or ("GET" if body is None else "PATCH")
    return Answer(*node.request(method, path, "" if body is None else json.dumps(body), **headers))


def change(node: Node, facility: str = "fac_001", **fields: object) -> Any:
    """A change that is made; the facility after it."""
    answer = ask(node, f"/api/facilities/{facility}", fields)
    assert answer.status == 200, answer.json
    return answer.json


def told(stream: Stream, count: int) -> list[Any]:
    """What so many events say, each under its type."""
    found: list[Any] = []
    while len(found) < count:
        block = stream.next_event(10)
        if block.type not in ("hello", "heartbeat"):
            body = json.loads(block.data or "")
            assert body["event_type"] == block.type
            found.append(body)
    return found
