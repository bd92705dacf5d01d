"""What a tenant changes is told behind what was found before, and what is found later behind what was changed (M3):
whoever applies a stream's events in order knows what is so, also where the worker has a queue.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.apps.monitor_board import Board
from tests.apps.monitoring import SECRET, Ground, Tenant, ask, register
from tests.conftest import starting
from tests.harness.process import Node, free_port, wait_until

ENDS = ("rule deleted", "rule paused", "monitor paused", "monitor deleted")
LAST = {"rule deleted": "alert_rule_deleted", "rule paused": "alert_rule_updated"} | {
    "monitor paused": "monitor_updated",
    "monitor deleted": "monitor_deleted",
}


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """With a site that fails; workers come and go."""
    folder = tmp_path_factory.mktemp("order")
    with starting(folder) as start, Ground(start, folder) as made:
        made.site.status = 500
        yield made


@pytest.fixture(scope="module")
def server(settled: Ground) -> Node:
    return settled.node()


def fallen(ground: Ground, tenant: Tenant) -> tuple[str, str]:
    """A monitor and a rule, and an incident that is stored and in no log: the worker knew no server."""
    rule = tenant.rule(breaches=1)["id"]
    monitor = tenant.monitor(ground.site.url())["id"]
    lost = ground.worker(tenant.node, monitors_servers=f"http://127.0.0.1:{free_port()}")
    wait_until(lambda: tenant.get("/api/v1/incidents")["incidents"], 30, "an incident")
    lost.kill()
    return monitor, rule


def end_it(tenant: Tenant, end: str, monitor: str, rule: str) -> None:
    path = f"/api/v1/alert-rules/{rule}" if end.startswith("rule") else f"/api/v1/monitors/{monitor}"
    if end.endswith("deleted"):
        assert tenant.ask("DELETE", path).status == 204
    else:
        assert tenant.ask("PATCH", path, {"enabled": False}).status == 200


@pytest.mark.fault
@pytest.mark.parametrize("end", ENDS)
def test_an_incident_is_resolved_behind_its_beginning_where_the_worker_has_a_queue(
    settled: Ground, server: Node, end: str, seed: int
) -> None:
    """M3: whether a worker comes back at once or later."""
    rng = random.Random(seed)
    tenant = register(server)
    board = Board()
    with tenant.stream() as stream:
        monitor, rule = fallen(settled, tenant)
        if rng.random() < 0.5:
            end_it(tenant, end, monitor, rule)
            running = settled.worker(server)
        else:
            running = settled.worker(server)
            end_it(tenant, end, monitor, rule)
        board.follow(stream, LAST[end])
        if end.startswith("rule"):
            board.follow(stream, "monitor_check")  # by the worker
        running.kill()
    assert board.wrong == []
    assert board.open == set()
    assert board.kinds.count("incident_created") == board.kinds.count("incident_resolved") == 1
    tenant.ask("DELETE", f"/api/v1/monitors/{monitor}")


@pytest.mark.parametrize("end", ENDS)
def test_a_change_waits_for_no_worker_that_is_away(settled: Ground, server: Node, end: str) -> None:
    """M3, M5: nodes tell what the worker has left of this tenant, and then the change."""
    tenant = register(server)
    board = Board()
    with tenant.stream() as stream:
        monitor, rule = fallen(settled, tenant)
        end_it(tenant, end, monitor, rule)
        board.follow(stream, LAST[end])
    assert (board.wrong, board.open) == ([], set())
    assert board.kinds[:2] == ["alert_rule_created", "monitor_created"]
    assert set(board.kinds[2:-3]) <= {"monitor_check"}
    assert board.kinds[-3:] in (
        ["incident_created", "incident_resolved", LAST[end]],
        ["monitor_check", "incident_resolved", LAST[end]],
    )
    assert board.kinds.count("incident_created") == 1
    tenant.ask("DELETE", f"/api/v1/monitors/{monitor}")


def test_what_the_worker_had_sent_already_is_told_once(settled: Ground, server: Node) -> None:
    """M2, M3: it had no answer, or died before it could write it down; a node tells it under the same key."""
    tenant = register(server)
    board = Board()
    with tenant.stream() as stream:
        monitor, rule = fallen(settled, tenant)
        for key, body in waiting(server.folder, tenant):
            answer = ask(server, "POST", "/internal/broadcast", body, Idempotency_Key=key, X_Internal_Secret=SECRET)
            assert answer.status == 200, answer.text
        end_it(tenant, "rule deleted", monitor, rule)
        board.follow(stream, "alert_rule_deleted")
    assert (board.wrong, board.open) == ([], set())
    assert board.kinds.count("incident_created") == board.kinds.count("incident_resolved") == 1
    wait_until(lambda: not waiting(server.folder, tenant), what="an empty queue")
    tenant.ask("DELETE", f"/api/v1/monitors/{monitor}")


def waiting(folder: Path, tenant: Tenant) -> list[tuple[str, str]]:
    """Keys and bodies of a tenant's events that are in no log, as far as is written down."""
    query = "SELECT key, body FROM monitor_outgoing WHERE tenant_id = ? ORDER BY id"
    with closing(sqlite3.connect(folder / "ringcast.db")) as connection:
        return list(connection.execute(query, (tenant.number,)))
