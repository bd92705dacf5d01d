"""Who may read what: expiry, look-alike topics, replay, mixed-up answers, and what an error gives away."""

from __future__ import annotations

import contextlib
import json
import random
import time
import unicodedata
import urllib.parse

import pytest

from tests.harness.process import TOKEN_SECRET, Node
from tests.harness.stream import Block, Stream
from tests.threats.conftest import Start
from tests.threats.tokens import bearer, signed
from tests.threats.wire import WAYS, answered, ask, request, wire

JSON = {"Content_Type": "application/json"}
PUBLISHER = bearer(
    signed(
        {"mercure": {"publish": ["*"]}, "ringcast": {name: {"publish": ["*"]} for name in ("left", "right", "vault")}}
    )
)


def reader(*topics: str, **claims: object) -> str:
    """The header of a token that may read private events of exactly these topics on `main`."""
    return bearer(signed({"mercure": {"subscribe": list(topics)}} | claims))


def publish(node: Node, channel: str = "main", **event: object) -> str:
    """Publish with the right to publish anything; the event's id."""
    raw = request("POST", f"/channels/{channel}/events", json.dumps(event).encode(), Authorization=PUBLISHER, **JSON)
    answer = answered(node.port, raw)
    assert answer.status == 200, (answer, event)
    return str(json.loads(answer.body)["ids"][0])


def until(stream: Stream, data: str) -> list[Block]:
    """The events up to the one with this data, without it and without `hello`."""
    found: list[Block] = []
    while (block := stream.next_event()).data != data:
        if block.type != "hello":
            found.append(block)
    return found


def asked_with(token: str, place: str) -> bytes:
    """A streaming request with the token in this place."""
    path = "/.well-known/mercure?topic=expiry" + (f"&authorization={token}" if place == "query" else "")
    headers = {"header": {"Authorization": bearer(token)}, "cookie": {"Cookie": f"mercureAuthorization={token}"}}
    return request("GET", path, Accept="text/event-stream", **headers.get(place, {}))


def test_a_stream_ends_when_its_token_does(keyed_node: Node) -> None:
    """S26: with `auth_expired`, between exp and exp + 1 s, and the next request with that token is 401."""
    expiry = int(time.time()) + 4
    token = signed({"mercure": {"subscribe": ["*"]}, "exp": expiry})
    tries = [(asked_with(token, place), way) for place in ("header", "cookie", "query") for way in WAYS]
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(wire(keyed_node.port, way)) for _, way in tries]
        for connection, (raw, _) in zip(connections, tries, strict=True):
            connection.send(raw)
        for connection in connections:
            text = connection.rest(10)
            assert expiry <= time.time() < expiry + 1.5
            assert b"event: auth_expired" in text
            assert b'"reconnect":false' in text
    for raw, way in tries:
        assert answered(keyed_node.port, raw, way).status == 401


def twins(topic: str) -> set[str]:
    """Names that somebody could take for `topic`."""
    changed = {
        topic.upper(), topic.swapcase(), topic + ".", topic + "/", "/" + topic, topic + "%00", topic + "%2e",
        topic + "?", topic + "#",
        topic.replace("/", "%2F"), topic.replace("/", "//"), topic.replace("a", "%61"), topic.replace(".", ":"),
        topic[:-1], topic + "x",
        topic.replace("a", "\u0430"), topic.replace("/", "/./"), topic + "/../" + topic.split("/")[-1], "x/../" + topic,
        unicodedata.normalize("NFD", topic), unicodedata.normalize("NFKC", topic), topic.casefold(), topic + " ",
        " " + topic,
        topic.replace("/", "\\"), topic.replace("/", "\u2215"), topic.replace(":", "/"), "https://" + topic,
    }  # fmt: skip
    return {twin for twin in changed if twin and twin != topic}


NASTY = [
    "tenants/a", "tenants.a", "a:b", "tenants/a.b", "tenants/a*", "tenants/[a-b]", "tenants/a?", "a/**",
    "tenants/\u00e9a", "tenants/\ufb01a",
    "https://example.com/a", "https://example.com/a?b=c&d=e", "a", "aa", "tenants/a%2Fb", "tenants/%61",
    "tenants/a;b", "t\u0131tle/a", "SS\u00df/a",
]  # fmt: skip


