"""Messages from a real NATS server on their way to companies, and the simulation that stands in for it."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apps.asking import ask, headers_of
from tests.apps.audience import Audience
from tests.apps.companies import HEALTH, OPERATOR, data, metric, of, opened, path_of, until_stats, values
from tests.conftest import StartNode
from tests.harness.nats import NatsServer
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.redis import RedisServer
from tests.harness.stream import Block

Key = tuple[str, float]  # a company, and the value that it is told
SETTINGS = {"apps": "companies", "jwt_secret": TOKEN_SECRET, "drain_seconds": 0}


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path).start()
    yield server
    server.stop()


def facts(node: Node) -> dict[str, Any]:
    """What is known of the bridge."""
    found: dict[str, Any] = json.loads(node.get("/stats", **headers_of(OPERATOR))[2])["bridges"]["companies"]
    return found


def until_active(*nodes: Node) -> None:
    for node in nodes:
        wait_until(lambda node=node: facts(node)["active"], 20, f"the bridge of {node.url}")


def counted(node: Node, name: str) -> float:
    lines = node.get("/metrics", **headers_of(OPERATOR))[2].decode().splitlines()
    return float(next((line.split()[1] for line in lines if line.startswith(name)), -1))


def test_messages_become_events_of_their_company_and_others_are_refused(node: StartNode, nats: NatsServer) -> None:
    """C1, C2, C4: the seed's subjects and bodies; what names no company is counted and logged, and holds up nothing."""
    server = node(**SETTINGS, nats_url=nats.url)
    until_active(server)
    with opened(server, "a", of("a")) as ours, opened(server, "b", of("b")) as theirs:
        nats.publish("metrics.calculated", json.dumps(metric("a")), '{"value": "a secret"}', "no JSON")
        nats.publish("metrics.sroi_calculated", '{"companyId": "a", "value": 3.4}')
        nats.publish("metrics.too.deep", json.dumps(metric("a", 9)))
        nats.publish("orders.made", json.dumps(metric("a", 9)))
        nats.publish("journey.flag_updated", '{"companyId": "b", "userId": "u", "flag": "struggling"}')
        nats.publish("journey.flag_updated", '{"companyId": "a", "userId": "u", "flag": "struggling"}')
        nats.publish("q2q.completed", '{"companyId": "a", "value": 70}', '{"companyId": "*", "value": 70}')
        events = ours.events(4)
        assert sorted(event.type for event in events) == [
            "journey_flag_updated",
            "metric_updated",
            "sroi_updated",
            "vis_updated",
        ]
        by_type = {event.type: data(event) for event in events}
        assert by_type["metric_updated"] == metric("a")
        assert by_type["journey_flag_updated"] == {"companyId": "a", "userId": "u", "flag": "struggling"}
        assert data(theirs.events(1)[0])["companyId"] == "b"
    wait_until(lambda: facts(server)["unmappable"] == 3, 10, "three refusals")
    assert facts(server)["published"] == 5
    log = server.log()
    assert "unmappable" in log and "companyId" in log
    assert "a secret" not in log
    until_stats(server, OPERATOR, replay={"a": 4, "b": 1})
    assert counted(server, "ringcast_companies_simulated_total") == -1  # it is the real thing


def test_the_bridge_s_state_is_in_the_health(node: StartNode, nats: NatsServer) -> None:
    """C2, C5."""
    server = node(**SETTINGS, nats_url=nats.url)
    until_active(server)
    assert ask(server, "GET", HEALTH, claims=OPERATOR)[1]["status"] == "ok"
    nats.stop()
    wait_until(lambda: ask(server, "GET", HEALTH, claims=OPERATOR)[1]["status"] == "degraded", 20)
    nats.start()
    wait_until(lambda: ask(server, "GET", HEALTH, claims=OPERATOR)[1]["status"] == "ok", 20)
    until_active(server)
    with opened(server, "a", of("a")) as stream:
        nats.publish("metrics.calculated", json.dumps(metric("a")))
        assert values(stream, 1) == [0.85]


def test_a_message_enters_once_whichever_node_gets_it(node: StartNode, nats: NatsServer, tmp_path: Path) -> None:
    """C2, C5: two nodes in one queue group, over one Redis."""
    redis = RedisServer(tmp_path).start()
    try:
        settings = SETTINGS | {"nats_url": nats.url, "relay": redis.url, "database": f"sqlite:{tmp_path}/shared.db"}
        first, second = node(**settings), node(**settings)
        until_active(first, second)
        with opened(first, "a", of("a")) as here, opened(second, "a", of("a")) as there:
            sent = [float(number) for number in range(200)]
            nats.publish("metrics.calculated", *[json.dumps(metric("a", number)) for number in sent])
            found = values(here, 200)
            assert sorted(found) == sent
            assert values(there, 200) == found
            for server in (first, second):
                until_stats(server, OPERATOR, connections={"a": 2}, replay={"a": 200})
        # A reader may have an event before the bridge has the log's answer.
        wait_until(lambda: facts(first)["published"] + facts(second)["published"] >= 200, what="the last answer")
        assert facts(first)["published"] + facts(second)["published"] == 200
    finally:
        redis.stop()


