"""The applications' PostgreSQL dies and comes back, and so do the nodes that write to it: a change that was
acknowledged is told to everybody, once and in its order, and one that was not made is told to nobody.

Each change sets the waiting time of one of two facilities to the next number. Making it again changes nothing, so who
got no answer asks again.
"""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest

from tests.faults.witnesses import ELSEWHERE, TOPIC, Publisher, Scene, Subscriber
from tests.harness.postgres import PostgresServer
from tests.harness.process import Node

FACILITIES = {TOPIC: "fac_001", ELSEWHERE: "fac_002"}


class Changer(Publisher):
    """Sets the waiting time to the number."""

    def request(self, number: int) -> tuple[str, str, str]:
        facility = FACILITIES[self.topic_of(number)]
        return "PATCH", f"/api/facilities/{facility}", json.dumps({"avg_wait_minutes": number})


class Watcher(Subscriber):
    """Watches one facility."""

    path = f"/api/stream/facilities/{FACILITIES[TOPIC]}"
    path_elsewhere = f"/api/stream/facilities/{FACILITIES[ELSEWHERE]}"
    type = "wait_time_update"

    def number_of(self, data: str) -> int:
        return int(json.loads(data)["changed_fields"]["avg_wait_minutes"])


class Waiting(Scene):
    """Somebody changes the facilities, and some watch one of them."""

    publisher_of = Changer
    subscriber_of = Watcher


@pytest.fixture
def application() -> dict[str, Any]:
    return {"apps": "facilities"}


def test_changes_are_told_once_and_in_order_through_deaths_of_the_database(
    database: PostgresServer, nodes: list[Node], seed: int
) -> None:
    rng = random.Random(seed)
    with Waiting(*[node.port for node in nodes], every=0.01) as scene:
        for _ in range(2):
            scene.wait_for(rng.randrange(20, 60))
            database.kill()
            time.sleep(rng.uniform(0, 1))  # for so long there is none
            database.start()
            scene.healed()
        scene.wait_for(30)
    assert scene.history.problems() == []
    assert "ok" in scene.history.outcomes.values()


def test_changes_are_told_once_and_in_order_through_deaths_of_nodes(nodes: list[Node], seed: int) -> None:
    """A node that dies between its commit and the append leaves the event to the other."""
    rng = random.Random(seed)
    with Waiting(*[node.port for node in nodes], every=0.01) as scene:
        for node in nodes:
            scene.wait_for(rng.randrange(20, 60))
            node.kill()
            scene.carried_on()
            scene.wait_for(20)
            node.start()
            scene.healed()
        scene.wait_for(20)
    assert scene.history.problems() == []