def test_private_events_reach_exactly_the_topic_that_was_granted(keyed_node: Node) -> None:
    """S30: some 400 look-alikes of 19 awkward names: live and on replay, not one byte of a foreign private event."""
    for topic in NASTY:
        token = reader(topic)
        with Stream(keyed_node.port, "/.well-known/mercure?topic=*", Authorization=token) as live:
            begin = str(live.next_event().id)
            for twin in sorted(twins(topic)):
                publish(keyed_node, topic=twin, data="FOREIGN", private=True)
            publish(keyed_node, topics=[f"x/{topic}/x", f"{topic},{topic}"], data="FOREIGN", private=True)
            publish(keyed_node, topic=topic, data="own", private=True)
            publish(keyed_node, topic="end", data="end")
            assert [block.data for block in until(live, "end")] == ["own"], topic
        with Stream(
            keyed_node.port, "/.well-known/mercure?topic=*", Authorization=token, Last_Event_ID=begin
        ) as replay:
            assert [block.data for block in until(replay, "end")] == ["own"], topic
            assert b"FOREIGN" not in replay.raw


@pytest.mark.parametrize(
    "topic",
    [
        "*",
        "",
        "a\x00b",
        "a\nb",
        "a\u200bb",
        "a\u202eb",
        "a\u00adb",
        "\ufeffa",
        "a\x7f",
        "a\x85b",
        "/.well-known/mercure",
        "/.well-known/%6Dercure/x",
    ],
)
def test_topics_made_to_deceive_are_refused(keyed_node: Node, topic: str) -> None:
    """S30: nothing, everything, control and format characters, and the endpoint's own name are no topics."""
    body = json.dumps({"topic": topic, "data": "x"}).encode()
    for channel in ("main", "left"):
        if channel == "left" and topic.startswith("/"):
            continue
        raw = request("POST", f"/channels/{channel}/events", body, Authorization=PUBLISHER, **JSON)
        assert answered(keyed_node.port, raw).status == 400
    form = urllib.parse.urlencode({"topic": topic, "data": "x"}).encode()
    raw = request(
        "POST", "/.well-known/mercure", form, Authorization=PUBLISHER, Content_Type="application/x-www-form-urlencoded"
    )
    assert answered(keyed_node.port, raw).status == 400


SPELLINGS = [
    "right",
    "main",
    "RIGHT",
    "left/../right",
    "left%2F..%2Fright",
    "right%00",
    "right/",
    "./right",
    "lef",
    "%72ight",
]


def test_a_channel_is_a_wall(keyed_node: Node) -> None:
    """S30: rights on one channel are none on another, under any spelling; its cursors reveal nothing there."""
    left = bearer(signed({"ringcast": {"left": {"subscribe": ["*"], "publish": ["*"]}}}))
    body = b'{"topic": "t", "data": "FOREIGN", "private": true}'
    secret = publish(keyed_node, "right", topic="t", data="SECRET", private=True)
    publish(keyed_node, "main", topic="t", data="SECRET", private=True)
    publish(keyed_node, "left", topic="t", data="first")
    for way in WAYS:
        for name in SPELLINGS:
            asked = request("GET", f"/channels/{name}/events", Authorization=left, Last_Event_ID="earliest")
            with wire(keyed_node.port, way) as connection:
                connection.send(asked)
                connection.say_goodbye()
                assert b"SECRET" not in connection.rest(), (name, way)
            raw = request("POST", f"/channels/{name}/events", body, Authorization=left, **JSON)
            assert answered(keyed_node.port, raw, way).status in (400, 403, 404), (name, way)
    with Stream(keyed_node.port, "/channels/left/events", Authorization=left, Last_Event_ID=secret) as stream:
        publish(keyed_node, "left", topic="t", data="end")
        assert {block.data for block in until(stream, "end") if block.type != "gap"} <= {"first"}
        assert b"SECRET" not in stream.raw


def test_replay_follows_the_rights_of_the_token_that_asks(keyed_node: Node) -> None:
    """S31: live and replay give each of four tokens the same events; a right that was taken away is gone for the past
    too.
    """
    tokens = [reader("r/one"), reader("r/one", "r/two"), reader("r/{any}"), reader()]
    streams = [Stream(keyed_node.port, "/.well-known/mercure?topic=*", Authorization=token) for token in tokens]
    begin, *_ = [str(stream.next_event().id) for stream in streams]
    for number, topics in enumerate((["r/one"], ["r/two"], ["r/one", "r/two"], ["r/three"], ["q"])):
        for private in (True, False):
            publish(keyed_node, topics=topics, data=f"{number}{private}", private=private)
    publish(keyed_node, topic="end", data="end31")
    for token, stream, private in zip(tokens, streams, ("02", "012", "0123", ""), strict=True):
        expected = [f"{n}{p}" for n in range(5) for p in (True, False) if not p or str(n) in private]
        live = [(block.id, block.data) for block in until(stream, "end31")]
        assert [data for _, data in live] == expected
        with Stream(
            keyed_node.port, "/.well-known/mercure?topic=*", Authorization=token, Last_Event_ID=begin
        ) as replay:
            assert [(block.id, block.data) for block in until(replay, "end31")] == live
        stream.close()


