"""Wall clocks that are wrong, and clocks that are set while everything runs: of nodes, and of the Redis that a failover
leads to.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.ids import parse_id
from tests.faults.checker import Seen
from tests.faults.test_redis_faults import Site, gap_reasons
from tests.faults.witnesses import Attempt, Scene
from tests.harness.clocks import WallClock
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.redis import RedisServer
from tests.threats.conftest import finish_all
from tests.threats.tokens import bearer, signed

EVENTS = "/channels/main/events"
JSON = {"Content_Type": "application/json"}
HOUR = 3600
HEARTBEAT_SECONDS = 0.5
ROUND_TRIP_SECONDS = 5  # between the making of an id and a look at it


class Timed:
    """Two nodes over one Redis. The first is an hour ahead of it, the second an hour behind."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.redis = RedisServer(folder).start()
        self.clocks = [WallClock(folder, HOUR), WallClock(folder, -HOUR)]
        self.ahead = True  # the first of them
        wanted = {"heartbeat_seconds": HEARTBEAT_SECONDS, "drain_seconds": 0} | settings
        self.nodes = [Node(folder, relay=self.redis.url, **wanted) for _ in self.clocks]

    def start(self) -> Timed:
        for clock, node in zip(self.clocks, self.nodes, strict=True):
            with clock.worn():
                node.start()
        return self

    def stop(self) -> None:
        try:
            finish_all(self.nodes)
        finally:
            self.redis.stop()

    def turn(self) -> None:
        """Set each clock to where the other was: one goes back by two hours, one forward."""
        self.ahead = not self.ahead
        for clock, seconds in zip(self.clocks, (HOUR, -HOUR) if self.ahead else (-HOUR, HOUR), strict=True):
            clock.set(seconds)


Start = Callable[..., Timed]


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[Start]:
    started: list[Timed] = []

    def start(**settings: object) -> Timed:
        started.append(Timed(tmp_path, **settings))
        return started[-1].start()

    yield start
    for one in started:
        one.stop()


def publish(node: Node, data: str, **headers: str) -> str:
    """Publish one event; its id."""
    body = json.dumps({"topic": "t", "data": data})
    status, _, answer = node.request("POST", EVENTS, body, **(JSON | headers))
    assert status == 200, answer
    wire_id: str = json.loads(answer)["ids"][0]
    return wire_id


def age_of(wire_id: str) -> float:
    """How long ago the event was published, by the clock that is right."""
    parsed = parse_id(wire_id)
    assert parsed is not None
    return time.time() - parsed[1] / 1e6


def longest_silence(node: Node, seconds: float) -> float:
    """The longest time without a block on a stream that gets no events."""
    with Attempt(node.port, EVENTS + "?topic=quiet") as quiet:
        assert quiet.next_event(5).type == "hello"
        last, longest = time.monotonic(), 0.0
        end = last + seconds
        while last < end:
            assert quiet.next_block(5) is not None
            now = time.monotonic()
            last, longest = now, max(longest, now - last)
    return longest


def test_nodes_whose_clocks_are_hours_apart_deliver_one_order_and_positions_are_the_time_of_redis(
    timed: Start, seed: int
) -> None:
    """FLT-13: also while the clocks are set by two hours, one forward and one back."""
    rng = random.Random(seed)
    one = timed()
    with Scene(*[node.port for node in one.nodes]) as scene:
        scene.wait_for(rng.randrange(20, 100))
        one.turn()
        scene.wait_for(rng.randrange(20, 100))
        assert all(longest_silence(node, 2) < HEARTBEAT_SECONDS + 1 for node in one.nodes)
    assert scene.history.problems() == []
    assert gap_reasons(scene) == set()
    assert all(subscriber.endings == [] for subscriber in scene.subscribers)
    for node in one.nodes:
        assert abs(age_of(publish(node, "now"))) < ROUND_TRIP_SECONDS


def test_ages_are_measured_by_no_clock_that_can_be_set(timed: Start, seed: int) -> None:
    """FLT-13: the longest life of a stream, and the time that events are kept."""
    one = timed(max_age_seconds=2, max_age_jitter=0, retain_seconds=6)
    old = publish(one.nodes[0], "old")
    began = time.monotonic()
    quiet = EVENTS + "?topic=quiet"  # the old event may come to the second node only now
    with Attempt(one.nodes[0].port, quiet) as set_back, Attempt(one.nodes[1].port, quiet) as set_forward:
        assert set_back.next_event(5).type == set_forward.next_event(5).type == "hello"
        time.sleep(random.Random(seed).uniform(0, 1))  # for so long the clocks stay as they were
        one.turn()
        assert set_back.next_event(8).type == set_forward.next_event(8).type == "max_age"
        assert 1 < time.monotonic() - began < 5
    for node in one.nodes:
        wait_until(lambda node=node: first_after(node, old).type == "gap", 15, "the old event gone")
        fresh = publish(node, "fresh")
        publish(node, "next")
        assert first_after(node, fresh).data == "next"


