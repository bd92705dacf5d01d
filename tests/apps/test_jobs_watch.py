"""What a job's stream begins with, where the node's tail and the database disagree; and who may look into it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
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
from server.ids import format_id
from server.relay.protocol import Entry
from server.rights import ANONYMOUS, DEVELOPMENT, Principal

EPOCH, OTHER = "abcdef", "fedcba"
FIRST = State("a1", "processing", 10, "s", "m", "2026-11-21T12:00:01.000Z")
SECOND = replace(FIRST, progress=20, timestamp="2026-11-21T12:00:02.000Z")


class Node:
    """What a watch is made of: its hub tells of deliveries, its store is slow, so that some come meanwhile."""

    def __init__(self, kept: State, *meanwhile: State) -> None:
        self.kept, self.meanwhile = kept, meanwhile
        self.looks = 0
        self.channels = {"jobs": SimpleNamespace(epoch=EPOCH)}
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
    """A node whose database has a job that has ended, with `told` as the id of the event of its end."""

    def __init__(self, told: str | None = None, *, head: int = 0, shards: int = 1) -> None:
        self.finished: list[str] = []
        self.job = Job("me", {}, replace(FIRST, status="completed"), 0.0, 0.0, None, told)
        self.delivered: Callable[[Sequence[Entry]], None] = lambda _: None
        self.channels, self.epoch = {"jobs": self}, EPOCH
        self.log, self.following = SimpleNamespace(head=head), SimpleNamespace(count=shards)
        self.cursor = ""
        parts: Any = self
        self.watch = Watch(cast(JobStore, parts), cast(Hub, parts), cast(Finisher, parts), "jobs", per_minute=99)

    def listen(self, channel: str, delivered: Callable[[Sequence[Entry]], None], _: Callable[[], None]) -> None:
        self.delivered = delivered

    def deliver_the_end(self, position: int) -> None:
        event = Event((topic_of("a1"),), self.job.state.text(), private=True)
        self.delivered([Entry(position, "", event, b"", 0.0)])

    def finish(self, _: object, topic: str, now: float) -> None:
        self.finished.append(topic)

    async def get(self, job_id: str) -> Job:
        return self.job

    def header(self, _: bytes) -> str:
        return self.cursor

    def answer(self, cursor: str = "") -> str:
        """What a stream with this cursor is: "finished", one that "ends", or one that "waits" for the end."""
        self.cursor = cursor
        self.finished, request = [], cast(Any, self)
        try:
            asyncio.run(self.watch.admit(StreamCall(request, {"jobId": "a1"}, {}, DEVELOPMENT)))
        except Refused as refused:
            return refused.code
        waits = "a1" in self.watch.ending and self.watch.awaited.is_set()
        assert waits is not bool(self.finished)
        return "waits" if waits else "ends"


def test_a_stream_does_not_end_while_the_end_is_on_its_way_to_the_log() -> None:
    """J3: one that resumes right behind the commit would be told that it has everything, and lack the last state."""
    node = Ended(head=50)
    assert node.answer() == node.answer(format_id(EPOCH, 40)) == "waits"
    node.deliver_the_end(60)
    assert node.finished == [topic_of("a1")]


@pytest.mark.parametrize(
    ("told", "head", "shards", "answer"),
    [
        (format_id(EPOCH, 50), 50, 1, "ends"),
        (format_id(EPOCH, 50), 49, 1, "waits"),  # this node's tail lags
        (format_id(EPOCH, 50), 99, 4, "waits"),  # as may the one of its part of the channel
        (format_id(OTHER, 50), 99, 1, "waits"),  # the log that had it is lost
        (None, 99, 1, "waits"),
    ],
)
def test_a_stream_ends_at_once_if_this_node_has_all_of_the_log_up_to_the_end(
    told: str | None, head: int, shards: int, answer: str
) -> None:
    """J3: also on a node that has begun since and was delivered nothing of the job."""
    assert Ended(told, head=head, shards=shards).answer() == answer


@pytest.mark.parametrize("delivered", [True, False])
def test_who_has_seen_the_end_is_told_that_there_is_no_more_and_nobody_else_is(delivered: bool) -> None:
    """J3, J7: by where the end stands in the log. Neither the time since nor the state of the relay say it."""
    node = Ended(None if delivered else format_id(EPOCH, 50), head=60)
    if delivered:
        node.deliver_the_end(50)
    cursors = [format_id(EPOCH, 50), format_id(EPOCH, 51), format_id(EPOCH, 49), format_id(OTHER, 51), "", "odd"]
    assert [node.answer(cursor) for cursor in cursors] == ["finished", "finished", "ends", "ends", "ends", "ends"]


def test_an_end_that_was_delivered_from_a_log_that_is_lost_has_been_seen_by_nobody_for_sure() -> None:
    """J3: a reader's cursor in the new log may have got there by way of a gap."""
    node = Ended(head=60)
    node.deliver_the_end(50)
    node.epoch = OTHER
    assert [node.answer(cursor) for cursor in (format_id(OTHER, 55), "")] == ["waits", "waits"]