def test_a_private_events_id_tells_a_stranger_nothing(keyed_node: Node) -> None:
    """S31: the publisher's own id of an event that one may not read is as unknown as one that was never used."""
    publish(keyed_node, topic="own/ids", data="SECRET", id="order-4711", private=True)
    publish(keyed_node, topic="end", data="end-ids")
    told = []
    for cursor in ("order-4711", "order-4712"):
        with Stream(
            keyed_node.port,
            "/.well-known/mercure?topic=own/ids&topic=end",
            Authorization=reader(),
            Last_Event_ID=cursor,
        ) as stream:
            hello, gap = stream.next_event(), stream.next_event()
            assert b"SECRET" not in stream.raw
            told.append(
                (
                    stream.headers.get("last-event-id"),
                    json.loads(hello.data or "")["complete"],
                    gap.type,
                    json.loads(gap.data or "")["reason"],
                )
            )
    assert told[0] == told[1] == ("earliest", False, "gap", "unknown")


def test_streams_cut_at_random_never_get_another_readers_bytes(start: Start) -> None:
    """S32: 600 replays of 20 readers, cut off at random moments: every byte belongs to its reader."""
    node = start(jwt_secret=TOKEN_SECRET)
    rng = random.Random(32)
    pads = {name: f"mark-{name}-" * 400 for name in range(20)}
    for name in pads:
        for _ in range(10):
            publish(node, topic=f"mixed/{name}", data=pads[name], private=True)
    tokens = {name: reader(f"mixed/{name}") for name in pads}
    for turn in range(600):
        name = turn % 20
        with Stream(
            node.port, "/.well-known/mercure?topic=*", Authorization=tokens[name], Last_Event_ID="earliest"
        ) as stream:
            for _ in range(rng.randrange(6)):
                block = stream.next_event()
                if block.type == "message":
                    assert block.data == pads[name]
            time.sleep(rng.random() * 0.002)  # the fault: the moment of the cut


def test_what_one_may_not_see_looks_like_what_is_not_there(keyed_node: Node) -> None:
    """S33: to a token without a right on it, a channel that exists and one that does not are answered alike."""
    publish(keyed_node, "vault", topic="t", data="x", private=True)
    token = reader("*")
    for way in WAYS:
        for method, body in (("GET", b""), ("POST", b'{"topic": "t", "data": "x"}')):
            answers = []
            for name in ("vault", "vaulx"):
                raw = request(method, f"/channels/{name}/events", body, Authorization=token, **JSON)
                answer = answered(keyed_node.port, raw, way)
                challenge = answer.header("WWW-Authenticate")
                answers.append((answer.status, answer.body.replace(name.encode(), b"NAME"), challenge))
            assert answers[0] == answers[1], answers


def test_a_token_without_rights_on_a_channel_does_not_call_it_into_being(keyed_node: Node) -> None:
    """S33, S12: a channel begins with an authorised publish or subscribe, so strangers don't use up max_channels."""
    token = reader("*")
    ask(keyed_node.port, request("GET", "/channels/uncalled/events", Authorization=token))
    ask(keyed_node.port, request("POST", "/channels/uncalled/events", b'{"topic": "t"}', Authorization=token, **JSON))
    assert b"uncalled" not in answered(keyed_node.port, request("GET", "/stats")).body


def test_errors_speak_of_the_request_and_not_of_the_inside(keyed_node: Node) -> None:
    """S33: no exception text, path of a file, or memory address in a refusal."""
    asked = [
        request("GET", "/.well-known/mercure?topic={unclosed", Authorization=reader("*")),
        request("GET", "/.well-known/mercure?topic=%FF", Authorization=reader("*")),
        request("POST", "/channels/main/events", b"{", Authorization=PUBLISHER, **JSON),
        request("POST", "/channels/main/events", b"\xff", Authorization=PUBLISHER, **JSON),
        request(
            "POST",
            "/.well-known/mercure",
            b"topic=%ZZ&topic",
            Authorization=PUBLISHER,
            Content_Type="application/x-www-form-urlencoded",
        ),
        request("GET", "/channels/main/events?last=x", Authorization=reader("*")),
        request("GET", "/nowhere"),
        request("PATCH", "/channels/main/events"),
        request("GET", "/.well-known/mercure?topic=a", Authorization=bearer("a.b.c")),
    ]
    for raw in asked:
        for way in WAYS:
            answer = answered(keyed_node.port, raw, way)
            assert 200 <= answer.status < 500
            for word in (
                b"Traceback",
                b"Error(",
                b"Exception",
                b".py",
                b"0x",
                b"site-packages",
                b"JSONDecode",
                b"UnicodeDecode",
                b"codec",
            ):
                assert word not in answer.body, (raw, answer)
