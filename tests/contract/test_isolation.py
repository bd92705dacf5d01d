"""Section 6 of the contract: one world with a neighbour's private events and one without them look the same, byte for
byte.

Ids and delays differ from run to run, so each id is replaced by the name of the event that the reader may read, and
by `?` if it is none of them. Where the server names the present, that is the last public event or a later moment, as
its clock has it; that it is never a foreign event is looked at by itself.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from tests.contract.client import Channel, Publisher, Recorder, until
from tests.contract.conftest import RELAYS, StartChannel, relay_url
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream
from tests.mercure.hub import token

GRANTS: dict[str, dict[str, list[str]]] = {
    "writer": {"publish": ["*"]},
    "a": {"subscribe": ["a/{x}"]},
    "b": {"subscribe": ["b/{x}"]},
}


def rights(sub: str, channel: str) -> str:
    """The token of a writer or reader of this channel."""
    return token(ringcast={channel: GRANTS[sub]}, sub=sub)


def held_by(sub: str, channel: Channel) -> Channel:
    """The channel as a writer or reader has it."""
    return channel.beside(token=rights(sub, channel.name))


SECRET = "the neighbour's secret"
OWN_ID = "neighbour:1"
ID = r"[0-9a-z]{6}-[0-9a-f]{13}"


class World:
    """A node on which A's readers look at a channel that B's private events may be in too."""

    def __init__(self, node: Node, name: str, with_neighbour: bool) -> None:
        self.channel = Channel(node, name, token=rights("a", name))
        self.publisher = Publisher(node.port, name, token=rights("writer", name))
        self.with_neighbour = with_neighbour
        self.names: dict[str, str] = {}
        self.foreign: list[str] = []
        self.offered = ""

    def neighbour(self, **fields: object) -> None:
        """Something that A may not read, if there is a neighbour."""
        if self.with_neighbour:
            self.foreign.append(self.publisher.publish(SECRET, topic="b/1", private=True, **fields))

    def own(self, data: str, private: bool = False) -> str:
        """Something that A may read."""
        event_id = self.publisher.publish(data, topic="a/1", private=private)
        self.names[event_id] = data
        return event_id

    def plain(self, text: str) -> str:
        """Without what differs from run to run."""
        if "Mercure-Last-Event-ID" not in text:  # a fresh stream's cursor is the present, another one's its own
            text = re.sub(rf'id: {ID}\nevent: hello\n(.*?"cursor":)"{ID}"', r"id: <now>\nevent: hello\n\1<now>", text)
        text = re.sub(rf"(?m)^id: {ID}\n\n", "id: <now>\n\n", text)
        text = re.sub(ID, lambda found: f"<{self.names.get(found[0], '?')}>", text)
        text = re.sub(r"(?m)^(retry|Date): .*", r"\1: <any>", text)
        text = re.sub(r'"client_id":\s*"[^"]*"', '"client_id": "<client>"', text)
        return re.sub(r'"epoch":\s*"[^"]*"', '"epoch": "<epoch>"', text)

    def seen(self, stream: Stream, last: str) -> str:
        """Everything that came up to the event `last`, head and body, plain."""
        while stream.next_event().id != last:
            pass
        body = stream.raw[: len(stream.raw) - len(stream._text)]
        whole = stream.head + b"\n\n" + body
        for secret in {SECRET, *self.foreign} - {self.offered}:
            assert secret.encode() not in whole, (secret, whole)
        return self.plain("\n".join(sorted(stream.head.decode("latin-1").split("\r\n"))) + "\n\n" + body.decode())

    def close(self) -> None:
        self.channel.close()
        self.publisher.close()


def history(world: World) -> list[str]:
    """Own and foreign events by turns; the own ids."""
    ids = []
    world.neighbour(id=OWN_ID)
    for number in range(6):
        ids.append(world.own(f"own {number}", private=number % 2 == 0))
        for _ in range(number):
            world.neighbour(type="secret-type")
    return ids


def live(world: World) -> str:
    stream = world.channel.stream()
    stream.next_block()
    history(world)
    return world.seen(stream, world.own("last"))


def replay(
    query: Callable[[list[str]], str], header: Callable[[list[str]], str] | None = None
) -> Callable[[World], str]:
    """A look at the history by a cursor or a count."""

    def look(world: World) -> str:
        ids = history(world)
        world.neighbour()
        world.offered = header(ids) if header else ""
        headers = {"Last_Event_ID": world.offered} if header else {}
        stream = world.channel.stream(query(ids), **headers)
        world.neighbour()
        return world.seen(stream, world.own("last"))

    return look


LOOKS: dict[str, Callable[[World], str]] = {
    "live": live,
    "live on the neighbour's topic": lambda world: world.seen(
        world.channel.stream("topic=b/1&topic=a/1"), (history(world), world.own("last"))[1]
    ),
    "fresh after a foreign event": replay(lambda ids: ""),
    "earliest": replay(lambda ids: "last_event_id=earliest"),
    "earliest of a type": replay(lambda ids: "last_event_id=earliest&type=message&type=secret-type"),
    "last three": replay(lambda ids: "last=3"),
    "last hundred": replay(lambda ids: "last=100"),
    "a cursor": replay(lambda ids: "", lambda ids: ids[2]),
    "the last own cursor": replay(lambda ids: "", lambda ids: ids[-1]),
    "a cursor in the query": replay(lambda ids: f"lastEventId={ids[3]}"),
    "a foreign event's own id": replay(lambda ids: "", lambda ids: OWN_ID),
    "an unknown id": replay(lambda ids: f"last_event_id={quote('nothing like it')}"),
}


@pytest.fixture(scope="module", params=RELAYS)
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """A node for each world; each look has a channel of its own there."""
    started = []
    for world in ("with", "without"):
        folder = tmp_path_factory.mktemp(world)
        relay = relay_url(request.param, request, folder)
        settings = {"relay": relay, "redis_prefix": world, "jwt_secret": TOKEN_SECRET, "heartbeat_seconds": 0}
        started.append(Node(folder, **settings).start())
    yield started
    for node in started:
        node.kill()


@pytest.mark.parametrize("number", range(len(LOOKS)), ids=list(LOOKS))
def test_a_neighbours_private_events_change_no_byte(nodes: list[Node], number: int) -> None:
    """6.1, 6.2, 6.3, 6.4: live, replayed, counted from the end, by any cursor, in headers and control events."""
    worlds = [World(node, f"c{number}", node is nodes[0]) for node in nodes]
    look = list(LOOKS.values())[number]
    views = [look(world) for world in worlds]
    for world in worlds:
        world.close()
    assert views[0] == views[1]


def test_a_private_events_own_id_is_no_cursor_for_a_stranger(keyed: Channel) -> None:
    """6.4: as if it had never been; for one who may read the event it is a cursor, on every node."""
    publisher = held_by("writer", keyed).publisher()
    publisher.publish(SECRET, topic="b/1", private=True, id=OWN_ID)
    own = publisher.publish("own", topic="a/1")

    def answer(reader: Channel, cursor: str) -> tuple[str, bool]:
        stream = reader.stream(Last_Event_ID=cursor)
        until(stream, own)
        return stream.headers["mercure-last-event-id"], b'"reason":"unknown"' in stream.raw

    for a, b in zip(held_by("a", keyed).each(), held_by("b", keyed).each(), strict=True):
        assert answer(a, OWN_ID) == answer(a, "never:1") == ("earliest", True)
        assert answer(b, OWN_ID) == (OWN_ID, False)


def test_a_heartbeat_does_not_name_a_neighbours_event(keyed: Channel) -> None:
    """6.3: the cursor that it carries is none of an event that this reader may not read, and it resumes."""
    c, publisher = held_by("a", keyed), held_by("writer", keyed).publisher()
    with c.stream() as stream:
        stream.next_event()
        foreign = [publisher.publish(SECRET, topic="b/1", private=True) for _ in range(3)]
        beats = [stream.next_block(5) for _ in range(2)]
    assert all(beat is not None and beat.data is None for beat in beats)
    assert not [event_id for event_id in foreign if event_id.encode() in stream.raw]
    own = publisher.publish("own", topic="a/1")
    cursor = beats[-1].id if beats[-1] else None
    assert c.stream(Last_Event_ID=str(cursor)).events(1)[0].id == own


def test_a_node_that_opens_a_channel_does_not_name_its_newest_event(keyed: Channel) -> None:
    """6.3: the present that the first stream of a channel on a node begins with is none of a foreign event."""
    publisher = held_by("writer", keyed).publisher()
    foreign = publisher.publish(SECRET, topic="b/1", private=True)
    streams = [node.stream() for node in held_by("a", keyed).each()]
    for stream in streams:
        stream.next_event()
        assert foreign.encode() not in stream.raw
    own = publisher.publish("own", topic="a/1")
    assert [stream.next_event().id for stream in streams] == [own] * len(streams)


@pytest.mark.parametrize("shards", [1, 2])
def test_a_gap_names_no_neighbours_event(channel: StartChannel, redis: RedisServer, shards: int) -> None:
    """6.1, 6.3, 3.4: entries go before a node has read them, foreign ones the last of them. Its readers are told what
    may be missing, and no more: neither who gets an event behind it, nor who gets none, nor who comes back.
    """
    split = json.dumps({"c": {"shards": shards}})
    settings = {"retain_events": 10, "heartbeat_seconds": 0.5, "jwt_secret": TOKEN_SECRET, "channels": split}
    c = channel(relay=redis.url, nodes=2, **settings)
    lagging, other = held_by("a", c).each()
    writer = held_by("writer", other).publisher()
    first = writer.publish("first", topic="a/1")
    busy, quiet = lagging.stream("last_event_id=earliest"), lagging.stream("topic=a/quiet")
    until(busy, first)
    quiet.next_event()
    os.kill(lagging.node.pid, signal.SIGSTOP)
    own = [writer.publish(number, topic="a/1") for number in range(20)]
    foreign = [writer.publish(SECRET, topic="b/1", private=True) for _ in range(10 + 5)]
    own += [writer.publish(number, topic="a/1") for number in range(20, 20 + 10 // shards - 5)]
    os.kill(lagging.node.pid, signal.SIGCONT)
    own.append(writer.publish("end", topic="a/1"))
    came = until(busy, own[-1])
    back = lagging.stream(Last_Event_ID=first)
    until(back, own[-1])
    while b"event: gap" not in quiet.raw:
        quiet.next_event()
    moved = quiet.next_block()
    assert moved is not None
    for stream in (busy, quiet, back):
        assert stream.raw.count(b"event: gap") == 1
        assert not [event_id for event_id in foreign if event_id.encode() in stream.raw]
    told = json.loads(re.findall(rb"event: gap\ndata: (.+)", busy.raw)[0])
    missing = set(own[:-1]) - {event.id for event in came}
    declared = {event_id for event_id in own if (told["from"] or "") < event_id <= told["to"]}
    assert set() != missing <= declared
    assert shards > 1 or missing == declared
    assert str(moved.id) > foreign[-1]


STATISTICS = ("/stats", "/stats?scope=cluster", "/metrics")


def test_statistics_are_for_operators(keyed: Channel) -> None:
    """6.5: behind a proxy only a token with the right to operate sees them, of this node and of all."""
    node, reader, writer = keyed.node, rights("a", keyed.name), rights("writer", keyed.name)
    operator = token(ringcast={"operate": True})
    public = {"X_Forwarded_For": "203.0.113.7"}
    for path in STATISTICS:
        for headers in ({}, {"Authorization": f"Bearer {reader}"}, {"Authorization": f"Bearer {writer}"}):
            status, _, body = node.get(path, **public, **headers)
            assert (status, json.loads(body)["code"]) == (404, "not_found")
        assert node.get(path, **public, Authorization=f"Bearer {operator}")[0] == 200
        assert node.get(path)[0] == 200


def test_statistics_hold_no_content(keyed: Channel) -> None:
    """6.5: nor topics, nor tokens, nor publishers' ids; operators see counts."""
    reader = held_by("a", keyed)
    reader.stream("topic=a/canary-topic")
    held_by("writer", keyed).publish(SECRET, topic="b/canary-topic", private=True, id=OWN_ID, type="canary-type")
    words = (SECRET, OWN_ID, "canary", str(reader.token)[-20:])
    for node, path in itertools.product(keyed.nodes, (*STATISTICS, "/health", "/ready")):
        body = node.get(path)[2]
        assert not [word for word in words if word.encode() in body], path


SUBSCRIBABLE = [["*"], ["a/1"], ["a/{x}"], ["{+any}"], ["b/2", "a/{x}"], ["none"]]


def test_live_and_replay_judge_alike(keyed: Channel) -> None:
    """6.6: two hundred events of random topics, half of them private, for six kinds of rights, on any node."""
    c = held_by("writer", keyed)
    holders = [c.beside(token=token(ringcast={c.name: {"subscribe": topics}})) for topics in SUBSCRIBABLE]
    recorders = [Recorder(holder.stream()) for holder in holders]
    wait_until(lambda: all(recorder.events for recorder in recorders), 10, "every hello")
    dice = random.Random(3)
    topics = ["a/1", "a/2", "b/1", "b/2", "c"]
    for _ in range(200):
        c.publish_all([{"topics": dice.sample(topics, dice.randrange(1, 3)), "private": dice.random() < 0.5}])
    last = c.mark()
    for holder, recorder in zip(holders, recorders, strict=True):
        recorder.wait_for(last)
        with holder.stream("last_event_id=earliest") as stream:
            replayed = [event.id for event in until(stream, last)]
        assert recorder.ids == [*replayed, last]
        recorder.stop()
    assert len(recorders[0].ids) == 201
