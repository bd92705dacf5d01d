"""Messages from a real NATS server on their way to companies, and the simulation that stands in for it."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.apps.asking import ask, headers_of
from tests.apps.audience import Audience
from tests.apps.companies import GENERAL, HEALTH, OPERATOR, data, metric, of, opened, path_of, until_stats, values
from tests.conftest import StartNode
from tests.faults.test_redis_faults import Site
from tests.faults.witnesses import Attempt
from tests.harness.databases import new_database
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


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
def shared(request: pytest.FixtureRequest, nats: NatsServer, redis: RedisServer, tmp_path: Path) -> dict[str, object]:
    """Settings of several nodes: SQLite is for a single one."""
    database = new_database(request, "postgresql", tmp_path)
    return SETTINGS | {"nats_url": nats.url, "relay": redis.url, "database": database}


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


def test_a_message_enters_once_whichever_node_gets_it(
    node: StartNode, nats: NatsServer, shared: dict[str, object]
) -> None:
    """C2, C5: two nodes in one queue group, over one Redis and one database."""
    first, second = node(**shared), node(**shared)
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


def audience_of(*servers: Node, seed: int) -> Audience:
    """Readers of two companies."""
    return Audience(
        [server.port for server in servers], key_of, path_of("a"), path_of("b"), seed=seed, **headers_of(OPERATOR)
    )


def judged(audience: Audience, told: list[Key]) -> list[str]:
    """What is wrong, where NATS has taken all these messages."""
    own, others = ([key for key in told if key[0] == company] for company in ("a", "b"))
    return audience.judged(own, others).problems()


@pytest.mark.fault
def test_messages_wait_while_the_log_does_not_answer(
    node: StartNode, nats: NatsServer, redis: RedisServer, seed: int
) -> None:
    """C2: and enter in their order, each once."""
    rng = random.Random(seed)
    server = node(**SETTINGS, nats_url=nats.url, relay=redis.url)
    until_active(server)
    with audience_of(server, seed=seed) as audience:
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

    with audience_of(server, seed=seed) as audience:
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


@contextmanager
def storing(nats: NatsServer, rng: random.Random) -> Iterator[list[Key]]:
    """Messages come all the time, in batches. What JetStream has stored is added; all of it when this is over."""
    told: list[Key] = []
    over = threading.Event()

    def store() -> None:
        while not over.wait(rng.uniform(0, 0.1)):
            more = numbered(rng, len(told), rng.randrange(1, 20))
            nats.store("metrics.calculated", *bodies(more))
            told.extend(more)

    thread = threading.Thread(target=store, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        over.set()
        thread.join(20)
        assert not thread.is_alive()


def kept(server: Node, count: int) -> list[Key | None]:
    """The first events of the log, of all companies."""
    whole = f"{GENERAL}?type=metric_updated&lastEventId=earliest"
    with Attempt(server.port, whole, seconds=20, **headers_of(OPERATOR)) as stream:
        return [key_of(block) for block in stream.events(count, 20)]


@pytest.fixture
def site(shared: dict[str, object], redis: RedisServer, tmp_path: Path) -> Iterator[Site]:
    """Two nodes that read JetStream, each with a proxy of its own to Redis."""
    # Nobody is to be told of a gap: what a node finds when it takes over comes in one go.
    patient = {"companies_nats_stream": "COMPANIES", "channels": json.dumps({"companies": {"lag_events": 100_000}})}
    own = {name: value for name, value in shared.items() if name != "relay"}
    both = Site(tmp_path, redis, **own | patient)
    yield both.start()
    both.stop()


@pytest.mark.fault
@pytest.mark.parametrize("taken", [True, False], ids=["taken-by-redis", "never-sent"])
def test_of_two_nodes_on_jetstream_one_is_killed_and_the_other_goes_on(
    site: Site, nats: NatsServer, seed: int, taken: bool
) -> None:
    """C2: the one that reads, with messages in hand, which Redis has and nobody has acknowledged, or which never came
    to Redis. Nothing that JetStream has is lost, nothing enters twice, and all of it is in its order."""
    rng = random.Random(seed)
    wait_until(lambda: any(facts(one)["active"] for one in site.nodes), 20, "a node that reads")
    [holder] = [one for one in site.nodes if facts(one)["active"]]
    [other] = [one for one in site.nodes if one is not holder]
    proxy = site.proxies[site.nodes.index(holder)]
    with audience_of(*site.nodes, seed=seed) as audience:
        with storing(nats, rng) as told:
            audience.wait_for(rng.randrange(20, 200))
            proxy.hold(forward=not taken, backward=taken)
            before = len(told)
            wait_until(lambda: len(told) > before, what="messages that it cannot finish")
            time.sleep(rng.uniform(0, 0.5))
            holder.kill()
            proxy.reset()
            proxy.heal()
            until_active(other)
            audience.wait_for(rng.randrange(20, 200))
            holder.start()
            audience.wait_for(rng.randrange(20, 200))
        assert judged(audience, told) == []
    assert (facts(holder)["active"], facts(other)["active"]) == (False, True)
    for server in site.nodes:
        assert kept(server, len(told)) == told
        until_stats(server, OPERATOR, replay=dict(Counter(company for company, _ in told)))


def test_without_nats_one_node_makes_something_up_and_says_so(node: StartNode, shared: dict[str, object]) -> None:
    """C2: for demo companies alone; another node goes on when it stops."""
    without = {name: value for name, value in shared.items() if name != "nats_url"}
    settings = without | {"companies_change_seconds": 0.02}
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
