"""The jobs' PostgreSQL dies while a service reports on a job, and comes back: every report that was taken is told to
everybody who watches, once and in its order, and the stream ends with the job.

One service reports, number after number, each until it is taken; saying it again changes nothing. So the account is
exact: whoever watches sees each number once, and the end. What a stream begins with is never behind what its reader had
seen before.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from tests.apps.asking import ask
from tests.apps.jobbing import ROOT, begun, job
from tests.faults.witnesses import Attempt
from tests.harness.postgres import PostgresServer
from tests.harness.process import Node, wait_until
from tests.harness.redis import RedisServer
from tests.threats.conftest import finish

AWAY = (500, 502, 503, 504)


class Service:
    """Reports on a job, at one node after the other when one does not take it; once it is `ending` the next report is
    the last one. Whoever holds its `turn` is between two of them."""

    def __init__(self, nodes: Sequence[Node], job_id: str) -> None:
        self.nodes, self.path = cycle(nodes), f"{ROOT}/{job_id}/updates"
        self.taken = 0
        self.tries_of_the_end = 0
        self.turn = threading.Lock()
        self.ending = False
        self.broken: str | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            node, status = next(self.nodes), ""
            while status != "completed":
                time.sleep(0.01)
                with self.turn:
                    status = "completed" if self.ending else "processing"
                    node = self._report(node, status)
        except Exception as error:
            self.broken = repr(error)

    def _report(self, node: Node, status: str) -> Node:
        """Report the next number until it is taken; the node that took it."""
        number = self.taken + 1
        report = {"status": status, "progress": 50, "data": number}
        while True:
            self.tries_of_the_end += status == "completed"
            try:
                answered, facts = ask(node, "POST", self.path, report)
            except OSError:
                answered, facts = 503, {}
            if answered == 200:
                assert facts["data"] == number, facts
                self.taken = number
                return node
            assert answered in AWAY, (answered, facts)
            node = next(self.nodes)
            time.sleep(0.02)

    def wait_for(self, more: int) -> None:
        """Until so many further reports are taken."""
        goal = self.taken + more
        wait_until(lambda: self.taken >= goal or self.broken is not None, 30, f"{goal} reports taken")
        assert self.broken is None, self.broken

    def finish(self) -> None:
        self.thread.join(30)
        assert self.broken is None, self.broken
        assert not self.thread.is_alive(), "the end is not taken"


class Reader:
    """Watches the job to its end. With `chance` it hangs up now and then and comes back, at another node."""

    def __init__(self, nodes: Sequence[Node], job_id: str, chance: random.Random | None = None) -> None:
        self.nodes, self.path, self.chance = cycle(nodes), f"{ROOT}/{job_id}/events", chance
        self.states: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.cursor: str | None = None
        self.opened = threading.Event()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            while not self.over.is_set():
                try:
                    self._watch(next(self.nodes))
                except (OSError, AssertionError):  # away, or in the midst of an answer
                    time.sleep(0.02)
        except Exception as error:
            self.problems.append(repr(error))

    def _watch(self, node: Node) -> None:
        headers = {"Last_Event_ID": self.cursor} if self.cursor else {}
        with Attempt(node.port, self.path, seconds=20, **headers) as stream:
            if stream.status == 204:
                self.over.set()
            if stream.status != 200:
                time.sleep(0.02)
                return
            left = self.chance.randrange(3, 30) if self.chance else -1
            while left and not self.over.is_set() and (block := stream.next_block(20)) is not None:
                if block.type == "gap":
                    self.problems.append(f"a gap: {block.data}")
                elif block.type == "finished":
                    self.over.set()
                elif block.type == "message" and block.data is not None:
                    self._take(json.loads(block.data), block.id)
                    left -= 1
                if block.id is not None:
                    self.cursor = block.id
                    self.opened.set()

    def _take(self, state: dict[str, Any], event_id: str | None) -> None:
        seen = self.states[-1]["data"] if self.states else 0
        if event_id is not None:
            self.states.append(state)
        elif state.get("data", 0) < seen:
            self.problems.append(f"a stream begins with {state['data']}, after {seen}")

    def finish(self) -> None:
        self.thread.join(30)
        assert not self.thread.is_alive(), f"no end; seen {self.states[-1:]}"


@pytest.fixture
def database() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def nodes(database: PostgresServer, tmp_path: Path) -> Iterator[list[Node]]:
    """Two, over one Redis and one PostgreSQL."""
    redis = RedisServer(tmp_path).start()
    started: list[Node] = []
    try:
        for _ in range(2):
            settings: dict[str, Any] = {"apps": "jobs", "simulate": False, "jobs_streams_per_minute": 100_000}
            url = database.url("jobs")
            started.append(Node(tmp_path, relay=redis.url, drain_seconds=0, database=url, **settings).start())
        yield started
    finally:
        for node in started:
            finish(node)
        redis.stop()


def test_every_report_and_the_end_are_told_once_and_in_order_through_deaths_of_the_database(
    database: PostgresServer, nodes: list[Node], seed: int
) -> None:
    rng = random.Random(seed)
    job_id = begun(nodes[0])
    readers = [Reader(nodes[first:] + nodes[:first], job_id) for first in (0, 1)]
    readers += [Reader(nodes, job_id, random.Random(rng.random())) for _ in range(2)]
    for reader in readers:
        assert reader.opened.wait(10)
    service = Service(nodes, job_id)
    for _ in range(2):
        service.wait_for(rng.randrange(20, 60))
        database.kill()
        time.sleep(rng.uniform(0, 1))  # for so long there is none
        database.start()
    service.wait_for(30)
    with service.turn:
        service.ending = True
        database.kill()  # so the end is reported while there is none
    wait_until(lambda: service.tries_of_the_end >= 2, 20, "the end is refused")
    database.start()
    service.finish()
    for reader in readers:
        reader.finish()
        assert reader.problems == []
        assert [state["data"] for state in reader.states] == list(range(1, service.taken + 1))
        moments = [state["timestamp"] for state in reader.states]
        assert moments == sorted(set(moments))
        assert reader.states[-1]["status"] == "completed"
    for node in nodes:
        found = job(node, job_id)
        assert (found["status"], found["progress"], found["data"]) == ("completed", 100, service.taken)
