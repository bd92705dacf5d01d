"""Core NATS with a real server: once, in order, and what is done when NATS or the relay is away."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.bridges.conftest import bridge, data, facts, listen, mapping, settings, state, until_active
from tests.bridges.fed import fed
from tests.bridges.feeder import CoreFeeder
from tests.conftest import StartNode
from tests.harness.nats import NatsServer
from tests.harness.process import wait_until
from tests.harness.redis import RedisServer
from tests.nginx.certificate import make_certificate

COMPANIES = (
    mapping("metrics.*", "companies/{json.companyId}", type="metric_updated", private=True),
    mapping("journey.*", "companies/{json.companyId}", type="journey_flag_updated", private=True),
    mapping("q2q.*", "companies/{json.companyId}", type="vis_updated", private=True),
)
NUMBERS = bridge("nats", "n", mapping("numbers.*", "{subject[1]}"))


def test_c2_messages_of_the_three_families_reach_the_right_company(nats: NatsServer, node: StartNode) -> None:
    """C2: subjects `metrics.*`, `journey.*`, `q2q.*`, turned into events of the right company."""
    one = node(**settings(bridge("nats", "companies", *COMPANIES), nats_url=nats.url))
    until_active(one, "companies")
    with listen(one, "companies/a") as stream:
        nats.publish("metrics.calculated", '{"companyId":"b","value":1}', '{"companyId":"a","value":0.85}')
        nats.publish("metrics.deeper.than.one", '{"companyId":"a"}')
        nats.publish("other.subject", '{"companyId":"a"}')
        nats.publish("journey.flag_updated", '{"companyId":"a","userId":"u","flag":"struggling"}')
        nats.publish("q2q.done", '{"companyId":"a"}')
        found = stream.events(3)
    assert {event.type: json.loads(str(event.data)) for event in found} == {
        "metric_updated": {"companyId": "a", "value": 0.85},
        "journey_flag_updated": {"companyId": "a", "userId": "u", "flag": "struggling"},
        "vis_updated": {"companyId": "a"},
    }
    assert facts(one, "companies")["published"] == 4


def test_a_subject_keeps_its_order_and_poison_does_not_stop_it(nats: NatsServer, node: StartNode) -> None:
    one = node(**settings(bridge("nats", "n", mapping("n", data="{json.n}")), nats_url=nats.url))
    until_active(one, "n")
    bodies = [f'{{"n":{number}}}' for number in range(3_000)]
    for place in range(0, len(bodies), 100):
        bodies[place] = "poison\n\nid: 1\nevent: gap"
    began = time.monotonic()
    with listen(one) as stream:
        nats.publish("n", *bodies)
        assert data(stream, 2_970) == [str(number) for number in range(3_000) if number % 100]
    assert facts(one, "n")["unmappable"] == 30
    assert len(re.findall("unmappable", one.log())) <= 2 + (time.monotonic() - began)  # one a second
    assert "poison" not in one.log()


def test_a_message_id_of_the_publisher_enters_once(nats: NatsServer, node: StartNode) -> None:
    one = node(**settings(bridge("nats", "n", mapping("n")), nats_url=nats.url))
    until_active(one, "n")
    with listen(one) as stream:
        for _ in range(2):
            nats.publish("n", "the same", Nats_Msg_Id="m-1")
        nats.publish("n", "another")
        assert data(stream, 2) == ["the same", "another"]
    assert facts(one, "n")["repeated"] == 1


def test_on_two_nodes_a_message_enters_once_and_reaches_all(
    nats: NatsServer, redis: RedisServer, node: StartNode
) -> None:
    """C2, E11: the queue group is shared by the nodes."""
    both = [node(**settings(bridge("nats", "n", mapping("n")), nats_url=nats.url, relay=redis.url)) for _ in range(2)]
    for one in both:
        until_active(one, "n")
    with listen(both[0]) as first, listen(both[1]) as second:
        nats.publish("n", *map(str, range(500)))
        found = data(first, 500)
        assert data(second, 500) == found
        assert sorted(map(int, found)) == list(range(500))
    wait_until(lambda: sum(facts(one, "n")["published"] for one in both) == 500, what="the last append")
    assert all(facts(one, "n")["published"] for one in both)


@pytest.mark.fault
def test_nats_killed_and_started_again_is_found_again(nats: NatsServer, node: StartNode, seed: int) -> None:
    """What is published while there is none, or no node listens, may be lost, and nothing else."""
    moments = random.Random(seed)
    one = node(**settings(NUMBERS, nats_url=nats.url))
    until_active(one, "n")
    with fed(partial(CoreFeeder, nats.url), one, seed=seed) as scene:
        scene.wait_for(moments.randrange(20, 200))
        with scene.publisher.doubted():
            nats.kill()
            wait_until(lambda: state(one, "n") == "NATS does not answer", what="the bridge's state")
            assert one.get("/ready")[0] == 200  # readers are served as ever
            time.sleep(moments.uniform(0, 1))  # for so long there is none
            nats.start()
            until_active(one, "n")
        scene.wait_for(50)
    assert facts(one, "n")["reconnects"] == 1


@pytest.mark.fault
def test_nats_that_stands_still_is_noticed(nats: NatsServer, node: StartNode, seed: int) -> None:
    """What is published meanwhile may be lost, and nothing else."""
    moments = random.Random(seed)
    one = node(**settings(NUMBERS, nats_url=nats.url))
    until_active(one, "n")
    with fed(partial(CoreFeeder, nats.url), one, seed=seed) as scene:
        scene.wait_for(moments.randrange(20, 200))
        with scene.publisher.doubted():
            nats.signal(signal.SIGSTOP)
            wait_until(lambda: state(one, "n") != "ok", 20, "the bridge's state")
            time.sleep(moments.uniform(0, 1))  # for so long it stands still
            nats.signal(signal.SIGCONT)
            until_active(one, "n")
        scene.wait_for(20)


@pytest.mark.fault
def test_of_two_nodes_one_killed_and_started_again_the_other_gets_all_meanwhile(
    nats: NatsServer, redis: RedisServer, node: StartNode, seed: int
) -> None:
    """What the killed node had in hand may be lost, and nothing else; nothing enters twice."""
    moments = random.Random(seed)
    one, other = (node(**settings(NUMBERS, nats_url=nats.url, relay=redis.url)) for _ in range(2))
    until_active(one, "n")
    until_active(other, "n")
    with fed(partial(CoreFeeder, nats.url, in_order=False), one, other, seed=seed) as scene:
        scene.wait_for(moments.randrange(20, 200))
        with scene.publisher.doubted():
            one.kill()
            # NATS has noticed when it sends nothing there any more: half of these would have gone there.
            scene.publisher.until_all_come(in_a_row=20)
        scene.wait_for(moments.randrange(20, 200))
        one.start()
        until_active(one, "n")
        scene.wait_for(20)


@pytest.mark.fault
def test_while_the_relay_is_away_a_bounded_number_waits_and_others_get_the_rest(
    nats: NatsServer, redis: RedisServer, node: StartNode, seed: int
) -> None:
    """C2: backpressure."""
    moments = random.Random(seed)
    one = node(**settings(NUMBERS | {"max_waiting": 100}, nats_url=nats.url, relay=redis.url))
    until_active(one, "n")
    with fed(partial(CoreFeeder, nats.url), one, seed=seed, every=0.01) as scene:
        scene.wait_for(moments.randrange(10, 50))
        feeder = scene.publisher
        with feeder.counted():
            redis.signal(signal.SIGSTOP)
            given = feeder.burst(moments.randrange(110, 160))
            wait_until(lambda: "queue group is left" in state(one, "n"), 20, "leaving the group")
            assert (facts(one, "n")["lag"], facts(one, "n")["dropped"]) == (100, len(given) - 100)
            given += feeder.burst(moments.randrange(1, 20))  # nobody is in the group
            redis.signal(signal.SIGCONT)
            until_active(one, "n")
            wait_until(lambda: facts(one, "n")["lag"] == 0, what="the last append")
        scene.wait_for(20)
    assert feeder.seen_of(given) == given[:100]


def test_a_stop_leaves_the_group_and_appends_what_has_come(
    nats: NatsServer, redis: RedisServer, node: StartNode
) -> None:
    both = [node(**settings(bridge("nats", "n", mapping("n")), nats_url=nats.url, relay=redis.url)) for _ in range(2)]
    for one in both:
        until_active(one, "n")
    with listen(both[1]) as stream:
        nats.publish("n", *map(str, range(1_000)))
        both[0].stop()
        nats.publish("n", *map(str, range(1_000, 2_000)))
        assert sorted(map(int, data(stream, 2_000))) == list(range(2_000))


def test_a_wrong_token_is_said_without_being_shown(tmp_path: Path, node: StartNode) -> None:
    server = NatsServer(tmp_path, lines="authorization { token: right }").start()
    try:
        wrong = server.url.replace("//", "//canary-token@")
        one = node(**settings(bridge("nats", "n", mapping("n")), nats_url=wrong))
        wait_until(lambda: state(one, "n") == "NATS refuses the credentials", what="the bridge's state")
        assert "canary" not in one.log() + one.get("/ready")[2].decode() + one.get("/stats")[2].decode()
        right = server.url.replace("//", "//right@")
        other = node(**settings(bridge("nats", "n", mapping("n")), nats_url=right))
        until_active(other, "n")
    finally:
        server.stop()


def test_what_nats_does_not_permit_is_said(tmp_path: Path, node: StartNode) -> None:
    lines = 'authorization { users: [{user: u, password: p, permissions: {subscribe: ["_INBOX.>", "m"]}}] }'
    server = NatsServer(tmp_path, lines=lines).start()
    try:
        url = server.url.replace("//", "//u:p@")
        one = node(**settings(bridge("nats", "n", mapping("n")), bridge("nats", "m", mapping("m")), nats_url=url))
        until_active(one, "m")
        wait_until(lambda: "does not permit" in state(one, "n"), what="the bridge's state")
    finally:
        server.stop()


def test_nats_over_tls_is_checked_against_the_certificates_that_are_named(tmp_path: Path, node: StartNode) -> None:
    certificate = make_certificate(tmp_path)
    lines = f"tls {{ cert_file: '{certificate.chain}', key_file: '{certificate.key}' }}"
    server = NatsServer(tmp_path, lines=lines).start()
    try:
        url = server.url.replace("nats://127.0.0.1", "tls://localhost")
        one = node(**settings(bridge("nats", "n", mapping("n")), nats_url=url, nats_ca_file=certificate.chain))
        until_active(one, "n")
        other = node(**settings(bridge("nats", "n", mapping("n")), nats_url=url))
        wait_until(lambda: "TLS" in state(other, "n"), what="the bridge's state")
    finally:
        server.stop()
