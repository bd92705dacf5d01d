"""What tests of `jobs` share: requests, what a stream has brought, a site with articles, and the worker as a process.

Knows no test.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.apps.asking import ask
from tests.apps.worker_process import WorkerProcess
from tests.harness.local_site import LocalSite
from tests.harness.process import Node
from tests.harness.stream import Stream

ROOT = "/api/v1/jobs"
WANTED = {"topics": ["technology"], "sources": ["techcrunch", "ars-technica"]}
WORKING = {"status": "processing", "progress": 40, "stage": "processing-articles", "message": "2 of 5"}
DONE = {"status": "completed", "progress": 90, "stage": "done", "message": "ready", "data": {"words": 812}}
OPERATOR = {"sub": "service", "ringcast": {"operate": True}}

ARTICLE = """<!doctype html><html><head><title>Storage &amp; power</title><style>p { color: red }</style></head><body>
<nav><a href="/">Home</a></nav><h1>Batteries</h1>
<p>Large batteries stored more energy last year than ever before, the operators of the grid said.</p>
<p>A battery keeps the energy of the afternoon for the evening, when people come home and cook.</p>
<script>document.write("<p>nothing of this is text</p>")</script>
<p>Nobody knows yet what becomes of old batteries, but two companies want to use their metals again.</p>
</body></html>"""


def begun(node: Node, claims: dict[str, Any] | None = None, **wanted: object) -> str:
    """The id of a new job."""
    status, started = ask(node, "POST", ROOT, wanted or WANTED, claims)
    assert status == 201, started
    assert started["sseEndpoint"] == f"{ROOT}/{started['jobId']}/events"
    job_id: str = started["jobId"]
    return job_id


def report(node: Node, job_id: str, update: dict[str, Any], claims: dict[str, Any] | None = None) -> int:
    """The status of the answer to a report."""
    return ask(node, "POST", f"{ROOT}/{job_id}/updates", update, claims)[0]


def job(node: Node, job_id: str) -> dict[str, Any]:
    """How a job stands."""
    status, facts = ask(node, "GET", f"{ROOT}/{job_id}")
    assert status == 200
    return facts


def states(stream: Stream, count: int) -> list[dict[str, Any]]:
    """So many states, each an unnamed message."""
    found = []
    while len(found) < count:
        block = stream.next_event(10)
        assert block.type in ("hello", "message"), block.type
        if block.type == "message":
            assert block.data is not None
            found.append(json.loads(block.data))
    return found


def states_to_the_end(stream: Stream) -> list[dict[str, Any]]:
    """All states, until the stream says that the job has ended."""
    found: list[dict[str, Any]] = []
    while (block := stream.next_event(20)).type != "finished":
        if block.type == "message":
            found.append(json.loads(block.data or ""))
    return found


def last_id(stream: Stream) -> str:
    """The last cursor that a stream gave."""
    ids = [line.removeprefix(b"id: ").decode() for line in stream.raw.split(b"\n") if line.startswith(b"id: ")]
    return ids[-1]


class Site(LocalSite):
    """A web site on this machine: `pages` by path, each a status, a content type and a body. While `closed` is set
    nobody gets an answer."""

    def __init__(self) -> None:
        self.pages = {"/article": (200, "text/html; charset=utf-8", ARTICLE.encode())}
        self.asked: list[str] = []
        self.open = threading.Event()
        self.open.set()
        site = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                site.open.wait(20)
                status, kind, body = site.pages.get(self.path, (404, "text/plain", b"no"))
                self.send_response(status)
                self.send_header("Location", "http://169.254.169.254/latest/meta-data/")
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        super().__init__(Answers, forgiving=True)

    def url(self, path: str = "/article") -> str:
        return self.root + path

    def close(self) -> None:
        self.open.set()
        super().close()


class Worker(WorkerProcess):
    """`ringcast job-worker` in a folder, with these settings."""

    def __init__(self, folder: Path, **settings: object) -> None:
        super().__init__("job-worker", folder, **settings)
