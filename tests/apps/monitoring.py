"""What tests of `monitors` share: sites to be checked, tenants as clients, and the worker as a process.

Knows no test.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.apps.worker_process import WorkerProcess
from tests.conftest import StartNode
from tests.harness.local_site import LocalSite
from tests.harness.process import Node
from tests.harness.stream import Block, Stream

PASSWORD = "correct horse"
SECRET = "a secret of the worker"
# Nothing that a test does is too often, nor takes longer than it must; sites on this machine may be asked.
SETTINGS: dict[str, Any] = {
    "apps": "monitors",
    "simulate": False,
    "monitors_allow_private": True,
    "monitors_min_interval_seconds": 1,
    "monitors_host_per_minute": 100_000,
    "monitors_logins_per_minute": 100_000,
    "monitors_password_rounds": 1,
    "monitors_streams_per_second": 0,
    "drain_seconds": 0.2,
}


class Site(LocalSite):
    """A web site on this machine. `status` and `delay_seconds` may be changed at any time; `paths` are what was asked
    for."""

    def __init__(self) -> None:
        self.status = 200
        self.delay_seconds = 0.0
        self.paths: list[str] = []
        self.agents: set[str] = set()
        site = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.paths.append(self.path)
                site.agents.add(self.headers.get("User-Agent", ""))
                time.sleep(site.delay_seconds)
                with contextlib.suppress(OSError):
                    self.send_response(site.status)
                    self.send_header("Location", "http://169.254.169.254/")
                    self.send_header("Content-Length", "0")
                    self.end_headers()

        super().__init__(Answers)

    def url(self, path: str = "/") -> str:
        return self.root + path


class Answer:
    """What a node answered."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.text = body.decode()
        self.json: Any = (
            json.loads(body) if body and headers.get("content-type", "").startswith("application/") else None
        )


def ask(node: Node, method: str, path: str, body: object = None, **headers: str) -> Answer:
    """A request with a JSON body."""
    if body is not None:
        headers.setdefault("Content_Type", "application/json")
    text = body if isinstance(body, str | bytes) or body is None else json.dumps(body)
    return Answer(*node.request(method, path, text, **headers))


class Tenant:
    """A client with a tenant's token."""

    def __init__(self, node: Node, token: str, number: int, email: str = "") -> None:
        self.node = node
        self.token = token
        self.number = number
        self.email = email

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        return ask(self.node, method, path, body, Authorization=f"Bearer {self.token}", **headers)

    def get(self, path: str) -> Any:
        """What is there; it must be."""
        answer = self.ask("GET", path)
        assert answer.status == 200, answer.text
        return answer.json

    def make(self, path: str, body: object) -> Any:
        """Make something; it must be made."""
        answer = self.ask("POST", path, body)
        assert answer.status == 201, answer.text
        return answer.json

    def monitor(self, url: str, **fields: object) -> Any:
        """A new monitor."""
        return self.make("/api/v1/monitors", {"name": "Shop", "url": url, "interval_seconds": 1} | fields)

    def rule(self, **fields: object) -> Any:
        """A new alert rule."""
        return self.make("/api/v1/alert-rules", {"name": "Down", "trigger_type": "down"} | fields)

    @property
    def path(self) -> str:
        """Of the tenant's stream."""
        return f"/api/v1/stream/events?token={self.token}"

    def stream(self, node: Node | None = None, query: str = "", **headers: Any) -> Stream:
        """The tenant's stream, as an EventSource opens it."""
        return Stream((node or self.node).port, self.path + query, **headers)

    def on(self, node: Node) -> Tenant:
        """The same tenant at another node."""
        return Tenant(node, self.token, self.number, self.email)


def register(node: Node, name: str = "Tenant") -> Tenant:
    """A new tenant."""
    email = f"{uuid.uuid4().hex[:12]}@example.com"
    wanted = {"email": email, "password": PASSWORD, "tenant_name": name}
    answer = ask(node, "POST", "/api/v1/auth/register", wanted)
    assert answer.status == 201, answer.text
    return Tenant(node, answer.json["token"], answer.json["tenant"]["id"], email)


def broadcast(node: Node, tenant: int, data: object, kind: str = "monitor_check", **headers: str) -> Answer:
    """What the worker sends."""
    return ask(node, "POST", "/internal/broadcast", {"type": kind, "data": data, "tenant_id": tenant}, **headers)


def body_of(block: Block) -> Any:
    """What an event's `data:` holds."""
    return json.loads(block.data or "")


class Worker(WorkerProcess):
    """`ringcast monitor-worker` in a folder, with these settings."""

    def __init__(self, folder: Path, **settings: object) -> None:
        super().__init__("monitor-worker", folder, **SETTINGS | settings)


def following(stream: Stream, count: int, kinds: tuple[str, ...] = ()) -> list[Block]:
    """So many events of a stream, without its first; of some types only."""
    found: list[Block] = []
    while len(found) < count:
        block = stream.next_event()
        if block.type != "connected" and (not kinds or block.type in kinds):
            found.append(block)
    return found


def ready(node: Node) -> Any:
    return json.loads(node.get("/ready")[2])["checks"]


class Ground:
    """A site, nodes whose monitors may ask it, and workers that find these nodes. Workers end with it."""

    def __init__(self, start_node: StartNode, folder: Path) -> None:
        self._start_node = start_node
        self._folder = folder
        self._workers: list[Worker] = []
        self.site = Site()

    def __enter__(self) -> Ground:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()
        self.site.close()

    def node(self, **settings: object) -> Node:
        """A node with a secret."""
        given = {"monitors_ports": self.site.port, "monitors_secret": SECRET} | settings
        return self._start_node(**SETTINGS | given)

    def worker(self, node: Node, **settings: object) -> Worker:
        """A worker with the node's settings."""
        own = {"monitors_servers": node.url} | settings
        self._workers.append(Worker(self._folder, **node.settings | own).start())
        return self._workers[-1]
