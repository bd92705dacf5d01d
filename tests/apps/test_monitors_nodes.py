"""Monitors on two nodes over PostgreSQL and Redis, with one worker that knows both (M3): whichever is killed, each
result and each incident is told once and in order, and so is what is changed meanwhile.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps.monitor_witnesses import Watched
from tests.apps.monitoring import Ground, Tenant
from tests.harness.postgres import PostgresServer
from tests.harness.process import Node, wait_until
from tests.harness.redis import RedisServer

RULES = "/api/v1/alert-rules"


@pytest.fixture
def pair(ground: Ground, postgres: PostgresServer, tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two nodes over one Redis and one database."""
    redis = RedisServer(tmp_path).start()
    shared = {
        "relay": f"redis://127.0.0.1:{redis.port}/0",
        "database": postgres.url(f"monitors_nodes_{uuid.uuid4().hex[:8]}"),
    }
    try:
        yield ground.node(**shared), ground.node(**shared)
    finally:
        redis.stop()


def open_incidents(tenant: Tenant) -> set[str]:
    """The rules that have one."""
    return {one["alert_rule_id"] for one in tenant.get("/api/v1/incidents?status=open")["incidents"]}


def delete(tenant: Tenant, rules: set[str]) -> None:
    for rule in rules:
        assert tenant.ask("DELETE", f"{RULES}/{rule}").status == 204


def one_dies(ground: Ground, watched: Watched, victim: Node, left: Node, rng: random.Random) -> None:
    """Incidents of new rules open, a node is killed and comes back, and all incidents end, in ways that are drawn."""
    hit, stays = watched.tenant.on(victim), watched.tenant.on(left)
    rules = {
        stays.rule(monitor_id=one, breaches=rng.choice((1, 2)), recoveries=rng.choice((1, 2)))["id"]
        for one in watched.monitors
    }
    ground.site.status = 500
    if rng.random() < 0.5:
        wait_until(lambda: open_incidents(stays), 30, "an incident")
    time.sleep(rng.uniform(0, 1.5))
    some = {rng.choice(sorted(rules))}
    delete(hit, some)  # it dies before or after it has told of that
    victim.kill()
    rules -= some
    wait_until(lambda: open_incidents(stays) == rules, 30, "all incidents")
    some = {rng.choice(sorted(rules))}
    delete(stays, some)
    rules -= some
    if rng.random() < 0.5:
        ground.site.status = 200
        time.sleep(rng.uniform(0, 1.5))
    victim.start()
    ground.site.status = 200
    wait_until(lambda: not open_incidents(stays), 30, "no incident")
    delete(stays, rules)


@pytest.mark.fault
def test_nodes_that_are_killed_in_turn_lose_and_double_no_result_and_no_incident(
    ground: Ground, pair: tuple[Node, Node], seed: int
) -> None:
    """M3, M1: while incidents open, are resolved by good checks, and by rules that are deleted."""
    rng = random.Random(seed)
    with Watched(pair[0], ground.site, seed, monitors=4, beside=pair[1:]) as watched:
        running = ground.worker(pair[0], monitors_servers=f"{pair[0].url},{pair[1].url}")
        watched.wait_for(1)
        first, second = rng.sample(pair, 2)
        one_dies(ground, watched, first, second, rng)
        watched.wait_for(rng.randrange(1, 8))
        one_dies(ground, watched, second, first, rng)
        watched.wait_for(rng.randrange(1, 8))
        history = watched.history()
        assert running.stop() == 0
    assert history.problems() == []