def first_after(node: Node, cursor: str) -> Any:
    """The first event that follows a cursor, or the gap before it. One is published so that there is one. A stream
    whose short life is over before it has come is opened again with the same cursor.
    """
    publish(node, "and on")
    for _ in range(10):
        with Attempt(node.port, EVENTS, Last_Event_ID=cursor) as stream:
            assert stream.next_event(5).type == "hello"
            event = stream.next_event(5)
        if event.type != "max_age":
            return event
    raise AssertionError(f"no stream lives long enough for what follows {cursor}")


def test_the_nodes_of_a_cluster_see_each_other_whatever_their_clocks_say(timed: Start, seed: int) -> None:
    """FLT-13: presence expires by the clock of Redis."""
    one = timed()

    def seen(node: Node) -> int:
        return int(json.loads(node.get("/stats?scope=cluster")[2])["total"]["nodes"])

    wait_until(lambda: all(seen(node) == 2 for node in one.nodes), 15, "each sees both")
    end = time.monotonic() + 5.5  # longer than between two registrations of a node
    turning = time.monotonic() + random.Random(seed).uniform(0, 5)
    while time.monotonic() < end:
        if turning and time.monotonic() >= turning:
            one.turn()
            turning = 0.0
        assert [seen(node) for node in one.nodes] == [2, 2]
        time.sleep(0.1)


def test_a_token_expires_by_the_clock_of_the_node_and_its_stream_after_the_time_that_was_left(
    timed: Start, seed: int
) -> None:
    """FLT-13, S26: a node that is ahead refuses a token early, one that is behind takes it for longer. What a stream
    has left is counted when it opens: to set the clock then neither ends it sooner nor keeps it longer.
    """
    one = timed(jwt_secret=TOKEN_SECRET)
    ahead, behind = one.nodes

    def token(seconds: float) -> dict[str, str]:
        return {"Authorization": bearer(signed({"mercure": {"subscribe": ["*"]}, "exp": int(time.time() + seconds)}))}

    def status(node: Node, seconds: float) -> int:
        with contextlib.closing(Attempt(node.port, EVENTS, **token(seconds))) as stream:
            return stream.status

    assert (status(ahead, HOUR / 2), status(ahead, 2 * HOUR)) == (401, 200)
    assert (status(behind, -HOUR / 2), status(behind, -2 * HOUR)) == (200, 401)
    with (
        Attempt(ahead.port, EVENTS, **token(HOUR + 4)) as set_back,
        Attempt(behind.port, EVENTS, **token(-HOUR + 4)) as set_forward,
    ):
        began = time.monotonic()
        assert set_back.next_event(5).type == set_forward.next_event(5).type == "hello"
        time.sleep(random.Random(seed).uniform(0, 1))  # for so long the clocks stay as they were
        one.turn()
        for stream in (set_back, set_forward):
            assert stream.next_event(8).type == "auth_expired"
        assert 2 < time.monotonic() - began < 6
    assert (status(ahead, -HOUR / 2), status(behind, HOUR / 2)) == (200, 401)  # the other way round now


def test_a_revocation_holds_on_nodes_whose_clocks_are_hours_apart(timed: Start) -> None:
    """FLT-13, S27: it lasts a day unless it says otherwise, which is longer than the clocks are apart."""
    one = timed(jwt_secret=TOKEN_SECRET)
    operator = bearer(signed({"ringcast": {"operate": True}}))
    for node, other in (one.nodes, one.nodes[::-1]):
        reader = bearer(signed({"mercure": {"subscribe": ["*"]}, "sub": f"reader {node.port}"}))
        with Attempt(other.port, EVENTS, Authorization=reader) as stream:
            assert stream.next_event(5).type == "hello"
            body = json.dumps({"subject": f"reader {node.port}"})
            assert node.request("POST", "/revocations", body, Authorization=operator, **JSON)[0] == 200
            assert stream.next_event(5).type == "revoked"


