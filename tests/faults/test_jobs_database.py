"""The jobs' PostgreSQL dies while a service reports on a job, and comes back: every report that was taken is told to
everybody who watches, once and in its order, and the stream ends with the job.

A report is repeated until it is taken, and saying it again changes nothing. So beside what the checker asks the account
is exact: whoever watches sees each number once, and the end.
"""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from tests.apps.job_witnesses import Reporting
from tests.apps.jobbing import job
from tests.harness.postgres import PostgresServer
from tests.harness.process import Node, wait_until


@pytest.fixture
def application() -> dict[str, Any]:
    return {"apps": "jobs", "jobs_streams_per_minute": 100_000}


def test_every_report_and_the_end_are_told_once_and_in_order_through_deaths_of_the_database(
    database: PostgresServer, nodes: list[Node], seed: int
) -> None:
    rng = random.Random(seed)
    with Reporting(*[node.port for node in nodes], every=0.01) as scene:
        service = scene.publisher
        for _ in range(2):
            scene.wait_for(rng.randrange(20, 60))
            database.kill()
            time.sleep(rng.uniform(0, 1))  # for so long there is none
            database.start()
        scene.wait_for(30)
        with service.turn:
            service.leaving.set()
            database.kill()  # so the end is reported while there is none
        wait_until(lambda: service.tries_of_the_end >= 2, 20, "the end is refused")
        database.start()
    assert scene.history.problems() == []
    assert scene.inexact() == []
    assert set(scene.history.outcomes.values()) == {"ok"}
    for number, topic in service.ends.items():
        for node in nodes:
            found = job(node, service.jobs[topic])
            assert (found["status"], found["progress"], found["data"]) == ("completed", 100, number)
