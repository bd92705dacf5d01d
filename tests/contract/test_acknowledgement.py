"""Section 1 of the contract: what an acknowledgement means and what it survives. The disk's flush is in test_flush,
what Redis and its replicas survive in test_redis.
"""

from __future__ import annotations

import http.client
import itertools
import json
import resource
import threading
from pathlib import Path

import pytest

from tests.contract.client import NDJSON, Channel, Publisher
from tests.contract.conftest import StartChannel
from tests.harness.process import Node, wait_until
from tests.harness.redis import RedisServer
from tests.mercure.hub import Hub, token


def test_what_was_acknowledged_can_be_read_at_once(relayed: Channel) -> None:
    """1.1: by another connection, through each way to publish."""
    topic, main = relayed.name, relayed.beside(name="main")
    ways = [
        lambda: main.publish("json", topic=topic),
        lambda: main.publish_all([{"data": "1", "topic": topic}, {"data": "2", "topic": topic}])[-1],
        lambda: Hub(main.node).publish(topic, "form"),
    ]
    for way in ways * 10:
        event_id = way()
        assert main.stream(f"topic={topic}&last=1").events(1)[0].id == event_id


def test_an_acknowledgement_outlives_its_publisher_and_all_readers(relayed: Channel) -> None:
    """1.2, 1.3, 1.8: nobody need be there."""
    publisher, reader = relayed.publisher(), relayed.stream()
    ids = [publisher.publish(number) for number in range(5)]
    publisher.close()
    reader.close()
    assert [event.id for event in relayed.history()] == ids


def test_the_memory_relay_forgets_with_the_process(channel: StartChannel) -> None:
    """1.2: what comes after is another log."""
    c = channel()
    first = c.publisher().publish("lost")
    c.node.kill()
    c.node.start()
    assert c.history() == []
    assert c.publisher().publish("new").split("-")[0] != first.split("-")[0]


class Writer:
    """Publishes batches `WRITER/BATCH/NUMBER of SIZE` until the server is gone; knows what was acknowledged."""

    def __init__(self, port: int, name: str) -> None:
        self.publisher = Publisher(port)
        self.name = name
        self.acknowledged: list[str] = []
        self.thread = threading.Thread(target=self._write, daemon=True)
        self.thread.start()

    def _write(self) -> None:
        for batch in itertools.count():
            size = (1, 2, 7, 50)[batch % 4]
            try:
                ids = self.publisher.publish_all(
                    [{"data": f"{self.name}/{batch}/{number}/{size}"} for number in range(size)]
                )
            except (OSError, http.client.HTTPException):
                return
            self.acknowledged += ids


def killed_under_load(c: Channel) -> list[Writer]:
    """Kill the channel's nodes while they are written to; what the writers know."""
    writers = [Writer(node.port, name) for name, node in zip("ab", c.nodes * 2, strict=False)]
    wait_until(lambda: all(len(writer.acknowledged) > 300 for writer in writers), 20, "three hundred events of each")
    for node in c.nodes:
        node.kill()
    for writer in writers:
        writer.thread.join(10)
        writer.publisher.close()
    return writers


def assert_kept(c: Channel, writers: list[Writer]) -> None:
    """Every acknowledged event is there, in order; of a batch that was under way all or nothing."""
    events = c.history()
    ids = [event.id for event in events]
    assert ids == sorted(set(ids), key=str)
    for writer in writers:
        assert set(writer.acknowledged) <= set(ids)
        kept = [
            tuple(map(int, (event.data or "").split("/")[1:]))
            for event in events
            if (event.data or "").startswith(writer.name)
        ]
        assert kept == [
            (batch, number, size) for batch, size in dict.fromkeys((b, s) for b, _, s in kept) for number in range(size)
        ]


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL", "FULL"])
def test_the_sqlite_relay_survives_a_kill(channel: StartChannel, sqlite: str, synchronous: str) -> None:
    """1.3, 1.6: whatever the server was doing."""
    c = channel(relay=sqlite, sqlite_synchronous=synchronous)
    writers = killed_under_load(c)
    c.node.start()
    assert_kept(c, writers)


def test_the_redis_relay_survives_a_kill_of_all_nodes(channel: StartChannel, redis: RedisServer) -> None:
    """1.8, 1.6: a node that begins when the others are dead has what they acknowledged."""
    writers = killed_under_load(channel(relay=redis.url, nodes=2))
    assert_kept(channel(relay=redis.url), writers)


