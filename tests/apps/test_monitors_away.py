"""The worker of `monitors` when something is away (M3): itself by a `kill -9`, the server, the database. Nothing that
was stored is lost, nothing is told twice, and the order stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps.monitoring import SECRET, SETTINGS, Ground, Seen, following, register
from tests.conftest import StartNode, starting
from tests.harness.postgres import PostgresServer
from tests.harness.process import Node, wait_until

pytestmark = pytest.mark.fault

CHECKS = ("monitor_check",)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """For tests that change workers only."""
    folder = tmp_path_factory.mktemp("lasting")
    with starting(folder) as start, Ground(start, folder) as made:
        yield made


@pytest.fixture(scope="module")
def server(lasting: Ground) -> Node:
    return lasting.node()


def test_a_worker_that_is_killed_loses_nothing_and_doubles_nothing(lasting: Ground, server: Node) -> None:
    """M3: what is in the history is on the stream, once and in order, whenever it was killed."""
    tenant = register(server)
    monitors = [tenant.monitor(lasting.site.url(f"/{number}"))["id"] for number in range(6)]
    with tenant.stream() as stream:
        stream.next_event()
        seen = Seen(stream)
        for wanted in (15, 35):
            running = lasting.worker(tenant.node)
            seen.until(lambda wanted=wanted: len(seen.blocks) > wanted)  # type: ignore[misc]
            running.kill()
        last = lasting.worker(tenant.node)
        seen.until(lambda: len(seen.blocks) > 50)
        last.wait_log("monitor_worker_started")
        assert last.stop() == 0
        kept = {monitor_id: tenant.kept(monitor_id) for monitor_id in monitors}
        final = lasting.worker(tenant.node)  # what the last one has left
        seen.until(lambda: all(kept[one][-1] in seen.checks(one) for one in monitors))
        final.kill()
    for monitor_id in monitors:
        assert seen.checks(monitor_id)[: len(kept[monitor_id])] == kept[monitor_id]
    assert Counter(block.id for block in seen.blocks).most_common(1)[0][1] == 1


def test_a_server_that_is_away_gets_everything_when_it_is_back(ground: Ground, tmp_path: Path) -> None:
    """M3: the worker goes on without it; then results arrive in their order, incidents among them."""
    log = f"sqlite:{tmp_path}/log.db"
    started = ground.node(relay=log)
    tenant = register(started)
    monitor = tenant.monitor(ground.site.url())
    tenant.rule(breaches=2)
    running = ground.worker(started)
    with tenant.stream() as stream:
        last = following(stream, 1, CHECKS)[0]
    started.kill()
    running.wait_log("server_takes_no_results")
    asked = len(ground.site.paths)
    ground.site.status = 500
    wait_until(lambda: len(ground.site.paths) >= asked + 4, 20, "checks while the server is away")
    again = ground.node(relay=log, port=started.port)
    tenant = tenant.on(again)
    with tenant.stream(Last_Event_ID=last.id) as stream:
        seen = Seen(stream, last)
        seen.until(lambda: any(block.type == "incident_created" for block in seen.blocks))
        kept = tenant.kept(monitor["id"])
        seen.until(lambda: kept[-1] in seen.checks(monitor["id"]))
    assert seen.checks(monitor["id"])[: len(kept)] == kept
    running.wait_log("server_takes_results_again")
    assert running.stop() == 0


def test_a_wrong_secret_is_no_end(lasting: Ground, server: Node) -> None:
    """M2, M3: it is said, and results wait until somebody has put it right."""
    tenant = register(server)
    asked = len(lasting.site.paths)
    monitor = tenant.monitor(lasting.site.url())
    with tenant.stream() as stream:
        stream.next_event()
        wrong = lasting.worker(server, monitors_secret="not the secret at all")
        wrong.wait_log("answered 401")
        wait_until(lambda: len(lasting.site.paths) >= asked + 10, 20)
        wrong.stop()
        lasting.worker(server)
        kept, seen = tenant.kept(monitor["id"]), Seen(stream)
        seen.until(lambda: kept[-1] in seen.checks(monitor["id"]))
        assert seen.checks(monitor["id"])[: len(kept)] == kept


def test_a_database_that_is_away_stops_nobody(ground: Ground, node: StartNode) -> None:
    """M3: it checks on by what it knows, and keeps what it finds until it can be stored and sent, in order."""
    database = PostgresServer().start()
    try:
        started = node(
            **SETTINGS, monitors_ports=ground.site.port, monitors_secret=SECRET, database=database.url("away")
        )
        tenant = register(started)
        monitor = tenant.monitor(ground.site.url())
        running = ground.worker(started)
        with tenant.stream() as stream:
            [first] = following(stream, 1, CHECKS)
            database.kill()
            running.wait_log("results_not_stored")
            asked = len(ground.site.paths)
            wait_until(lambda: len(ground.site.paths) >= asked + 3, 20, "checks without a database")
            assert tenant.ask("GET", "/api/v1/monitors").status == 503
            database.start()
            running.wait_log("results_stored_again", 30)
            kept, seen = tenant.kept(monitor["id"]), Seen(stream, first)
            seen.until(lambda: kept[-1] in seen.checks(monitor["id"]))
            assert seen.checks(monitor["id"])[: len(kept)] == kept
        assert running.stop() == 0
    finally:
        database.stop()
