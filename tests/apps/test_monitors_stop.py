"""A node with `monitors` stops within seconds, whatever it is in the middle of, and leaves a database that goes on."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPException
from pathlib import Path

from tests.apps.monitoring import PASSWORD, SETTINGS, Tenant, ask, broadcast, register
from tests.conftest import StartNode
from tests.harness.process import Node, wait_until

ROUNDS = 2
BUSY = 8
STOP_SECONDS = 5.0


def keep_busy(tenant: Tenant, under_way: threading.Semaphore) -> None:
    """Everything that writes, hashes or streams, until nobody answers; `under_way` tells of each time it begins."""
    body = {"email": tenant.email, "password": PASSWORD}
    with contextlib.suppress(OSError, HTTPException):
        while True:
            with tenant.stream() as stream:
                stream.next_event()
                under_way.release()
                ask(tenant.node, "POST", "/api/v1/auth/login", body)
                broadcast(tenant.node, tenant.number, {"monitor_id": "m"})
                made = tenant.ask("POST", "/api/v1/monitors", {"name": "a", "url": "http://a.example/"})
                if made.status == 201:
                    tenant.ask("DELETE", f"/api/v1/monitors/{made.json['id']}")


def test_a_node_stops_within_seconds_in_the_middle_of_everything(node: StartNode, tmp_path: Path) -> None:
    """M1: streams, the outbox, transactions of SQLite and passwords in their threads; and another node beside it."""
    settings = SETTINGS | {"simulate": True, "monitors_simulated_seconds": 0.01, "database": f"sqlite:{tmp_path}/a.db"}
    other = node(**settings)
    for _ in range(ROUNDS):
        started = node(**settings)
        tenants = [register(started) for _ in range(BUSY)]
        wait_until(partial(_has_simulated, other, started), 20, "simulated checks")
        with ThreadPoolExecutor(BUSY) as pool:
            under_way = threading.Semaphore(0)
            busy = [pool.submit(keep_busy, tenant, under_way) for tenant in tenants]
            try:
                for _ in range(BUSY):
                    assert under_way.acquire(timeout=20)
                began = time.monotonic()
                assert started.stop() == 0
                took = time.monotonic() - began
            finally:
                started.kill()  # else they would be busy for ever
            for one in busy:
                with contextlib.suppress(AssertionError):  # a stream that ended in the middle of its head
                    one.result()
        assert took < STOP_SECONDS, started.log()
        assert "Traceback" not in started.log()
    assert register(other).get("/api/v1/monitors")["total"] == 0


def _has_simulated(*nodes: Node) -> bool:
    """One of them has: they take turns."""
    texts = [node.get("/metrics")[2].decode() for node in nodes]
    lines = [
        line for text in texts for line in text.splitlines() if line.startswith("ringcast_monitors_simulated_total")
    ]
    return sum(float(line.split()[1]) for line in lines) > 20
