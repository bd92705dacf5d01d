"""Section 2 of the contract: one total order, seen by everybody."""

from __future__ import annotations

import re
import threading

from tests.contract.client import Channel, Publisher, Recorder
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
    before.
    """

    def __init__(self, channel: Channel, number: int) -> None:
        self.topic = f"t/{number}"
        self.publisher: Publisher = channel.publisher()
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
            answer = self.publisher.offer(events[0]) if size == 1 else self.publisher.offer_all(events)
            self.answers.append(answer.ids)
            sequence += size

    @property
    def ids(self) -> list[str]:
        return [event_id for answer in self.answers for event_id in answer]


def selected(events: list[Block], query: str) -> list[str | None]:
    """The ids that a query should select."""
    parts = [(event, (event.data or "").split()) for event in events]
    return [event.id for event, (topic, kind, _) in parts if QUERIES[query](topic, kind)]


def test_everybody_sees_one_order(relayed: Channel) -> None:
    """2.1, 2.2, 2.3, 2.4, 3.1: four publishers, live and late readers of five selections."""
    live = {query: Recorder(relayed.stream(query)) for query in QUERIES}
    writers = [Writer(relayed, number) for number in range(4)]
    for writer in writers:
        writer.thread.join(60)
    last = max(event_id for writer in writers for event_id in writer.ids)
    live[""].wait_for(last)
    everything = [event for event in live[""].events if event.type != "hello"]
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
    for query, recorder in live.items():
        expected = selected(everything, query)
        if expected:
            recorder.wait_for(str(expected[-1]))
        assert recorder.ids == expected, query
        assert [
            event.id for event in relayed.stream(f"{query}&last_event_id=earliest").events(len(expected))
        ] == expected, query
        recorder.stop()
