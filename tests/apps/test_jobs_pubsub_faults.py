"""Reports on jobs over Google Pub/Sub, pulled and pushed, on two nodes: PostgreSQL, a node, and Pub/Sub itself are
killed and come back, and PostgreSQL is read-only for a while. Every report is told to everybody who watches its job,
once and in its order, and so is the end.

Pub/Sub's answer to a report says nothing of the nodes, so one is taken when a node knows of it. It is given once,
unless Pub/Sub has forgotten it: a node that acknowledges what it has not stored is found out, for it never comes again.
"""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from apps.moments import written
from tests.apps.job_witnesses import AGAIN_SECONDS, Reporter, Reporting
from tests.apps.jobbing import ROOT, job
from tests.bridges.conftest import facts, state, until_active
from tests.bridges.google import AUDIENCE, EMAIL, Accounts, Signing
from tests.conftest import StartNode
from tests.harness.postgres import PostgresServer
from tests.harness.process import Node, free_port, wait_until
from tests.harness.pubsub import PubSubEmulator, subscription_path
from tests.harness.redis import RedisServer

pytestmark = pytest.mark.fault

NAME, BRIDGE, DATABASE = "reports", "jobs_pubsub", "jobs"
TAKEN_SECONDS = 45.0  # what a dead node had in hand comes again after ten, and may fall to the next fault
TWICE = 0.2  # of the reports are followed by one that was given before


class PubSubReporter(Reporter):
    """Reports over Pub/Sub. `lives` counts those of the emulator, each from when it has the subscription."""

    def __init__(self, emulator: PubSubEmulator, seed: int, *args: Any, **options: Any) -> None:
        self.emulator, self.chance = emulator, random.Random(seed)
        self.lives = 1
        self.moments = [time.time()]
        super().__init__(*args, **options)

    def _try(self, number: int) -> str:
        self.moments.append(max(self.moments[-1] + 0.001, time.time()))
        given, end = 0, time.monotonic() + TAKEN_SECONDS
        while not self._is_known(number):
            assert time.monotonic() < end, f"{number} is not taken"
            if given != self.lives:
                given = self._give(number)
                self.tries_of_the_end += number in self.ends and given > 0
            time.sleep(AGAIN_SECONDS)
        if self.chance.random() < TWICE:  # as Pub/Sub does: this one, or one from before
            self._give(self.chance.randrange(number + 1))
        return "ok"

    def _give(self, number: int) -> int:
        """The emulator's life in which it got it; 0 if it did not."""
        life, status = self.lives, "completed" if number in self.ends else "processing"
        moment = written(self.moments[number + 1])
        report = {"status": status, "progress": 50, "data": number, "timestamp": moment}
        try:
            self.emulator.publish(NAME, json.dumps(report), jobId=self.jobs[self.topic_of(number)])
        except (OSError, http.client.HTTPException, KeyError):  # there is none, or it has no such topic yet
            return 0
        return life

    def _is_known(self, number: int) -> bool:
        """True if the node that is asked knows of it."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            try:
                connection.request("GET", f"{ROOT}/{self.jobs[self.topic_of(number)]}")
                answer = connection.getresponse()
                return answer.status == 200 and json.load(answer).get("data") == number
            except (OSError, http.client.HTTPException):
                self.port = next(self.ports)
                return False


class PubSubReporting(Reporting):
    """See Reporting."""

    publisher: PubSubReporter

    def __init__(self, emulator: PubSubEmulator, seed: int, *ports: int) -> None:
        reporter: Any = partial(PubSubReporter, emulator, seed)
        self.publisher_of, self.seed = reporter, seed
        super().__init__(*ports, every=0.01)


class Ground:
    """All that may be killed, and how it comes back. `delivery` is `pull` or `push`."""

    def __init__(self, delivery: str, folder: Path, node: StartNode, stack: ExitStack) -> None:
        self.database = PostgresServer()
        stack.callback(self.database.stop)
        self.database.start()
        redis = RedisServer(folder).start()
        stack.callback(redis.stop)
        self.emulator = PubSubEmulator(folder).start()
        stack.callback(self.emulator.stop)
        accounts = Accounts()
        stack.callback(accounts.close)
        ports = [free_port(), free_port()]
        between = Signing(ports, f"/bridges/pubsub/{BRIDGE}")
        stack.callback(between.close)
        self.push_to = between.url if delivery == "push" else None
        self.subscribe()
        wanted: dict[str, object] = {
            "apps": "jobs",
            "simulate": False,
            "jobs_streams_per_minute": 100_000,
            "drain_seconds": 0,
            "database": self.database.url(DATABASE),
            "relay": redis.url,
            "jobs_pubsub_subscription": subscription_path(f"{NAME}-in"),
            "jobs_pubsub_delivery": delivery,
            "pubsub_url": self.emulator.url,
            "pubsub_audience": AUDIENCE,
            "pubsub_email": EMAIL,
            "pubsub_jwks_url": accounts.url,
        }
        self.nodes: list[Node] = [node(port=port, **wanted) for port in ports]
        for one in self.nodes:
            until_active(one, BRIDGE)
            wait_until(lambda one=one: state(one, BRIDGE) == "ok", what="the bridge")

    def subscribe(self) -> None:
        self.emulator.make(NAME, f"{NAME}-in", push_to=self.push_to)


@pytest.fixture(params=["pull", "push"])
def ground(request: pytest.FixtureRequest, node: StartNode, tmp_path: Path) -> Iterator[Ground]:
    with ExitStack() as stack:
        yield Ground(request.param, tmp_path, node, stack)


def test_what_is_reported_is_told_once_and_in_order_whatever_fails(ground: Ground, seed: int) -> None:
    """J4: a node acknowledges what it has stored, and nothing else."""
    rng = random.Random(seed)
    database, emulator = ground.database, ground.emulator

    with PubSubReporting(emulator, seed, *(one.port for one in ground.nodes)) as scene:
        service = scene.publisher

        def kill_database() -> Callable[[], object]:
            database.kill()
            return database.start

        def fail_over() -> Callable[[], object]:
            database.set_read_only(DATABASE)
            return partial(database.set_writable, DATABASE)

        def kill_node() -> Callable[[], object]:
            victim = rng.choice(ground.nodes)
            victim.kill()
            return victim.start

        def kill_emulator() -> Callable[[], object]:
            emulator.kill()
            return begin_again

        def begin_again() -> None:
            emulator.start()
            ground.subscribe()
            service.lives += 1

        for begin in rng.sample([kill_database, fail_over, kill_node, kill_emulator], 4):
            scene.wait_for(rng.randrange(5, 30), 60)
            time.sleep(rng.uniform(0, 0.1))
            end = begin()
            time.sleep(rng.uniform(0, 1))  # for so long it lasts
            end()
        scene.wait_for(10, 60)
        with service.turn:
            service.leaving.set()
            database.kill()  # so the end is reported while there is none
        wait_until(lambda: service.tries_of_the_end, 20, "the end at Pub/Sub")
        time.sleep(rng.uniform(0, 1))
        database.start()
    assert scene.history.problems() == []
    assert scene.inexact() == []
    for number, topic in service.ends.items():
        for one in ground.nodes:
            found = job(one, service.jobs[topic])
            assert (found["status"], found["data"]) == ("completed", number)
    for one in ground.nodes:
        assert facts(one, BRIDGE)["unmappable"] == 0