def test_a_revocation_reaches_all_nodes_behind_a_failover_to_a_redis_whose_clock_is_behind(tmp_path: Path) -> None:
    """FLT-13, S27: what is posted there has ids below those that the nodes have read."""
    with failover(tmp_path, -300, jwt_secret=TOKEN_SECRET) as (one, replica):
        replica.command("REPLICAOF", "NO", "ONE")
        revoke(one.nodes[0], "somebody")  # of which the replica has no notice
        wait_until(lambda: all("revoked" in node.log() for node in one.nodes), 5, "read by both")
        fail_over(one, replica)
        one.wait_ready(True)
        reader = bearer(signed({"mercure": {"subscribe": ["*"]}, "sub": "alice"}))
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(Attempt(port, EVENTS, Authorization=reader)) for port in one.ports]
            assert [stream.next_event(5).type for stream in streams] == ["hello", "hello"]
            revoke(one.nodes[0], "alice")
            assert [stream.next_event(5).type for stream in streams] == ["revoked", "revoked"]


def revoke(node: Node, subject: str) -> None:
    """Revoke a subject's tokens; again, if Redis was not there for it at once."""
    operator = {"Authorization": bearer(signed({"ringcast": {"operate": True}}))} | JSON
    body = json.dumps({"subject": subject})
    wait_until(lambda: node.request("POST", "/revocations", body, **operator)[0] == 200, 10, "the revocation taken")


@contextlib.contextmanager
def failover(folder: Path, seconds: int, **settings: object) -> Iterator[tuple[Site, RedisServer]]:
    """Two nodes over a Redis, and a replica of it whose clock is wrong."""
    clock = WallClock(folder, seconds)
    one = Site(folder, RedisServer(folder).start(), **settings)
    with clock.worn():
        replica = RedisServer(folder, replicaof=f"127.0.0.1 {one.redis.port}").start()
    try:
        one.start()
        wait_until(lambda: has_all_of(replica, one.redis), 15, "the replica in sync")
        yield one, replica
    finally:
        one.stop()
        one.redis.stop()
        replica.stop()


@pytest.mark.parametrize("lagged", [False, True], ids=["in sync", "lagged"])
def test_a_failover_to_a_redis_whose_clock_is_behind_skips_nothing(tmp_path: Path, lagged: bool, seed: int) -> None:
    """FLT-13, FLT-03: its own ids would be below every cursor that is out, and a read from a cursor would skip them.
    Where the replica had everything positions go on above the old ones, and nobody is told anything; where it lagged
    the log turns to a new epoch, and everybody is told once.
    """
    rng = random.Random(seed)
    with failover(tmp_path, -rng.randrange(60, 600)) as (one, replica):
        # Without keys: a new master that lagged does not know them, and a repeated publish would be there twice.
        with Scene(*one.ports, keyed=False) as scene:
            scene.wait_for(rng.randrange(20, 100))
            if lagged:
                replica.command("REPLICAOF", "NO", "ONE")
                scene.wait_for(rng.randrange(20, 100))  # these only the old master has
            fail_over(one, replica)
            scene.healed()
            one.wait_ready(True)
            scene.wait_for(60)
    assert scene.history.problems(needless_gaps=lagged) == []
    for log in scene.history.seen.values():
        assert [json.loads(entry.id)["reason"] for entry in log if entry.gap] == (["epoch"] if lagged else [])
    epochs = [{entry.id[:6] for entry in log if not entry.gap} for log in scene.history.seen.values()]
    assert all(len(one) == (2 if lagged else 1) and one == epochs[0] for one in epochs)
    assert len({tuple(of_the_last_epoch(log)) for log in scene.history.seen.values()}) == 1


def of_the_last_epoch(log: list[Seen]) -> list[int]:
    """What the new master has taken, which nobody may miss."""
    return [entry.number for entry in log if not entry.gap and entry.id[:6] == log[-1].id[:6]]


def has_all_of(replica: RedisServer, master: RedisServer) -> bool:
    sent, come = (server.facts("INFO", "replication") for server in (master, replica))
    return come["slave_repl_offset"] == sent["master_repl_offset"]


def fail_over(one: Site, replica: RedisServer) -> None:
    """The master stops taking anything, the replica is promoted, and everybody is led to it."""
    if replica.command("ROLE") != b"*3":  # not a master yet
        one.redis.command("CLIENT", "PAUSE", "60000", "WRITE")
        wait_until(lambda: has_all_of(replica, one.redis), 10, "the replica in sync")
        replica.command("REPLICAOF", "NO", "ONE")
    for proxy in one.proxies:
        proxy.lead_to(replica.port)
