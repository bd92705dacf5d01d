"""Section 2 of the contract: one total order, seen by everybody on every node."""

from __future__ import annotations

import itertools
import re
import threading

from tests.contract.client import Channel, Recorder
from tests.harness.stream import Block

ROUNDS = 40
QUERIES = {
    "": lambda topic, kind: True,
    "topic=t/0": lambda topic, kind: topic == "t/0",
    "topic=t/1&topic=t/3": lambda topic, kind: topic in ("t/1", "t/3"),
    "topic=t/{n}&type=even": lambda topic, kind: kind == "even",
    "type=odd&type=message": lambda topic, kind: kind != "even",
}


class Writer:
    """Publishes numbered events on one topic, single ones and batches by turns, each after the answer to the one
    before and on another connection.
    """

    def __init__(self, channel: Channel, number: int) -> None:
        self.topic = f"t/{number}"
        self.publishers = itertools.cycle([channel.publisher(), channel.publisher()])
        self.answers: list[list[str]] = []
        self.thread = threading.Thread(target=self._write)
        self.thread.start()

    def _event(self, sequence: int) -> dict[str, object]:
        kind = ("even", "odd", None)[sequence % 3]
        return {"topic": self.topic, "data": f"{self.topic} {kind} {sequence:04}"} | ({"type": kind} if kind else {})

    def _write(self) -> None:
        sequence = 0
        for size in (1, 1, 5) * ROUNDS:
            events = [self._event(sequence + place) for place in range(size)]
            publisher = next(self.publishers)
            answer = publisher.offer(events[0]) if size == 1 else publisher.offer_all(events)
            self.answers.append(answer.ids)
            sequence += size

    @property
    def ids(self) -> list[str]:
        return [event_id for answer in self.answers for event_id in answer]


def selected(events: list[Block], query: str) -> list[str | None]:
    """The ids that a query should select."""
    parts = [(event, (event.data or "").split()) for event in events]
    return [event.id for event, (topic, kind, _) in parts if QUERIES[query](topic, kind)]


def test_everybody_sees_one_order(spread: Channel) -> None:
    """2.1, 2.2, 2.3, 2.4, 3.1: four publishers, live and late readers of five selections, all of them on every node."""
    nodes = spread.each()
    live = [(node, query, Recorder(node.stream(query))) for node in nodes for query in QUERIES]
    writers = [Writer(spread, number) for number in range(4)]
    for writer in writers:
        writer.thread.join(60)
    last = max(event_id for writer in writers for event_id in writer.ids)
    first = live[0][2]
    first.wait_for(last)
    everything = [event for event in first.events if event.type != "hello"]
    ids = [str(event.id) for event in everything]
    assert ids == sorted(set(ids)), "ids strictly increase"
    assert sorted(event_id for writer in writers for event_id in writer.ids) == ids, (
        "what was acknowledged came, and nothing else"
    )
    assert all(re.fullmatch(r"[0-9a-z]{6}-[0-9a-f]{13}", event_id) and len(event_id) == 20 for event_id in ids)
    for writer in writers:
        own = [event for event in everything if (event.data or "").startswith(writer.topic)]
        assert [event.id for event in own] == writer.ids, "the publisher's own order"
        assert [int((event.data or "").split()[-1]) for event in own] == list(range(len(own)))
    for node, query, recorder in live:
        expected = selected(everything, query)
        recorder.wait_for(str(expected[-1]))
        assert recorder.ids == expected, query
        late = node.stream(f"{query}&last_event_id=earliest").events(len(expected))
        assert [event.id for event in late] == expected, query
        recorder.stop()
