"""Whole conversations as today's clients hold them: tiers A and B of row 1.12."""

from __future__ import annotations

import http.client
import json
import time
from urllib.parse import urlencode

import jwt

from tests.harness.process import TOKEN_SECRET
from tests.harness.stream import Stream
from tests.mercure.hub import FORM, PATH, Hub, token


def test_a_framework_publishes_and_a_browser_reads(keyed_hub: Hub, topic: str) -> None:
    """1.12: tier B: a token with `iat` in fractions, `private=on`, an alternate topic, a cookie for the reader."""
    now = time.time()
    claims = {
        "mercure": {"publish": ["https://example.com/{+any}"], "subscribe": [], "payload": {"user": 7}},
        "iat": now,
        "exp": int(now) + 3600,
    }
    writer = jwt.encode(claims, TOKEN_SECRET, "HS256", headers={"typ": "JWT"})
    reader = token(subscribe=[f"{topic}/{{id}}"], payload={"user": 7}, exp=int(now) + 3600)
    watch = keyed_hub.watch([("topic", f"{topic}/{{id}}")], Cookie=f"mercureAuthorization={reader}")
    body = json.dumps({"status": "OutOfStock"})
    form = [
        ("topic", f"{topic}/1"),
        ("topic", f"{topic}/1?alt"),
        ("data", body),
        ("private", "on"),
        ("id", ""),
        ("type", ""),
        ("retry", ""),
    ]
    fields = [(name, value) for name, value in form if value]
    answer = keyed_hub.offer(fields, Authorization=f"Bearer {writer}", Accept="*/*")
    assert 200 <= answer.status < 300
    assert answer.text
    [event] = watch.events()
    assert (event.data, event.id) == (body, answer.text)


def test_a_page_starts_where_its_html_was_rendered(hub: Hub, topic: str) -> None:
    """1.12: tier B: the first connection brings the cursor in the query under both old names, the reconnection in the
    header as well.
    """
    rendered = hub.publish(topic, "in the page")
    missed = hub.publish(topic, "missed")
    query = [("topic", topic), ("lastEventID", rendered), ("Last-Event-ID", rendered)]
    assert hub.watch(query).data() == ["missed"]
    hub.publish(topic, "later")
    assert hub.watch(query, Last_Event_ID=missed).data() == ["later"]


def test_an_api_client_lists_many_templates(hub: Hub, topic: str) -> None:
    """1.12: tier B: one stream for a page of resources."""
    watch = hub.watch(
        [("topic", f"{topic}/books/{{id}}"), ("topic", f"{topic}/reviews/{{id}}{{?page}}"), ("topic", f"{topic}/me")]
    )
    for tail in ("books/1", "reviews/2", "reviews/2?page=3", "me", "authors/1", "me/1"):
        hub.publish(f"{topic}/{tail}", tail)
    assert watch.data() == ["books/1", "reviews/2", "reviews/2?page=3", "me"]


def test_a_plain_client_needs_nothing_but_a_topic(hub: Hub, topic: str) -> None:
    """1.12: tier A: HTTP/1.0, no headers."""
    with Stream(hub.node.port, f"{PATH}?topic={topic}", version="1.0", Accept="*/*") as stream:
        assert "transfer-encoding" not in stream.headers
        hub.publish(topic, "x")
        assert stream.events(1)[0].data == "x"


def test_a_publisher_keeps_its_connection(hub: Hub, topic: str) -> None:
    """1.12: tier A and B: many publishes, refusals among them, go over one connection."""
    watch = hub.watch([("topic", topic)])
    connection = http.client.HTTPConnection("127.0.0.1", hub.node.port, timeout=5)
    ids = []
    for number in range(20):
        fields = {"topic": topic, "data": str(number)} | ({"retry": "x"} if number % 5 == 4 else {})
        connection.request("POST", PATH, urlencode(fields), {"Content-Type": FORM})
        answer = connection.getresponse()
        body = answer.read().decode()
        assert answer.status == (400 if number % 5 == 4 else 200)
        ids += [body] if answer.status == 200 else []
    connection.close()
    assert [event.id for event in watch.events()] == ids


def test_both_drafts_meet_on_one_port(hub: Hub, topic: str) -> None:
    """1.12: an old and a new client read the same event, each by its own names."""
    first = hub.publish(topic, "1")
    old = hub.watch([("topic", topic), ("lastEventID", first)])
    new = hub.watch([("match", topic), ("last_event_id", first)])
    hub.publish(topic, "2")
    assert (old.data(), new.data()) == (["2"], ["2"])
    assert old.headers["last-event-id"] == new.headers["mercure-last-event-id"] == first
