"""What nodes say of themselves around a fault: whether they are ready, and what they still hold when all have gone.

Owns the questions. Must know no subscriber and no fault; the checker judges. Invariants: a watch asks from the moment a
fault begins until readiness is back behind it, or it is stopped; nobody is waited for who holds nothing. Cost: a thread
and some requests a second for each watched node, and one request for each node of a scene.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from contextlib import closing
from pathlib import Path

from tests.faults.checker import History, Outage, residue
from tests.harness.process import Node
from tests.threats.process_facts import descriptors, rss_bytes

ASKED_SECONDS = 0.05
LEFT_SECONDS = 10.0


def answer(port: int, path: str) -> tuple[int, bytes]:
    """Status and body; status 0 if nobody answers."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        try:
            connection.request("GET", path)
            got = connection.getresponse()
            return got.status, got.read()
        except (OSError, http.client.HTTPException):
            return 0, b""


class Watch:
    """Asks a node whether it is ready, from now on. It has `seconds` to say that it is not, and `back_seconds` from
    `outage.healed` on to say that it is."""

    def __init__(self, history: History, port: int, seconds: float, back_seconds: float) -> None:
        self.port = port
        self.outage = Outage(f"node {port}", time.monotonic(), seconds, back_seconds)
        history.outages.append(self.outage)
        self.samples = history.readiness.setdefault(self.outage.name, [])
        self.leaving = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.leaving.wait(ASKED_SECONDS):
            healed = self.outage.healed
            status, _ = answer(self.port, "/ready")
            self.samples.append((time.monotonic(), status == 200))
            if healed is not None and status == 200:
                return

    def finish(self) -> None:
        """Wait until readiness is back, or its time for that is over."""
        if self.outage.healed is not None:
            self.thread.join(max(0.0, self.outage.healed + self.outage.back_seconds - time.monotonic()))
        self.stop()

    def stop(self) -> None:
        self.leaving.set()
        self.thread.join(10)


def streams(port: int) -> dict[str, int]:
    """The connections, feeds and tasks that a node has. Nothing where the node is down, or tells not everybody."""
    status, body = answer(port, "/stats")
    if status != 200:
        return {}
    facts = json.loads(body)
    feeds = sum(channel["feeds"] for channel in facts["channels"].values())
    return {"connections": facts["connections"]["total"], "feeds": feeds, "tasks": facts["process"]["tasks"]}


def held(node: Node) -> dict[str, int]:
    """All that a node holds: for readers, on its loop, in the kernel, and in memory."""
    return streams(node.port) | {
        "descriptors": len(descriptors(node.pid)),
        "threads": len(list(Path(f"/proc/{node.pid}/task").iterdir())),
        "memory in bytes": rss_bytes(node.pid),
    }


def left_behind(port: int, before: dict[str, int]) -> list[str]:
    """What the node holds for readers more than before. A connection that was hung up may take a moment."""
    end = time.monotonic() + LEFT_SECONDS
    while found := residue(before, streams(port)):
        if time.monotonic() > end:
            return [f"node {port}: {text}" for text in found]
        time.sleep(0.02)
    return []
