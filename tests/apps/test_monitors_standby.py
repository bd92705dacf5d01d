"""The worker of `monitors` among others (M3): one at a time, within bounds, and missed when it is not there."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing

import pytest

from tests.apps.monitoring import Ground, Seen, body_of, following, ready, register
from tests.harness.process import free_port, wait_until

CHECKS = ("monitor_check",)


@pytest.mark.fault
def test_while_the_server_is_away_results_are_bounded_and_what_goes_is_said(ground: Ground) -> None:
    """M3: the oldest checks go first, incidents last."""
    started = ground.node(monitors_keep_results=5)
    tenant = register(started)
    monitor = tenant.monitor(ground.site.url())
    tenant.rule(breaches=1)
    ground.site.status = 500
    running = ground.worker(started, monitors_servers=f"http://127.0.0.1:{free_port()}")  # nobody is there
    running.wait_log('"results":', 40)
    assert "results_dropped" in running.log()
    wait_until(lambda: "cannot send" in ready(started)["monitors_worker"], 20, "it is said at /ready")
    wait_until(lambda: b"ringcast_monitors_worker_dropped_total 0.0" not in started.get("/metrics")[2], 20)
    running.stop()
    with closing(sqlite3.connect(started.folder / "ringcast.db")) as connection:
        waiting = [kind for (kind,) in connection.execute("SELECT type FROM monitor_outgoing ORDER BY id")]
    assert len(waiting) == 5 and waiting[0] == "incident_created"
    kept = tenant.kept(monitor["id"])
    with tenant.stream() as stream:
        ground.worker(started)
        seen = Seen(stream, *following(stream, 5))
        assert seen.blocks[0].type == "incident_created"
        late = seen.checks(monitor["id"])
        assert late == [moment for moment in kept if moment in late]
        assert kept[0] not in late


@pytest.mark.fault
def test_a_second_worker_stands_by_and_takes_over(ground: Ground) -> None:
    """M3: one checks at a time; the other goes on within seconds of a stop, and of a kill."""
    started = ground.node()
    tenant = register(started)
    tenant.monitor(ground.site.url())
    first = ground.worker(started)
    with tenant.stream() as stream:
        following(stream, 1, CHECKS)
        second = ground.worker(started)
        second.wait_log("monitor_worker_started")
        blocks = following(stream, 3, CHECKS)
        times = [body_of(block)["data"]["checked_at"] for block in blocks]
        assert len(set(times)) == 3
        assert first.stop() == 0
        asked = len(ground.site.paths)
        wait_until(lambda: len(ground.site.paths) >= asked + 2, 10, "checks by the second worker")
        third = ground.worker(started)
        third.wait_log("monitor_worker_started")
        second.kill()
        asked = len(ground.site.paths)
        wait_until(lambda: len(ground.site.paths) >= asked + 2, 20, "checks by the third worker")
        assert third.stop() == 0


def test_it_says_what_is_missing(ground: Ground) -> None:
    """Where monitors wait for a worker, /ready and the page know; a demo needs none."""
    started = ground.node()
    tenant = register(started)
    assert ready(started)["monitors_worker"] == "ok"
    tenant.monitor(ground.site.url())
    wait_until(lambda: "no worker" in ready(started)["monitors_worker"], 15, "it is missed")
    running = ground.worker(started)
    wait_until(lambda: ready(started)["monitors_worker"] == "ok", 15, "it is there")
    assert b"ringcast_monitors_worker_up 1.0" in started.get("/metrics")[2]
    assert running.process is not None
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(20) == 0
    wait_until(lambda: "no worker" in ready(started)["monitors_worker"], 15, "it is missed again")
