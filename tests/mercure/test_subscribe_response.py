"""What a subscriber gets: rows T1 to T8 (T8 is shown by the refusals of tests/contract)."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable

import pytest

from tests.harness.process import TOKEN_SECRET
from tests.harness.stream import Block
from tests.mercure.conftest import PUBLISHER
from tests.mercure.hub import Hub, token

ID = r"[0-9a-z]{6}-[0-9a-f]{13}"


def test_the_head_and_the_first_block_come_before_any_event(hub: Hub, topic: str) -> None:
    """T1: 200, the event stream's type, and bytes at once on a quiet topic."""
    stream = hub.subscribe([("topic", topic)])
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream"
    assert stream.next_event().type == "hello"


def test_a_client_without_an_accept_header_gets_the_stream(hub: Hub, topic: str) -> None:
    """T1: `Accept` decides only how a refusal looks."""
    for accept in ("*/*", "text/html", ""):
        assert hub.subscribe([("topic", topic)], Accept=accept).status == 200


def test_nothing_may_cache_or_buffer_the_stream(hub: Hub, topic: str) -> None:
    """T2: `no-store, no-transform`, no proxy buffering, no length, no encoding."""
    headers = hub.subscribe([("topic", topic)]).headers
    assert headers["cache-control"] == "no-store, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert {name.strip() for name in headers["vary"].split(",")} >= {"Origin", "Authorization", "Cookie"}
    assert not {"content-length", "content-encoding", "expires", "expire"} & headers.keys()


@pytest.mark.parametrize(
    "headers", [{"Last_Event_ID": ""}, {"Last_Event_ID": "nothing like it"}, {"Last_Event_ID": "earliest"}]
)
def test_a_cursor_header_in_any_form_is_answered(hub: Hub, topic: str, headers: dict[str, str]) -> None:
    """T3: even empty; both drafts' header names."""
    answered = hub.subscribe([("topic", topic)], **headers).headers
    assert (answered["mercure-last-event-id"], answered["last-event-id"]) == ("earliest", "earliest")


@pytest.mark.parametrize(
    "query", ["last_event_id=", "last_event_id", "lastEventID=", "lastEventId=x", "Last-Event-ID=earliest"]
)
def test_a_cursor_parameter_in_any_form_is_answered(hub: Hub, topic: str, query: str) -> None:
    """T3: even empty; every name."""
    answered = hub.subscribe(f"topic={topic}&{query}").headers
    assert (answered["mercure-last-event-id"], answered["last-event-id"]) == ("earliest", "earliest")


def test_a_request_without_a_cursor_is_not_answered_with_one(hub: Hub, topic: str) -> None:
    """T3: the headers tell a resume from a first connection."""
    headers = hub.subscribe([("topic", topic)]).headers
    assert not {"mercure-last-event-id", "last-event-id"} & headers.keys()


def test_a_plain_event_is_an_id_and_its_data(hub: Hub, topic: str) -> None:
    """T4: no `event:` and no `retry:` unless the publisher gave them."""
    watch = hub.watch([("topic", topic)])
    event_id = hub.publish(topic, "x")
    assert [block.fields for block in watch.events()] == [[("id", event_id), ("data", "x")]]


def test_type_and_retry_go_out_with_the_event(hub: Hub, topic: str) -> None:
    """T4: each on a line of its own."""
    watch = hub.watch([("topic", topic)])
    event_id = hub.publish(topic, "x", type="price-update", retry="5000")
    [block] = watch.events()
    assert sorted(block.fields) == [("data", "x"), ("event", "price-update"), ("id", event_id), ("retry", "5000")]


@pytest.mark.parametrize(
    ("sent", "lines"),
    [
        ("a\nb", ["a", "b"]),
        ("a\rb", ["a", "b"]),
        ("a\r\nb", ["a", "b"]),
        ("a\n\rb", ["a", "", "b"]),
        ("a\n", ["a", ""]),
        ("\r\n\r\n", ["", "", ""]),
        ("a\u2028b\u2029c\x85d\x0be\x0cf", ["a\u2028b\u2029c\x85d\x0be\x0cf"]),
        (" a", [" a"]),
        ("x\n\nid: forged\ndata: forged", ["x", "", "id: forged", "data: forged"]),
        ("", [""]),
    ],
)
def test_each_line_of_data_is_a_field(hub: Hub, topic: str, sent: str, lines: list[str]) -> None:
    """T4: LF, CR and CRLF end a line and nothing else does."""
    watch = hub.watch([("topic", topic)])
    event_id = hub.publish(topic, sent)
    assert [block.fields for block in watch.events()] == [[("id", event_id), *(("data", line) for line in lines)]]


