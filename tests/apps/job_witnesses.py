"""A service that reports numbers on two jobs, and those who watch these jobs to their end, for the checker of faults.

The service reports each number until it is taken, at one node after the other; saying it again changes nothing. What a
stream begins with is no event, but never behind what its reader has seen. Owns what the two do. Must know no fault.
Invariant: what is taken is acknowledged, so each number is due to each watcher of its job exactly once.
Cost: a thread each.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from tests.apps.jobbing import ROOT, WANTED
from tests.faults.checker import History
from tests.faults.witnesses import ELSEWHERE, TOPIC, Publisher, Scene, Subscriber
from tests.harness.stream import Block, Stream

TAKEN_SECONDS = 30.0
AGAIN_SECONDS = 0.02


class Reporter(Publisher):
    """Begins two jobs and reports on them; at the end it completes both. Whoever holds its `turn` is between two
    reports."""

    def __init__(self, ports: Sequence[int], history: History, **wanted: Any) -> None:
        super().__init__(ports, history, **wanted)
        self.jobs = {topic: self._begun() for topic in (TOPIC, ELSEWHERE)}
        self.ends: dict[int, str] = {}
        self.tries_of_the_end = 0
        self.turn = threading.Lock()

    def _begun(self) -> str:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("POST", ROOT, json.dumps(WANTED), {"Content-Type": "application/json"})
            job_id: str = json.load(connection.getresponse())["jobId"]
            return job_id

    def _run(self) -> None:
        ending = False
        while not ending:
            time.sleep(self.every)
            with self.turn:
                ending = self.leaving.is_set()
                if not ending:
                    self.publish()
                    continue
                for topic in self.jobs:
                    self.ends[self.next] = topic
                    self.publish()

    def topic_of(self, number: int) -> str:
        return self.ends.get(number) or super().topic_of(number)

    def request(self, number: int) -> tuple[str, str, str]:
        status = "completed" if number in self.ends else "processing"
        report = {"status": status, "progress": 50, "data": number}
        return "POST", f"{ROOT}/{self.jobs[self.topic_of(number)]}/updates", json.dumps(report)

    def _try(self, number: int) -> str:
        """Until it is taken, whatever is away."""
        end = time.monotonic() + TAKEN_SECONDS
        while True:
            self.tries_of_the_end += number in self.ends
            if super()._try(number) == "ok":
                return "ok"
            assert time.monotonic() < end, f"{number} is not taken"
            time.sleep(AGAIN_SECONDS)

    def finish(self) -> int:
        """Complete both jobs; the number that says so of the first."""
        self.leaving.set()
        self.thread.join(2 * TAKEN_SECONDS)
        assert len(self.ends) == len(self.jobs), "the end is not taken"
        if self.connection is not None:
            self.connection.close()
        self.last, self.last_elsewhere = self.ends
        return self.last


class Watcher(Subscriber):
    """Watches one of the jobs until its stream says that it has ended, or that there is nothing more. `states` are what
    came as events; `stale` are beginnings of streams that were behind them."""

    def __init__(
        self, ports: Sequence[int], history: History, name: str, publisher: Reporter, *words: Any, **kind: Any
    ) -> None:
        self.path, self.path_elsewhere = (f"{ROOT}/{publisher.jobs[topic]}/events" for topic in (TOPIC, ELSEWHERE))
        self.states: list[dict[str, Any]] = []
        self.stale: list[str] = []
        self.over = False
        super().__init__(ports, history, name, publisher, *words, **kind)

    def _done(self) -> bool:
        return self.over

    def _next(self, stream: Stream) -> Block | None:
        if stream.status == 204:
            self.over = True
        if stream.status != 200:
            time.sleep(AGAIN_SECONDS)
            return None
        return super()._next(stream)

    def _take(self, block: Block) -> None:
        if block.type == "finished":
            self.over = True
        if block.type != self.type or block.data is None:
            super()._take(block)
        elif block.id is None:
            number, seen = json.loads(block.data).get("data", -1), self.log[-1].number if self.log else -1
            if number < seen:
                self.stale.append(f"a stream begins with {number}, after {seen}")
        else:
            self.states.append(json.loads(block.data))
            super()._take(block)

    def number_of(self, data: str) -> int:
        return int(json.loads(data)["data"])


class Reporting(Scene):
    """A service reports on two jobs, and some watch one of them."""

    publisher_of = Reporter
    subscriber_of = Watcher
    publisher: Reporter

    def inexact(self) -> list[str]:
        """What the checker does not ask for: all that was taken came, exactly once, with rising times, to the end."""
        found: list[str] = []
        for watcher in self.everybody:
            assert isinstance(watcher, Watcher)
            job = ELSEWHERE if watcher.elsewhere else TOPIC
            due = [number for number in range(self.publisher.next) if self.publisher.topic_of(number) == job]
            numbers = [state["data"] for state in watcher.states]
            moments = [state["timestamp"] for state in watcher.states]
            if numbers != due:
                found.append(f"{len(due)} numbers were taken, and {len(numbers)} came: {numbers[-5:]}")
            if moments != sorted(set(moments)):
                found.append("timestamps that do not rise")
            if not watcher.states or watcher.states[-1]["status"] != "completed":
                found.append(f"not the end: {watcher.states[-1:]}")
            found += watcher.stale
        return found
