"""The worker of `monitors` among others (M3): one at a time, within bounds, and missed when it is not there."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from tests.apps.monitor_witnesses import CREATED, Account, Watched, key_of_told, stored
from tests.apps.monitoring import Ground, ready, register
from tests.harness.process import free_port, wait_until


@pytest.mark.fault
def test_while_the_server_is_away_results_are_bounded_and_what_goes_is_said(ground: Ground, seed: int) -> None:
    """M3: the oldest checks go first, incidents last; what is kept is told, and nothing of what was dropped."""
    rng = random.Random(seed)
    started = ground.node(monitors_keep_results=5)
    with Watched(started, ground.site, seed, monitors=4) as watched:
        watched.tenant.rule(breaches=1, monitor_id=rng.choice(watched.monitors))
        ground.site.status = 500
        running = ground.worker(started, monitors_servers=f"http://127.0.0.1:{free_port()}")  # nobody is there
        running.wait_log('"results":', 40)
        time.sleep(rng.uniform(0, 1))
        assert "results_dropped" in running.log()
        wait_until(lambda: "cannot send" in ready(started)["monitors_worker"], 20, "it is said at /ready")
        wait_until(lambda: b"ringcast_monitors_worker_dropped_total 0.0" not in started.get("/metrics")[2], 20)
        running.stop()
        with closing(sqlite3.connect(started.folder / "ringcast.db")) as connection:
            waiting = [
                json.loads(body) for (body,) in connection.execute("SELECT body FROM monitor_outgoing ORDER BY id")
            ]
        kept, others = (
            [key_of_told(one["type"], one["data"]) for one in waiting if one["tenant_id"] == tenant.number]
            for tenant in (watched.tenant, watched.other)
        )
        assert (len(waiting), waiting[0]["type"]) == (5, CREATED)
        assert kept == [key for key in stored(watched.tenant).told if key in kept]
        watched.pause()
        last = ground.worker(started)
        accounts = [
            Account(told, stored(tenant).apart) for told, tenant in ((kept, watched.tenant), (others, watched.other))
        ]
        history = watched.judged_by(*accounts)
        assert last.stop() == 0
    assert history.problems() == []


@pytest.mark.fault
def test_a_second_worker_stands_by_and_takes_over(ground: Ground, seed: int) -> None:
    """M3: one checks at a time; the other goes on within seconds of a stop, and of a kill. What both have stored is
    told once, in its order."""
    rng = random.Random(seed)
    started = ground.node()
    with Watched(started, ground.site, seed) as watched:
        first = ground.worker(started)
        watched.wait_for(1)
        second = ground.worker(started)
        second.wait_log("monitor_worker_started")
        watched.wait_for(rng.randrange(1, 7))
        assert first.stop() == 0
        asked = len(ground.site.paths)
        wait_until(lambda: len(ground.site.paths) >= asked + 2, 10, "checks by the second worker")
        third = ground.worker(started)
        third.wait_log("monitor_worker_started")
        time.sleep(rng.uniform(0, 0.5))
        second.kill()
        asked = len(ground.site.paths)
        wait_until(lambda: len(ground.site.paths) >= asked + 2, 20, "checks by the third worker")
        history = watched.history()
        assert third.stop() == 0
    assert history.problems() == []


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
