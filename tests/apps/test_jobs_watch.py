"""What a job's stream begins with, where the node's tail and the database disagree; and who may look into it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from apps.jobs.model import State, topic_of
from apps.jobs.store import Job, JobStore
from apps.jobs.watch import Watch
from handlers.answers import Refused
from handlers.streams import StreamCall
from server.event import Event
from server.finishing import Finisher
from server.hub import Hub
from server.relay.protocol import Entry
from server.rights import ANONYMOUS, DEVELOPMENT, Principal

FIRST = State("a1", "processing", 10, "s", "m", "2026-11-21T12:00:01.000Z")
SECOND = replace(FIRST, progress=20, timestamp="2026-11-21T12:00:02.000Z")


class Node:
    """What a watch is made of: its hub tells of deliveries, its store is slow, so that some come meanwhile."""

    def __init__(self, kept: State, *meanwhile: State) -> None:
        self.kept, self.meanwhile = kept, meanwhile
        self.looks = 0
        self.delivered: Callable[[Sequence[Entry]], None] = lambda _: None
        parts: Any = self
        self.watch = Watch(cast(JobStore, parts), cast(Hub, parts), cast(Finisher, None), "jobs", per_minute=1)

    def listen(self, channel: str, delivered: Callable[[Sequence[Entry]], None], _: Callable[[], None]) -> None:
        assert channel == "jobs"
        self.delivered = delivered

    async def get(self, job_id: str) -> Job:
        self.looks += 1
        self.deliver(*self.meanwhile)
        return Job("me", {}, self.kept, 0.0, 0.0, None)

    def deliver(self, *states: State) -> None:
        events = [Event((topic_of("a1"),), state.text(), private=True) for state in states]
        self.delivered([Entry(position, "", event, b"", 0.0) for position, event in enumerate(events)])

    def beginning(self, principal: Principal = DEVELOPMENT) -> dict[str, Any]:
        """The state that a new stream begins with."""
        call = StreamCall(cast(Any, None), {"jobId": "a1"}, {}, principal)
        admitted = asyncio.run(self.watch.admit(call))
        assert admitted.greeting is not None
        state: dict[str, Any] = json.loads(admitted.greeting().removeprefix(b"data: "))
        return state


def test_what_was_delivered_during_the_look_into_the_database_may_be_newer() -> None:
    """J3"""
    assert Node(FIRST, SECOND).beginning()["progress"] == 20


def test_a_node_whose_tail_lags_behind_the_database_takes_no_reader_back() -> None:
    """J3, E11: another node may have told its reader of the second state; the first is delivered here meanwhile."""
    assert Node(SECOND, FIRST).beginning()["progress"] == 20


def test_what_was_delivered_before_the_look_is_not_newer_than_the_database() -> None:
    """J3: behind a failover of the relay it may be all that is left of the log."""
    node = Node(FIRST)
    node.deliver(SECOND)
    assert node.beginning()["progress"] == 10


def test_who_has_no_token_or_comes_too_often_costs_no_look_into_the_database() -> None:
    """J6"""
    node = Node(FIRST)

    def refusal(principal: Principal = DEVELOPMENT) -> str:
        try:
            node.beginning(principal)
        except Refused as refused:
            return refused.code
        return ""

    assert (refusal(ANONYMOUS), node.looks) == ("unauthorized", 0)
    found = [refusal() for _ in range(3)]  # a minute may begin in between
    assert found[0] == ""
    assert node.watch.refused == found.count("rate_limited") >= 1
    assert node.looks == found.count("")


class Ended:
    """A node whose database has the end of a job before its log has: it was `changed` so long ago."""

    def __init__(self, seconds_ago: float, *, relay_ok: bool = True) -> None:
        self.finished: list[str] = []
        self.job = Job("me", {}, replace(FIRST, status="completed"), 0.0, time.time() - seconds_ago, None)
        self.delivered: Callable[[Sequence[Entry]], None] = lambda _: None
        self.channels, self.relay = {"jobs": self}, self
        self.epoch, self.relay_ok = "abcdef", relay_ok
        self.index = self
        parts: Any = self
        self.watch = Watch(cast(JobStore, parts), cast(Hub, parts), cast(Finisher, parts), "jobs", per_minute=9)

    def listen(self, channel: str, delivered: Callable[[Sequence[Entry]], None], _: Callable[[], None]) -> None:
        self.delivered = delivered

    def state(self) -> dict[str, object]:
        return {"ok": self.relay_ok}

    def of_topic(self, _: str) -> list[Any]:
        return []

    def finish(self, _: object, topic: str, now: float) -> None:
        self.finished.append(topic)

    async def get(self, job_id: str) -> Job:
        return self.job

    async def admit(self) -> None:
        request: Any = self
        await self.watch.admit(StreamCall(request, {"jobId": "a1"}, {}, DEVELOPMENT))

    def header(self, _: bytes) -> str:
        return ""


def test_a_stream_does_not_end_while_the_end_is_on_its_way_to_the_log() -> None:
    """J3: one that resumes right behind the commit would be told that it has everything, and lack the last state."""

    async def watch() -> None:
        node = Ended(0)
        await node.admit()
        assert node.finished == []
        event = Event((topic_of("a1"),), node.job.state.text(), private=True)
        node.delivered([Entry(1, "", event, b"", 0.0)])
        assert node.finished == [topic_of("a1")]

    asyncio.run(watch())


@pytest.mark.parametrize(("seconds_ago", "relay_ok", "ends"), [(60, True, True), (60, False, False), (1, True, False)])
def test_an_end_of_long_ago_is_in_the_log_if_the_relay_is_at_work(
    seconds_ago: float, relay_ok: bool, ends: bool
) -> None:
    """J3: a node that has begun since has seen no event of it."""

    async def watch() -> None:
        node = Ended(seconds_ago, relay_ok=relay_ok)
        await node.admit()
        assert bool(node.finished) is ends

    asyncio.run(watch())
