"""The network between a node and Redis goes wrong in the kernel's own ways: one node lives in a network of its own, and
the cable to it is cut. Redis, a second node and clients of both go on; the checker judges what all of them saw.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from server.relay.redis_tail import DEAF_SECONDS
from tests.faults.checker import History
from tests.faults.witnesses import NOTICED_SECONDS, RESUMED_SECONDS, Attempt, Publisher, Subscriber
from tests.harness.namespaces import Cable, FarNode, Network, reason_not_permitted
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.redis import RedisServer
from tests.harness.slow_link import SlowLink
from tests.rounds import ROUNDS
from tests.threats.conftest import finish
from tests.threats.process_facts import cpu_share
from tests.threats.tokens import bearer, signed

EVENTS = "/channels/main/events"
HEARTBEAT_SECONDS = 0.5
FIRST_NEAR = 1_000_000  # publishers of one history must not give a number twice
CUTS_SECONDS = (5.0, 30.0, 120.0) if ROUNDS > 1 else (1.0, 2.0)  # one of them, by the seed
# Twice (the round trip under way, then its own): 2 s to connect and 4 s for the answer; then 2 s for the event.
PUBLISH_LIMIT_SECONDS = 2 * (2 + 4) + 2 + 1
MANY_CHANNELS = 250  # a node has 256 at most, unless its settings say otherwise
FAR_SECONDS = 0.04  # each way

pytestmark = pytest.mark.skipif(reason_not_permitted() is not None, reason=str(reason_not_permitted()))
Link = Cable | SlowLink


class Divided:
    """One Redis and two nodes: `near` stands beside it, `far` at the other end of a link. Each has a publisher and
    readers of its own, on its own side.
    """

    def __init__(self, folder: Path, lay: Callable[[Network], Link], **more: object) -> None:
        self.network = Network()
        self.link = lay(self.network)
        self.redis = RedisServer(folder, protected_mode="no").start()
        assert self.redis.command("CONFIG", "SET", "bind", f"127.0.0.1 {self.link.outer}") == b"+OK"
        settings = {"heartbeat_seconds": HEARTBEAT_SECONDS, "drain_seconds": 0} | more
        relay = f"redis://{self.link.outer}:{self.redis.port}/0"
        self.near = Node(folder, relay=self.redis.url, **settings)
        self.far = FarNode(self.network, folder, relay=relay, **settings)
        self.history = History()
        self.near_publisher = Publisher([self.near.port], self.history, every=0.005)
        self.near_publisher.next = FIRST_NEAR
        self.far_publisher = Publisher([self.far.port], self.history, every=0.01)
        self.subscribers: dict[str, Subscriber] = {}

    def start(self) -> Divided:
        self.near.start()
        self.far.start()
        return self

    def stop(self) -> None:
        try:
            finish(self.near)
            finish(self.far)
        finally:
            self.redis.stop()
            self.link.cut_off()
            self.network.close()

    def __enter__(self) -> Divided:
        self._subscribe("near", self.near)
        with self.network.entered():
            self._subscribe("far", self.far)
            self.far_publisher.thread.start()
        self.near_publisher.thread.start()
        return self

    def _subscribe(self, name: str, node: Node) -> None:
        for number in range(3):
            one = Subscriber([node.port], self.history, f"{name} {number}", self.near_publisher)
            self.subscribers[f"{name} {number}"] = one
            assert one.opened.wait(10)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            for publisher in (self.far_publisher, self.near_publisher):
                publisher.leaving.set()
                publisher.thread.join(10)
                if publisher.connection is not None:
                    publisher.connection.close()
            return
        with self.network.entered():
            self.far_publisher.finish()
        self.near_publisher.finish()
        for subscriber in self.subscribers.values():
            subscriber.finish()

    def published(self, first: int) -> int:
        """How many were acknowledged to the publisher that began with this number."""
        outcomes = list(self.history.outcomes.items())
        return sum(outcome == "ok" and (number >= FIRST_NEAR) == (first > 0) for number, outcome in outcomes)

    def wait_for(self, more: int, *firsts: int) -> None:
        """Until so many further events were acknowledged to each of the publishers."""
        goals = {first: self.published(first) + more for first in firsts}
        wait_until(lambda: all(self.published(first) >= goal for first, goal in goals.items()), 15, f"{more} publishes")

    def wait_far(self, *, ready: bool, seconds: float) -> None:
        wait_until(lambda: (self.far.get("/ready")[0] == 200) == ready, seconds, f"the far node ready: {ready}")

    def problems(self) -> list[str]:
        """What the checker says; and nobody had to come back, near publishes were all taken, and all saw the same."""
        found = self.history.problems()
        for name, one in self.subscribers.items():
            if one.connections != 1 or one.endings:
                found.append(f"{name} had {one.connections} connections, endings {one.endings}")
        hindered = [
            number for number, outcome in self.history.outcomes.items() if number >= FIRST_NEAR and outcome != "ok"
        ]
        if hindered:
            found.append(f"{len(hindered)} near publishes were not taken, first {hindered[0]}")
        if any(log != self.history.seen["near 0"] for log in self.history.seen.values()):
            found.append("not all saw the same")
        return found


@contextlib.contextmanager
def divided(folder: Path, lay: Callable[[Network], Link], **settings: object) -> Iterator[Divided]:
    one = Divided(folder, lay, **settings)
    try:
        yield one.start()
    finally:
        one.stop()


def longest_silence(node: FarNode, leaving: threading.Event, found: list[float]) -> None:
    """Read a stream on which nothing happens; the longest time without a heartbeat goes into `found`."""
    with node.network.entered(), Attempt(node.port, EVENTS + "?topic=quiet") as quiet:
        assert quiet.next_event(5).type == "hello"
        last = time.monotonic()
        while not leaving.is_set():
            quiet.next_block(10)
            now = time.monotonic()
            found.append(now - last)
            last = now


@contextlib.contextmanager
def heartbeats(node: FarNode) -> Iterator[list[float]]:
    """The times between heartbeats of a quiet stream of this node."""
    leaving, found = threading.Event(), list[float]()
    thread = threading.Thread(target=longest_silence, args=(node, leaving, found))
    thread.start()
    try:
        yield found
    finally:
        leaving.set()
        thread.join(15)


def time_of_publish(node: FarNode, *answers: int) -> float:
    """How long a publish takes to get one of these answers."""
    with node.network.entered(), closing(HTTPConnection("127.0.0.1", node.port, timeout=PUBLISH_LIMIT_SECONDS)) as one:
        began = time.monotonic()
        one.request("POST", EVENTS, '{"topic": "t", "data": "far"}', {"Content-Type": "application/json"})
        assert one.getresponse().status in answers
        return time.monotonic() - began


CUTS: dict[str, Callable[[Cable], None]] = {
    "both ways": lambda cable: cable.drop(),
    "only what comes": lambda cable: cable.drop(outgoing=False),
    "only what goes": lambda cable: cable.drop(incoming=False),
    "with resets": lambda cable: cable.refuse(),
    "unplugged": lambda cable: cable.unplug(),
}


@pytest.mark.timeout(120 + max(CUTS_SECONDS))
@pytest.mark.parametrize("way", CUTS)
def test_a_node_cut_off_from_redis_keeps_its_readers_says_so_and_catches_up(
    tmp_path: Path, way: str, seed: int
) -> None:
    """FLT-04, FLT-05, FLT-06: readiness is red within five seconds, publishes are refused or uncertain, heartbeats go
    on and nobody is sent away; the other node notices nothing. Behind it nothing is lost, and no gap is declared.
    """
    rng = random.Random(seed)
    with divided(tmp_path, Cable) as one, one, heartbeats(one.far) as silences:
        assert isinstance(one.link, Cable)
        one.wait_for(rng.randrange(20, 60), 0, FIRST_NEAR)
        CUTS[way](one.link)
        one.wait_far(ready=False, seconds=NOTICED_SECONDS)
        until = time.monotonic() + rng.choice(CUTS_SECONDS)
        assert time_of_publish(one.far, 503, 504) < PUBLISH_LIMIT_SECONDS
        while time.monotonic() < until:
            assert one.far.get("/ready")[0] == 503
            one.wait_for(20, FIRST_NEAR)
        assert one.near.get("/ready")[0] == 200
        one.link.heal()
        one.history.healed.append((time.monotonic(), RESUMED_SECONDS))
        one.wait_far(ready=True, seconds=RESUMED_SECONDS)
        one.wait_for(30, 0, FIRST_NEAR)
    assert one.problems() == []
    assert max(silences) < HEARTBEAT_SECONDS + 1


def test_a_redis_that_resets_every_try_is_asked_with_patience_however_much_is_published(tmp_path: Path) -> None:
    """FLT-05: a node tries once a second at most, for all in it who want Redis (for what is published, asked and
    followed); no busy loop, and few lines in the log.
    """
    with divided(tmp_path, Cable) as one, one:
        assert isinstance(one.link, Cable)
        one.wait_for(30, 0, FIRST_NEAR)
        one.far_publisher.every = 0.05
        one.link.refuse()
        one.wait_far(ready=False, seconds=NOTICED_SECONDS)
        wait_until(lambda: "fail" in list(one.history.outcomes.values()), 10, "a refusal")
        tries, lines, began = one.link.refused(), one.far.log().count("\n"), time.monotonic()
        assert cpu_share(one.far.pid, 4) < 0.05
        passed = time.monotonic() - began
        assert one.link.refused() - tries <= passed + 1  # one each second, the first at once
        assert one.far.log().count("\n") - lines <= 2 * passed + 2
        one.link.heal()
        one.history.healed.append((time.monotonic(), RESUMED_SECONDS))
        one.wait_far(ready=True, seconds=RESUMED_SECONDS)
        one.wait_for(30, 0, FIRST_NEAR)
    assert one.problems() == []


def test_a_link_that_is_slow_and_loses_packets_loses_no_event(tmp_path: Path, seed: int) -> None:
    """FLT-07: 300 ± 200 ms each way, and one packet in twenty never comes. Heartbeats are on time, each publish ends
    within its own time limits, and what is acknowledged is delivered.
    """
    taken: list[float] = []
    with divided(tmp_path, SlowLink) as one, one, heartbeats(one.far) as silences:
        assert isinstance(one.link, SlowLink)
        one.wait_for(30, 0, FIRST_NEAR)
        one.link.worsen(delay_seconds=(0.1, 0.5), loss=0.05, seed=seed)
        until = time.monotonic() + (30 if ROUNDS > 1 else 6)
        while time.monotonic() < until:
            taken.append(time_of_publish(one.far, 200, 503, 504))
        assert one.link.lost > 0
        one.link.heal()
        one.history.healed.append((time.monotonic(), RESUMED_SECONDS))
        one.wait_far(ready=True, seconds=15)
        one.wait_for(30, 0, FIRST_NEAR)
    assert one.problems() == []
    assert max(taken) < PUBLISH_LIMIT_SECONDS
    assert max(silences) < HEARTBEAT_SECONDS + 1


@contextlib.contextmanager
def many_channels_far_away(folder: Path) -> Iterator[Divided]:
    """The far node has as many channels as it may, and Redis is a continent away from it."""
    with divided(folder, SlowLink, jwt_secret=TOKEN_SECRET) as one:
        assert isinstance(one.link, SlowLink)
        for number in range(MANY_CHANNELS):
            writer = bearer(signed({"ringcast": {f"c{number}": {"publish": ["*"]}}}))
            headers = {"Authorization": writer, "Content_Type": "application/json"}
            assert one.far.request("POST", f"/channels/c{number}/events", "{}", **headers)[0] in (200, 403)
        one.link.worsen(delay_seconds=(FAR_SECONDS, FAR_SECONDS), loss=0, seed=0)
        yield one


def test_a_node_with_many_channels_behind_a_slow_link_stays_ready(tmp_path: Path) -> None:
    """It asks for all of them in few round trips, and first of all whether its tail still hears."""
    with many_channels_far_away(tmp_path) as one:
        until = time.monotonic() + 2 * DEAF_SECONDS
        while time.monotonic() < until:
            assert one.far.get("/ready")[0] == 200
            time.sleep(0.05)
        relay = json.loads(one.far.get("/stats")[2])["relay"]
        assert relay["channels"] > MANY_CHANNELS
        assert relay["tail_connections"] == 1
        assert FAR_SECONDS < relay["lag_seconds"] < 1


def test_a_node_with_many_channels_behind_a_slow_link_hears_of_a_revocation_within_five_seconds(tmp_path: Path) -> None:
    with many_channels_far_away(tmp_path) as one:
        headers = {"Authorization": bearer(signed({"ringcast": {"operate": True}})), "Content_Type": "application/json"}
        for name in ("alice", "bob", "carol"):
            rights = bearer(signed({"mercure": {"subscribe": ["*"]}, "sub": name}))
            with contextlib.ExitStack() as left:
                with one.network.entered():
                    stream = left.enter_context(Attempt(one.far.port, EVENTS, Authorization=rights))
                assert stream.next_event(5).type == "hello"
                assert one.near.request("POST", "/revocations", json.dumps({"subject": name}), **headers)[0] == 200
                began = time.monotonic()
                assert stream.next_event(5).type == "revoked"  # five seconds of silence, and it beats
                assert time.monotonic() - began < 5


def test_a_node_that_is_farther_behind_the_log_than_it_may_be_is_not_ready_and_says_so(tmp_path: Path) -> None:
    """Everything comes, and late: readers are better off on the other node, until it has caught up."""
    with divided(tmp_path, SlowLink, redis_lag_seconds=0.5) as one:
        assert isinstance(one.link, SlowLink)
        one.link.worsen(delay_seconds=(0.4, 0.4), loss=0, seed=0)
        one.wait_far(ready=False, seconds=10)
        checks = json.loads(one.far.get("/ready")[2])["checks"]
        assert checks["relay"] == "this node is more than 0.5 s behind the log"
        metrics = one.far.get("/metrics")[2].decode()
        assert "\nringcast_ready 0.0\n" in metrics
        assert float(metrics.split("\nringcast_relay_lag_seconds ")[1].split("\n")[0]) > 0.5
        wait_until(
            lambda: one.near.get("/ready")[0] == 200, 5, "the other is ready, but for a moment of this machine's"
        )
        one.link.heal()
        one.wait_far(ready=True, seconds=10)
