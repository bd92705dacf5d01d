"""Tenants on one channel, each with a token for its own topic alone: whatever dies, nobody gets a byte of another's."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.faults.test_redis_faults import KEPT, over_redis
from tests.faults.witnesses import ELSEWHERE, TOPIC, Publisher, Scene, Subscriber
from tests.harness.process import TOKEN_SECRET
from tests.threats.tokens import bearer, signed

EVERYTHING = "/channels/main/events?topic=*"


def reader_of(topic: str) -> str:
    """What the tenant of this topic shows."""
    return bearer(signed({"mercure": {"subscribe": [topic]}, "tenant": topic, "sub": f"reader of {topic}"}))


class PrivatePublisher(Publisher):
    """May publish anything; all of it is private."""

    def __init__(self, *arguments: Any, **kind: Any) -> None:
        super().__init__(*arguments, Authorization=bearer(signed()), **kind)

    def request(self, number: int) -> tuple[str, str, str]:
        method, path, body = super().request(number)
        return method, path, json.dumps(json.loads(body) | {"private": True})


class Tenant(Subscriber):
    """Asks for everything, and may read one topic."""

    path = path_elsewhere = EVERYTHING

    def __init__(self, *arguments: Any, elsewhere: bool = False, **kind: Any) -> None:
        token = reader_of(ELSEWHERE if elsewhere else TOPIC)
        super().__init__(*arguments, elsewhere=elsewhere, Authorization=token, **kind)


class Tenants(Scene):
    publisher_of = PrivatePublisher
    subscriber_of = Tenant


def test_tenants_get_their_own_and_nothing_else_through_deaths_of_nodes_and_of_redis(tmp_path: Path, seed: int) -> None:
    """I4, FLT-02, FLT-09: live, replayed from memory and replayed from Redis; each also gets all that is its own."""
    rng = random.Random(seed)
    with (
        over_redis(tmp_path, KEPT, jwt_secret=TOKEN_SECRET, ring_events=50) as one,
        Tenants(*one.ports) as scene,
    ):
        for node in one.nodes:
            scene.wait_for(rng.randrange(30, 90))
            node.kill()
            scene.carried_on()
            scene.wait_for(rng.randrange(60, 120))
            node.start()
            scene.healed()
        one.redis.kill()
        one.redis.start()
        one.wait_ready(True)
        scene.healed()
        scene.wait_for(30)
    assert scene.history.problems() == []
    assert len(scene.history.others["returning elsewhere"]) > 10
