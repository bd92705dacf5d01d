"""Sections 3 and 4 of the contract where replay meets the live stream, under concurrent publishing and with clients
that break off anywhere and come back to whichever node.
"""

from __future__ import annotations

import random
import threading

from tests.contract.client import MARK, Channel, Recorder
from tests.contract.conftest import StartChannel
from tests.harness.process import wait_until
from tests.harness.stream import Stream
from tests.wire.parser import Parser

RESUMES = 200
WORKERS = 4


class Traffic:
    """Publishes without a pause, single events and batches, until stopped; `ids` are the acknowledged ones in the log's
    order.
    """

    def __init__(self, channel: Channel, pause_seconds: float = 0.002) -> None:
        self.ids: list[str] = []
        self.publisher = channel.publisher()
        self.pause_seconds = pause_seconds
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._publish, daemon=True)
        self.thread.start()

    def _publish(self) -> None:
        dice = random.Random(7)
        while not self.stopping.wait(self.pause_seconds):
            events = [
                {"data": "x" * dice.randrange(200), "topic": f"t/{dice.randrange(3)}"}
                for _ in range(dice.choice((1, 1, 1, 10)))
            ]
            self.ids += self.publisher.publish_all(events)

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join(10)


class Resumer:
    """Resumes again and again from random events that were just published; keeps the cursor and what came of each."""

    def __init__(self, channel: Channel, traffic: Traffic, seed: int) -> None:
        self.channel = channel
        self.traffic = traffic
        self.dice = random.Random(seed)
        self.runs: list[tuple[str, list[str | None]]] = []
        self.thread = threading.Thread(target=self._resume, daemon=True)
        self.thread.start()

    def _resume(self) -> None:
        for _ in range(RESUMES // WORKERS):
            known = self.traffic.ids[-self.dice.choice((1, 2, 20, 200)) :]
            cursor = self.dice.choice(known)
            wanted = sum(event_id > cursor for event_id in known) + self.dice.randrange(1, 20)
            with self.channel.stream(Last_Event_ID=cursor) as stream:
                self.runs.append((cursor, [event.id for event in stream.events(wanted)]))


def test_replay_meets_live_without_a_hole_or_a_repeat(spread: Channel) -> None:
    """3.2, 3.3, 4.1: two hundred resumes at random places while events are published; each got exactly what follows
    its cursor, on the publisher's node or on another.
    """
    traffic = Traffic(spread)
    wait_until(lambda: len(traffic.ids) > 100, 10, "a hundred events")
    resumers = [Resumer(spread, traffic, seed) for seed in range(WORKERS)]
    for resumer in resumers:
        resumer.thread.join(120)
    traffic.stop()
    place = {event_id: number for number, event_id in enumerate(traffic.ids)}
    runs = [run for resumer in resumers for run in resumer.runs]
    assert len(runs) == RESUMES
    for cursor, came in runs:
        begin = place[cursor] + 1
        assert came == traffic.ids[begin : begin + len(came)]


def test_a_ring_that_is_overrun_meets_the_log_without_a_hole(channel: StartChannel, lasting_relay: str) -> None:
    """3.3, 3.2: cursors far behind the ring are read from the file or from Redis while the ring moves on."""
    c = channel(relay=lasting_relay, ring_events=20)
    traffic = Traffic(c, 0)
    wait_until(lambda: len(traffic.ids) > 500, 20, "five hundred events")
    runs = []
    for number in range(40):
        cursor = traffic.ids[number * 10]
        with c.stream(Last_Event_ID=cursor) as stream:
            runs.append((number * 10, [event.id for event in stream.events(len(traffic.ids) - number * 10 + 30)]))
    traffic.stop()
    for begin, came in runs:
        assert came == traffic.ids[begin + 1 : begin + 1 + len(came)]


class Wanderer:
    """A client that hangs up after a random number of bytes and comes back with the last id it had, with several nodes
    to any of them; drops what it has passed.
    """

    def __init__(self, channel: Channel, seed: int, query: str) -> None:
        self.channel = channel
        self.query = query
        self.dice = random.Random(seed)
        self.cursor = ""
        self.seen: list[str] = []
        self.connections = 0

    def connect(self, last: str | None = None) -> None:
        """One connection, cut anywhere, in the middle of a block too; or after the event `last`, if there will be no
        more.
        """
        self.connections += 1
        headers = {"Last_Event_ID": self.cursor} if self.cursor else {}
        with self.channel.stream(f"{self.query}&last_event_id=earliest", **headers) as stream:
            parser = Parser(self.cursor)
            for event_id in self._read(stream, parser, f"id: {last}\n".encode()):
                assert event_id > self.cursor, "nothing up to the cursor comes again"
                if event_id > (self.seen[-1] if self.seen else ""):
                    self.seen.append(event_id)
            self.cursor = parser.last_event_id

    def _read(self, stream: Stream, parser: Parser, last: bytes) -> list[str]:
        wanted = self.dice.randrange(1, 6000)
        while len(stream.raw) < wanted and last not in stream.raw:
            assert stream._more(), "the stream ended"
        parser.feed(stream.raw[:wanted])
        return [event.last_event_id for event in parser.events if event.type == "message" and event.data != MARK]


def test_a_client_that_drops_what_it_has_passed_sees_everything_once(spread: Channel) -> None:
    """4.2, 4.1, 3.2: over many reconnections at random bytes, with and without a filter."""
    traffic = Traffic(spread)
    wanderers = [Wanderer(spread, seed, query) for seed, query in enumerate(("", "topic=t/1", ""))]
    wait_until(lambda: len(traffic.ids) > 50, 10, "fifty events")
    for _ in range(25):
        for wanderer in wanderers:
            wanderer.connect()
    traffic.stop()
    everything, filtered = spread.history(), spread.history("topic=t/1")
    for wanderer in wanderers:
        expected = [str(event.id) for event in (filtered if wanderer.query else everything)]
        while not wanderer.seen or wanderer.seen[-1] < expected[-1]:
            wanderer.connect(expected[-1])
        assert wanderer.seen == expected
        assert wanderer.connections >= 25


def test_an_event_that_many_selectors_match_comes_once(relayed: Channel) -> None:
    """4.3: live and replayed."""
    query = "topic=a&topic=a&topic={x}&topic=*&topic=b&type=message&type=message"
    live = Recorder(relayed.stream(query))
    wait_until(lambda: live.events, 5, "hello")
    ids = [relayed.publish(number, topics=["a", "b", "c"]) for number in range(3)]
    live.wait_for(ids[-1])
    assert live.ids == ids
    assert [event.id for event in relayed.history(query)] == ids
    live.stop()
