"""What a job's stream begins with, where the node's tail and the database disagree; and who may look into it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

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
