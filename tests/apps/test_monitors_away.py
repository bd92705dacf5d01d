"""The worker of `monitors` when something is away (M3): itself by a `kill -9`, the server, the database. Nothing that
was stored is lost, nothing is told twice, and the order stays, for whoever reads.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps.monitor_witnesses import Watched
from tests.apps.monitoring import SECRET, SETTINGS, Ground
from tests.conftest import StartNode, starting
from tests.harness.postgres import PostgresServer
from tests.harness.process import Node, wait_until
from tests.harness.proxy import Proxy

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """For tests that change workers only."""
    folder = tmp_path_factory.mktemp("lasting")
    with starting(folder) as start, Ground(start, folder) as made:
        yield made


@pytest.fixture(scope="module")
def server(lasting: Ground) -> Node:
    return lasting.node()


def wait_for_checks(ground: Ground, more: int, what: str) -> None:
    """Until the site has been asked so many times more."""
    goal = len(ground.site.paths) + more
    wait_until(lambda: len(ground.site.paths) >= goal, 20, what)


def test_a_worker_that_is_killed_loses_nothing_and_doubles_nothing(lasting: Ground, server: Node, seed: int) -> None:
    """M3: what is in the history is on the stream, once and in order, whenever it was killed or stopped: also between
    a result that it sent and the answer, which is when the server stands still."""
    rng = random.Random(seed)
    with Watched(server, lasting.site, seed, monitors=6) as watched:
        for unanswered in rng.sample([False, True], 2):
            running = lasting.worker(server)
            watched.wait_for(rng.randrange(8, 20))
            time.sleep(rng.uniform(0, 0.2))
            if unanswered:
                os.kill(server.pid, signal.SIGSTOP)
                wait_for_checks(lasting, 2, "checks whose results are sent to nobody")
                time.sleep(rng.uniform(0.1, 0.3))
            running.kill()
            os.kill(server.pid, signal.SIGCONT)
        stopped = lasting.worker(server)
        watched.wait_for(rng.randrange(8, 20))
        assert stopped.stop() == 0
        last = lasting.worker(server)  # what the one before has left
        watched.wait_for(1)
        history = watched.history()
        last.kill()
    assert history.problems() == []


def test_what_the_worker_has_in_hand_while_something_changes_is_told_once(
    lasting: Ground, server: Node, seed: int
) -> None:
    """M3: its requests are held up, or their answers, so a node tells what stands before the change; then the worker
    goes on with that, under the same keys."""
    rng = random.Random(seed)
    proxy = Proxy(server.port).start()
    try:
        with Watched(server, lasting.site, seed, monitors=6) as watched:
            running = lasting.worker(server, monitors_servers=f"http://127.0.0.1:{proxy.port}")
            for unasked in rng.sample([False, False, True], 3):
                watched.wait_for(rng.randrange(4, 10))
                proxy.hold(forward=unasked)
                wait_for_checks(lasting, rng.randrange(1, 8), "checks whose results are sent in vain")
                with watched.tenant.stream() as stream:
                    watched.tenant.rule(enabled=False)
                    while stream.next_event().type != "alert_rule_created":
                        pass
                proxy.heal()
            watched.wait_for(rng.randrange(4, 10))
            history = watched.history()
            assert running.stop() == 0
        assert history.problems() == []
    finally:
        proxy.stop()


def test_a_server_that_is_away_gets_everything_when_it_is_back(ground: Ground, tmp_path: Path, seed: int) -> None:
    """M3: the worker goes on without it; then results arrive in their order, an incident among them."""
    rng = random.Random(seed)
    log = f"sqlite:{tmp_path}/log.db"
    started = ground.node(relay=log)
    with Watched(started, ground.site, seed) as watched:
        watched.tenant.rule(breaches=2, monitor_id=rng.choice(watched.monitors))
        running = ground.worker(started)
        watched.wait_for(rng.randrange(1, 8))
        time.sleep(rng.uniform(0, 0.2))
        started.kill()
        running.wait_log("server_takes_no_results")
        ground.site.status = 500
        wait_for_checks(ground, rng.randrange(8, 20), "checks while the server is away")
        started.start()
        running.wait_log("server_takes_results_again")
        wait_until(lambda: watched.tenant.get("/api/v1/incidents")["incidents"], 20, "an incident")
        history = watched.history()
        assert running.stop() == 0
    assert history.problems() == []


def test_a_wrong_secret_is_no_end(lasting: Ground, server: Node, seed: int) -> None:
    """M2, M3: it is said, and results wait until somebody has put it right."""
    rng = random.Random(seed)
    with Watched(server, lasting.site, seed) as watched:
        wrong = lasting.worker(server, monitors_secret="not the secret at all")
        wrong.wait_log("answered 401")
        wait_for_checks(lasting, rng.randrange(4, 16), "checks that nobody takes")
        wrong.stop()
        assert watched.readers[0].log == []
        right = lasting.worker(server)
        watched.wait_for(rng.randrange(4, 12))
        history = watched.history()
        right.kill()
    assert history.problems() == []


def test_a_database_that_is_away_stops_nobody(ground: Ground, node: StartNode, seed: int) -> None:
    """M3: it checks on by what it knows, and keeps what it finds until it can be stored and sent, in order."""
    rng = random.Random(seed)
    database = PostgresServer().start()
    try:
        own = {"monitors_ports": ground.site.port, "monitors_secret": SECRET, "database": database.url("away")}
        started = node(**SETTINGS, **own)
        with Watched(started, ground.site, seed) as watched:
            running = ground.worker(started)
            watched.wait_for(rng.randrange(1, 10))
            time.sleep(rng.uniform(0, 0.2))
            database.kill()
            running.wait_log("results_not_stored")
            wait_for_checks(ground, rng.randrange(4, 16), "checks without a database")
            assert watched.tenant.ask("GET", "/api/v1/monitors").status == 503
            database.start()
            running.wait_log("results_stored_again", 30)
            history = watched.history()
            assert running.stop() == 0
        assert history.problems() == []
    finally:
        database.stop()


def state_of_outbox(node: Node) -> str:
    """What /ready says of it."""
    return str(json.loads(node.get("/ready")[2])["checks"]["outbox"])


def test_a_database_that_is_read_only_costs_no_result(
    ground: Ground, node: StartNode, postgres: PostgresServer, seed: int
) -> None:
    """M3: as behind a failover to a standby, which answers, and stores nothing."""
    rng = random.Random(seed)
    name = f"monitors_standby_{seed}"
    own = {"monitors_ports": ground.site.port, "monitors_secret": SECRET, "database": postgres.url(name)}
    started = node(**SETTINGS, **own)
    with Watched(started, ground.site, seed) as watched:
        running = ground.worker(started)
        watched.wait_for(rng.randrange(1, 10))
        time.sleep(rng.uniform(0, 0.2))
        postgres.set_read_only(name)
        running.wait_log("results_not_stored")
        wait_for_checks(ground, rng.randrange(4, 16), "checks that cannot be stored")
        postgres.set_writable(name)
        running.wait_log("results_stored_again", 30)
        # Until the node has written once it may have connections from before.
        wait_until(lambda: state_of_outbox(started) == "ok", what="the node's outbox")
        history = watched.history()
        assert running.stop() == 0
        assert "result_not_stored" not in running.log()
    assert history.problems() == []