def test_an_update_without_data_arrives(hub: Hub, topic: str) -> None:
    """T4: a missing field is an empty text, which dispatches."""
    watch = hub.watch([("topic", topic)])
    assert hub.offer([("topic", topic)]).status == 200
    assert watch.data() == [""]


def test_a_quiet_stream_gets_a_comment(new_hub: Callable[..., Hub], topic: str) -> None:
    """T5: with the cursor in the same write, which no browser dispatches."""
    hub = new_hub(heartbeat_seconds=1)
    stream = hub.subscribe([("topic", topic)])
    assert stream.next_block() is not None
    stream.raw = b""
    block = stream.next_block()
    assert block is not None
    assert block.data is None
    assert re.fullmatch(rf":\nid: {ID}\n\n".encode(), stream.raw)


def test_an_event_puts_the_heartbeat_off(new_hub: Callable[..., Hub], topic: str) -> None:
    """T5: bytes are bytes; a stream in use needs no comment. The best of three: where the machine stands still, nobody
    uses it.
    """
    hub = new_hub(heartbeat_seconds=2)
    assert any(b"\n:" not in in_use(hub, topic) for _ in range(3))


def in_use(hub: Hub, topic: str) -> bytes:
    """What came on a stream in use, while a quiet one beside it got two comments."""
    watch, quiet = hub.watch([("topic", topic)]), hub.subscribe([("topic", f"{topic}/quiet")])
    assert quiet.next_event().type == "hello"
    beats: list[Block | None] = []
    beating = threading.Thread(target=lambda: beats.extend(quiet.next_block() for _ in range(2)))
    beating.start()
    while beating.is_alive():
        hub.publish(topic, "busy")
        beating.join(0.02)
    assert [beat.data for beat in beats if beat is not None] == [None, None]
    assert len(watch.events()) > 10
    return watch.stream.raw


def test_the_stream_ends_when_its_token_does(keyed_hub: Hub, topic: str) -> None:
    """T6: not before its last second, not more than a second after; the client is told not to come back with it."""
    expiry = int(time.time()) + 4
    stream = keyed_hub.subscribe([("topic", topic)], Authorization=f"Bearer {token(subscribe=['*'], exp=expiry)}")
    last = [block for block in stream.wait_end() if block.data is not None][-1]
    assert last.type == "auth_expired"
    assert json.loads(last.data or "") | {"code": "auth_expired", "reconnect": False} == json.loads(last.data or "")
    assert expiry - 1 <= time.time() <= expiry + 1.2


def test_a_connection_has_a_greatest_age(new_hub: Callable[..., Hub], topic: str) -> None:
    """T6: it ends cleanly, with a reason and a time to come back."""
    hub = new_hub(max_age_seconds=1)
    begin = time.monotonic()
    stream = hub.subscribe([("topic", topic)])
    last = [block for block in stream.wait_end(5) if block.data is not None][-1]
    assert 0.4 < time.monotonic() - begin < 6
    assert (last.type, json.loads(last.data or "")["reconnect"]) == ("max_age", True)
    assert int(last.get("retry") or "") > 0
    assert stream.clean_end


@pytest.mark.parametrize(
    ("grants", "selector", "expected"),
    [
        (["{t}/main"], "{t}/main", True),
        (["{t}/other"], "{t}/main", True),
        (["{t}/main"], "{t}/other", True),
        (["{t}/{{name}}"], "*", True),
        (["*"], "{t}/main", True),
        (["*"], "{t}/elsewhere", False),
        (["{t}/elsewhere"], "*", False),
        ([], "*", False),
    ],
)
def test_a_private_update_wants_a_grant_and_a_matcher(
    keyed_hub: Hub, topic: str, grants: list[str], selector: str, expected: bool
) -> None:
    """T7: each on any of its topics, not the same one; routing never widens reading, and silence tells nothing."""
    reader = token(subscribe=[grant.format(t=topic) for grant in grants])
    watch = keyed_hub.watch([("topic", selector.format(t=topic))], Authorization=f"Bearer {reader}")
    keyed_hub.publish([f"{topic}/main", f"{topic}/other"], f"private {topic}", private="on")
    assert (f"private {topic}" in watch.data()) is expected


def test_a_reader_with_rights_gets_private_and_public_in_order(new_hub: Callable[..., Hub], topic: str) -> None:
    """T7: rights add, they don't sort."""
    hub = new_hub(PUBLISHER, jwt_secret=TOKEN_SECRET)
    watch = hub.watch([("topic", topic)], Authorization=f"Bearer {token(subscribe=[topic])}")
    hub.publish(topic, "1")
    hub.publish(topic, "2", private="on")
    hub.publish(topic, "3")
    assert watch.data() == ["1", "2", "3"]