def bodies(told: list[Key]) -> list[str]:
    """Messages of these companies with these values."""
    return [json.dumps(metric(*one)) for one in told]


def numbered(rng: random.Random, first: int, count: int) -> list[Key]:
    """So many keys of messages from a number on, now and then of another company."""
    return [("b" if rng.random() < 0.2 else "a", float(number)) for number in range(first, first + count)]


def key_of(block: Block) -> Key | None:
    """Of what a company is told; the first event of a stream tells nothing of one."""
    said = data(block)
    return (said["companyId"], said["value"]) if block.type == "metric_updated" else None


def audience_of(server: Node, seed: int) -> Audience:
    """Readers of two companies."""
    return Audience([server.port], key_of, path_of("a"), path_of("b"), seed=seed, **headers_of(OPERATOR))


def judged(audience: Audience, told: list[Key]) -> list[str]:
    """What is wrong, where NATS has taken all these messages."""
    own, others = ([key for key in told if key[0] == company] for company in ("a", "b"))
    return audience.judged(own, others).problems()


@pytest.mark.fault
def test_messages_wait_while_the_log_does_not_answer(
    node: StartNode, nats: NatsServer, tmp_path: Path, seed: int
) -> None:
    """C2: and enter in their order, each once."""
    rng = random.Random(seed)
    redis = RedisServer(tmp_path).start()
    try:
        server = node(**SETTINGS, nats_url=nats.url, relay=redis.url)
        until_active(server)
        with audience_of(server, seed) as audience:
            told = numbered(rng, 0, rng.randrange(1, 50))
            nats.publish("metrics.calculated", *bodies(told))
            wait_until(lambda: facts(server)["published"] == len(told), what="the first messages")
            redis.signal(signal.SIGSTOP)
            later = numbered(rng, len(told), rng.randrange(200, 300))
            nats.publish("metrics.calculated", *bodies(later))
            wait_until(lambda: facts(server)["lag"] == len(later))
            time.sleep(rng.uniform(0, 1))
            redis.signal(signal.SIGCONT)
            told += later
            assert judged(audience, told) == []
        counts = Counter(company for company, _ in told)
        until_stats(server, OPERATOR, replay=dict(counts))
        wait_until(lambda: facts(server)["published"] >= len(told), what="the last answer of the log")
        assert (facts(server)["published"], facts(server)["dropped"]) == (len(told), 0)
    finally:
        redis.stop()


@pytest.mark.fault
def test_jetstream_keeps_what_comes_while_no_node_is_there(
    node: StartNode, nats: NatsServer, tmp_path: Path, seed: int
) -> None:
    """C2: by a setting; in order, once, though the node is killed and NATS too, whichever comes first."""
    rng = random.Random(seed)
    settings = SETTINGS | {"nats_url": nats.url, "companies_nats_stream": "COMPANIES"}
    server = node(**settings, relay=f"sqlite:{tmp_path}/log.db")
    until_active(server)
    told: list[Key] = []

    def store() -> None:
        more = numbered(rng, len(told), rng.randrange(1, 60))
        nats.store("metrics.calculated", *bodies(more))
        told.extend(more)

    with audience_of(server, seed) as audience:
        for victim in rng.sample([server, nats], 2):
            store()
            time.sleep(rng.uniform(0, 0.1))
            victim.kill()
            if victim is server:
                store()
            time.sleep(rng.uniform(0, 0.5))
            victim.start()
        store()
        assert judged(audience, told) == []
    until_stats(server, OPERATOR, replay=dict(Counter(company for company, _ in told)))


def test_without_nats_one_node_makes_something_up_and_says_so(node: StartNode, tmp_path: Path) -> None:
    """C2: for demo companies alone; another node goes on when it stops."""
    settings = SETTINGS | {"companies_change_seconds": 0.02, "database": f"sqlite:{tmp_path}/shared.db"}
    first = node(**settings)
    name = "ringcast_companies_simulated_total"
    wait_until(lambda: counted(first, name) > 2)
    second = node(**settings)
    with opened(first, "demo-aurora", of("demo-aurora")) as stream:
        assert all(data(event)["simulated"] is True for event in stream.events(5))
    assert counted(second, name) == 0
    stats = ask(first, "GET", "/stream/stats", claims=OPERATOR)[1]
    assert set(stats["replayCache"]["eventsByCompany"]) <= {"demo-aurora", "demo-borealis", "demo-cobalt"}
    assert first.stop() == 0
    wait_until(lambda: counted(second, name) > 2, 20)
