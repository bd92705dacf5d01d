"""What tests of `prices` share: an API of prices on this machine, which may misbehave, and looks at a node.

Knows no test.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.harness.local_site import LocalSite
from tests.harness.process import Node
from tests.harness.stream import Block, Stream

ROOT = "/api/v1/prices"
STREAM = f"{ROOT}/stream"
NAMES = {2: "Cannonball", 4151: "Abyssal whip", 11832: "Bandos chestplate"}
# Looks come one after the other; nothing is kept back.
SETTINGS: dict[str, Any] = {
    "apps": "prices",
    "simulate": False,
    "prices_sync_seconds": 0.05,
    "prices_contact": "prices@ringcast.example",
    "drain_seconds": 0.2,
}


class Api(LocalSite):
    """An API of prices. `trade` changes a price; what `answer` is set to comes instead of prices: a status, bytes of a
    body, or seconds to wait. `asked` are the requests for prices: their headers, `asked_at` when they came."""

    def __init__(self) -> None:
        self.prices: dict[str, Any] = {}
        self.answer: int | float | bytes | None = None
        self.headers: dict[str, str] = {}
        self.asked: list[dict[str, str]] = []
        self.asked_at: list[float] = []
        self.asked_names = 0
        self.clock = 1_736_859_000
        api = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    if self.path == "/v1/mapping":
                        api.asked_names += 1
                        self.send([{"id": item, "name": name, "limit": 70} for item, name in NAMES.items()])
                    else:
                        assert self.path == "/v1/latest"
                        api.asked_at.append(time.monotonic())
                        api.asked.append({name.lower(): value for name, value in self.headers.items()})
                        self.send_latest(api.answer)

            def send_latest(self, instead: int | float | bytes | None) -> None:
                if isinstance(instead, float):
                    time.sleep(instead)
                    instead = None
                if isinstance(instead, bytes):
                    self.send(instead)
                elif instead is not None:
                    self.send_response(instead)
                    for name, value in api.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    self.send({"data": api.prices})

            def send(self, value: object) -> None:
                body = value if isinstance(value, bytes) else gzip.compress(json.dumps(value).encode())
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                if body[:2] == b"\x1f\x8b":
                    self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        super().__init__(Answers)
        self.url = f"{self.root}/v1"

    def trade(self, item: int, high: int | None = None, low: int | None = None) -> None:
        """Somebody paid `high`, or got `low`; the other side stays."""
        self.clock += 1
        entry = dict(self.prices.get(str(item), {"high": None, "highTime": None, "low": None, "lowTime": None}))
        if high is not None:
            entry |= {"high": high, "highTime": self.clock}
        if low is not None:
            entry |= {"low": low, "lowTime": self.clock}
        self.prices = self.prices | {str(item): entry}

    def high(self, item: int) -> Any:
        """What was paid last."""
        return self.prices[str(item)]["high"]


def ask(node: Node, path: str, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """Status, JSON and headers of an answer."""
    status, found, body = node.get(ROOT + path, **headers)
    return status, json.loads(body) if body else None, found


def updates(stream: Stream, count: int) -> list[dict[str, Any]]:
    """So many changes of prices, in order."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        block: Block = stream.next_event()
        if block.type == "price-update":
            found.append(json.loads(block.data or ""))
    return found


def metric(node: Node, name: str) -> float:
    """A figure of the node, over all labels unless `name` has some; 0 if it is not there."""
    lines = node.get("/metrics")[2].decode().splitlines()
    begins = (f"ringcast_prices_{name} ", f"ringcast_prices_{name}{{")
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(begins))


def ready(node: Node) -> str:
    """What /ready says of the sync."""
    return str(json.loads(node.get("/ready")[2])["checks"]["prices_sync"])
