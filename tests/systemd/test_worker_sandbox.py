"""The worker of monitors works within what its unit forbids."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps.monitoring import Ground, Worker, body_of, following, register
from tests.conftest import StartNode
from tests.harness.process import ROOT
from tests.systemd.staging import UNITS

SANDBOX = [sys.executable, "-m", "tests.systemd.sandbox", str(UNITS / "ringcast-monitor-worker.service")]


@pytest.fixture
def ground(node: StartNode, tmp_path: Path) -> Iterator[Ground]:
    with Ground(node, tmp_path) as made:
        yield made


class LockedUp(Worker):
    """A worker that is started in the sandbox."""

    def start(self) -> Worker:
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
        env |= {f"RINGCAST_{key.upper()}": str(value) for key, value in self.settings.items()}
        with self.log_path.open("ab") as log:
            command = [*SANDBOX, sys.executable, "-m", "server", "monitor-worker"]
            self.process = subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log)
        return self


def test_a_worker_does_all_that_it_has_to_in_there(ground: Ground, tmp_path: Path) -> None:
    """Names, sockets, threads, TLS, the database, signals; the log says nothing of a refusal."""
    node = ground.node()
    tenant = register(node)
    monitor = tenant.monitor(f"http://localhost:{ground.site.port}/")
    secure = tenant.monitor(f"https://localhost:{ground.site.port}/", name="Secure")
    worker = LockedUp(tmp_path, **node.settings | {"monitors_servers": node.url})
    try:
        with tenant.stream() as stream:
            worker.start()
            found: dict[str, bool] = {}
            while found.keys() != {monitor["id"], secure["id"]}:
                data = body_of(following(stream, 1, ("monitor_check",))[0])["data"]
                found[data["monitor_id"]] = data["success"]
            assert found == {monitor["id"]: True, secure["id"]: False}
        assert worker.process is not None
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
        assert worker.stop() == 0
    finally:
        worker.kill()
    for trace in ("Traceback", "Operation not permitted", "Permission denied", "error"):
        assert trace not in worker.log(), worker.log()
