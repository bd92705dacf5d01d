"""The workers work within what their units forbid."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps import jobbing
from tests.apps.monitoring import Ground, Worker, body_of, following, register
from tests.conftest import StartNode
from tests.harness.process import ROOT, wait_until
from tests.systemd.staging import UNITS


def sandbox(unit: str) -> list[str]:
    return [sys.executable, "-m", "tests.systemd.sandbox", str(UNITS / unit), sys.executable, "-m", "server"]


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
            command = [*sandbox("ringcast-monitor-worker.service"), "monitor-worker"]
            self.process = subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log)
        return self


class LockedUpJobWorker(jobbing.Worker):
    """The same for jobs."""

    def start(self) -> LockedUpJobWorker:
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
        env |= {f"RINGCAST_{key.upper()}": str(value) for key, value in self.settings.items()}
        with self.log_path.open("ab") as log:
            command = [*sandbox("ringcast-job-worker.service"), "job-worker"]
            self.process = subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log)
        return self


def check_confined(log: str, pid: int) -> None:
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
    for trace in ("Traceback", "Operation not permitted", "Permission denied", "error"):
        assert trace not in log, log


def test_the_worker_of_jobs_reads_and_reports_in_there(node: StartNode, tmp_path: Path) -> None:
    one = node(apps="jobs", simulate=False, database=f"sqlite:{tmp_path}/data.db")
    site = jobbing.Site()
    worker = LockedUpJobWorker(
        tmp_path, jobs_servers=one.url, jobs_allow_private=True, jobs_ports=site.url().rsplit(":", 1)[1].split("/")[0]
    )
    try:
        job_id = jobbing.begun(one, topics=["batteries"], sources=[site.url()])
        worker.start()
        wait_until(lambda: jobbing.job(one, job_id)["status"] == "completed", 20, "the job's end")
        assert worker.process is not None
        check_confined(worker.log(), worker.process.pid)
        assert worker.stop() == 0
    finally:
        worker.kill()
        site.close()


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
        check_confined(worker.log(), worker.process.pid)
        assert worker.stop() == 0
    finally:
        worker.kill()