def test_the_sqlite_relay_survives_a_stop(channel: StartChannel, sqlite: str) -> None:
    """1.3: and a second stop after a start without a publish."""
    c = channel(relay=sqlite)
    ids = [c.publisher().publish(number) for number in range(5)]
    for _ in range(2):
        assert c.node.stop() == 0
        c.node.start()
    assert [event.id for event in c.history()] == ids


REFUSED: list[tuple[int, object]] = [
    (400, {"data": "no", "type": "gap"}),
    (400, {"data": "no", "type": "a\nb"}),
    (400, {"data": "no", "retry": -1}),
    (400, {"data": "no", "id": "a\nb"}),
    (400, {"data": "no", "topic": "*"}),
    (400, {"data": "no", "private": "yes"}),
    (400, {"data": "no", "unknown": 1}),
    (400, ["no"]),
    (413, {"data": "\n" * 300_000}),
]


def test_what_was_refused_was_not_published(relayed: Channel) -> None:
    """1.5: neither the bad event nor a part of it, live or later."""
    live = relayed.stream()
    for status, event in REFUSED:
        assert relayed.publisher().offer(event).status == status, event
    assert relayed.publisher().post(b'{"data": ', "application/json").status == 400
    good = relayed.publisher().publish("good")
    assert [event.id for event in live.events(1)] == [good]
    assert [event.id for event in relayed.history()] == [good]


def test_what_was_forbidden_was_not_published(keyed: Channel) -> None:
    """1.5: a missing grant on one topic refuses the event."""
    rights = {keyed.name: {"publish": ["a"], "subscribe": ["*"]}}
    c = keyed.beside(token=token(ringcast=rights))
    live = c.stream()
    for event in ({"topic": "b"}, {"topics": ["a", "b"]}, {}):
        assert c.publisher().offer(event).status == 403
    good = c.publisher().publish("good", topic="a")
    assert [event.id for event in live.events(1)] == [good]


BAD_LINES = [
    b'{"type": "gap"}',
    b'{"topics": []',
    b"[]",
    b'"text"',
    b'{"id": "earliest"}',
    b'{"unknown": 1}',
    b'{"data": "\\ud800"}',
    b'{"data": "\xed\xa0\x80"}',
    b'{"data": NaN}',
]


def test_one_bad_line_refuses_a_batch(relayed: Channel) -> None:
    """1.6: wherever it stands; the answer names the line, nothing of the others is published."""
    live, publisher = relayed.stream(), relayed.publisher()
    for bad, place in itertools.product(BAD_LINES, (0, 2, 4)):
        lines = [json.dumps({"data": str(number)}).encode() for number in range(5)]
        lines[place] = bad
        answer = publisher.post(b"\n".join(lines), NDJSON)
        assert answer.status == 400, (bad, answer)
        errors = answer.fields["errors"]
        assert isinstance(errors, list), answer
        assert [error["line"] for error in errors] == [place + 1], (bad, answer)
    good = publisher.publish("good")
    assert [event.id for event in live.events(1)] == [good]


def limit_file_size(node: Node, size: int) -> None:
    """No file of the server may grow beyond this many bytes: a full disk, as far as it can tell."""
    _, hard = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (size, hard))


def test_a_full_disk_refuses_publishers_and_serves_readers(channel: StartChannel, sqlite: str, tmp_path: Path) -> None:
    """1.7, 1.5: 503 with a time to come back; afterwards the log holds what was acknowledged and nothing else."""
    c = channel(relay=sqlite)
    live, publisher = c.stream(), c.publisher()
    ids = [publisher.publish("before")]
    limit_file_size(c.node, max(file.stat().st_size for file in tmp_path.iterdir()) + (128 << 10))
    for number in range(2000):
        answer = publisher.offer({"data": f"{number} " + "x" * 4000})
        if answer.status != 200:
            break
        ids += answer.ids
    assert (answer.status, answer.fields["code"]) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert publisher.offer({"data": "x" * 100_000}).status == 503
    assert [event.id for event in live.events(len(ids))] == ids
    assert [event.id for event in c.stream(f"last_event_id={ids[0]}").events(len(ids) - 1)] == ids[1:]
    limit_file_size(c.node, resource.RLIM_INFINITY)
    wait_until(lambda: publisher.offer({"data": "after"}).status == 200, 10, "a publish after there was room again")
    assert [event.id for event in c.history()][: len(ids)] == ids
    assert [event.data for event in c.history()[len(ids) :]] == ["after"]
