"""Topics that nobody may publish: rows P10 and P11, and the limits of row 1.10 that touch them."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.mercure.hub import Hub, token

RESERVED = [
    "https://any.example/.well-known/mercure",
    "http://any.example:8080/.well-known/mercure",
    "https://any.example/.well-known/mercure/x",
    "https://any.example/.well-known/mercure?query",
    "https://any.example/.well-known/mercure#fragment",
    "https://any.example/.well-known/mercure/subscriptions/a/b",
    "/.well-known/mercure",
    "/.well-known/mercure/subscriptions/x",
    "mercure",
    "mercure/subscriptions/x",
    "./mercure/x",
    "../.well-known/mercure",
    "/a/../.well-known/mercure/x",
    "/a/%2e%2E/.well-known/mercure",
    "/.well-known/./mercure",
    "/.well-known/%6Dercure/x",
    "/%2Ewell-known/mercure",
    "\\.well-known\\mercure\\x",
    "https:\\\\any.example\\.well-known\\mercure",
    "//any.example/.well-known/mercure",
    "?query",
    "#fragment",
    " /.well-known/mercure",
    "/.well-known/mercure ",
]

FREE = [
    "/.well-known/mercureXXX",
    "/.well-known/mercure-x/y",
    "/foo/.well-known/mercure/bar",
    "https://any.example/foo/.well-known/mercure",
    "https://any.example/?path=/.well-known/mercure",
    "subscriptions/foo",
    "mercureXXX",
    "urn:example:mercure",
    "urn:.well-known/mercure",
    "a topic with spaces",
    "/.well-known%2Fmercure",
    "/.Well-Known/Mercure",
    "**",
    "{unclosed",
]

UNPARSABLE = ["https://[bad", "https://a:99999999/", "http://", "https://exa mple/", "//["]


@pytest.mark.parametrize("name", RESERVED)
def test_the_hubs_own_namespace_is_reserved(hub: Hub, name: str) -> None:
    """P10: by the path that the topic resolves to, whatever its scheme and host."""
    answer = hub.offer([("topic", name)])
    assert (answer.status, answer.refused_field) == (400, "topic"), name


@pytest.mark.parametrize("name", FREE)
def test_topics_that_only_look_like_it_are_free(hub: Hub, name: str) -> None:
    """P10: published and received."""
    watch = hub.watch([("match", name)])
    hub.publish(name, name)
    assert watch.data() == [name]


@pytest.mark.parametrize("name", UNPARSABLE)
def test_a_topic_that_is_no_url_is_judged_all_the_same(hub: Hub, name: str) -> None:
    """P10: published or refused, never a fault of the server."""
    answer = hub.offer([("topic", name)])
    assert answer.status == 200 or (answer.status, answer.refused_field) == (400, "topic")


def test_an_alternate_topic_is_judged_too(hub: Hub, topic: str) -> None:
    """P10: one reserved topic spoils the event."""
    watch = hub.watch([("topic", topic)])
    assert hub.offer([("topic", topic), ("topic", "/.well-known/mercure")]).status == 400
    assert watch.data() == []


def test_the_namespace_is_reserved_whatever_the_token(keyed_hub: Hub) -> None:
    """P10: 400 though the token grants everything."""
    assert keyed_hub.offer([("topic", "/.well-known/mercure/x")]).status == 400


@pytest.mark.parametrize("name", ["*", "", "a\x00b", "a\nb", "a\x7f", "a\x80", "a\u200b", "\u202ea"])
def test_a_topic_that_could_be_misread_is_refused(hub: Hub, name: str) -> None:
    """P11: the star, nothing, control and format characters."""
    answer = hub.offer([("topic", name)])
    assert (answer.status, answer.refused_field) == (400, "topic")


def test_a_topic_that_is_no_utf_8_is_refused(hub: Hub, topic: str) -> None:
    """P11: 400."""
    assert hub.post(f"topic={quote(topic)}%FF").status == 400


@pytest.mark.parametrize("name", ["*", "a\x00b", "mercure/x"])
def test_a_bad_topic_is_told_before_a_missing_grant(keyed_hub: Hub, name: str) -> None:
    """P11: the topic is never shown to a matcher."""
    reader = token(publish=["https://elsewhere.example/"])
    assert keyed_hub.offer([("topic", name)], Authorization=f"Bearer {reader}").status == 400
