"""A node works within what its unit forbids, and what is forbidden is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.process import ROOT, TOKEN_SECRET, Node, wait_until
from tests.harness.stream import Stream
from tests.systemd.staging import UNITS
from tests.threats.tokens import EVERYTHING, bearer, signed

SANDBOX = [sys.executable, "-m", "tests.systemd.sandbox", str(UNITS / "ringcast@.service")]
RIGHTS = EVERYTHING | {"ringcast": {"host": {"subscribe": ["*"]}}}
HEADERS = {"Authorization": bearer(signed(RIGHTS))}


def inside(script: str) -> subprocess.CompletedProcess[str]:
    """A line of Python in there."""
    command = [*SANDBOX, sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "Errno 97"),
        ("import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "Errno 97"),
        ("import os; os.nice(5)", "Errno 1"),
        ("import os; os.chown('/tmp', 0, 0)", "Errno 1"),
        ("import time; time.clock_settime(time.CLOCK_REALTIME, 1)", "Errno 1"),
        ("import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)", "Errno 1"),
    ],
    ids=["netlink", "raw packets", "priorities", "owners", "the clock", "code that was data"],
)
def test_what_the_unit_forbids_is_refused(script: str, error: str) -> None:
    """The sandbox of these tests is worth something."""
    assert error in inside(script).stderr


def test_a_node_does_all_that_it_has_to_in_there(tmp_path: Path) -> None:
    """Files, both kinds of sockets, threads, signals, the machine's figures; the log says nothing of a refusal."""
    settings = {"relay": f"sqlite:{tmp_path / 'log.db'}", "socket": tmp_path / "node.sock", "host_source": True}
    node = LockedUp(tmp_path, jwt_secret=TOKEN_SECRET, drain_seconds=0.2, log_level="debug", **settings).start()
    try:
        with Stream(node.port, "/channels/host/events", **HEADERS) as figures:
            assert "cpu" in json.dumps(json.loads(figures.events(1)[0].data or ""))
        with Stream(node.port, "/channels/main/events", **HEADERS) as stream:
            stream.next_event()
            body = b'{"topic": "a", "data": "in there"}'
            headers = HEADERS | {"Content_Type": "application/json"}
            assert node.request("POST", "/channels/main/events", body, **headers)[0] == 200
            assert stream.events(1)[0].data == "in there"
        assert node.get("/ready")[0] == 200
        limits = Path(f"/proc/{node.pid}/limits").read_text()
        assert "Max core file size        0" in limits
        status = Path(f"/proc/{node.pid}/status").read_text()
        assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
    finally:
        assert node.stop() == 0
    for trace in ("Traceback", "Operation not permitted", "Permission denied", "error"):
        assert trace not in node.log(), node.log()


class LockedUp(Node):
    """A node that is started in the sandbox."""

    def start(self) -> Node:
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "RINGCAST_PORT": str(self.port)}
        env |= {f"RINGCAST_{key.upper()}": str(value) for key, value in self.settings.items()}
        with self.log_path.open("ab") as log:
            command = [*SANDBOX, sys.executable, "-m", "server", "serve"]
            self.process = subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log)
        wait_until(self._answers, 30, f"the server on port {self.port} (see {self.log_path})")
        return self
