"""CORS, cookies and headers: row 1.8. The cookie's own rules are with the tokens (A1, A3)."""

from __future__ import annotations

import pytest

from tests.mercure.hub import ORIGIN, PATH, Hub, token

EXPOSED = {"mercure-last-event-id", "last-event-id", "link"}


def names(value: str) -> set[str]:
    """The members of a list header, lower case."""
    return {name.strip().lower() for name in value.split(",")}


def assert_shared(headers: dict[str, str]) -> None:
    """The answer may be read by a page of the allowed origin."""
    assert headers["access-control-allow-origin"] == ORIGIN
    assert headers["access-control-allow-credentials"] == "true"
    assert names(headers["access-control-expose-headers"]) >= EXPOSED
    assert "origin" in names(headers["vary"])


def test_an_allowed_page_reads_the_stream_and_its_headers(public_hub: Hub, topic: str) -> None:
    """1.8: with credentials, its own origin and never a star; the cursor's headers are exposed."""
    assert_shared(public_hub.subscribe([("topic", topic)], Origin=ORIGIN).headers)


def test_an_allowed_page_may_publish(public_hub: Hub, topic: str) -> None:
    """1.8: and read the id."""
    assert_shared(public_hub.offer([("topic", topic)], Origin=ORIGIN).headers)


def test_refusals_can_be_read_too(public_hub: Hub, topic: str) -> None:
    """1.8: otherwise the browser hides a 401 from the page."""
    bad = {"Authorization": "Bearer not.a.token", "Origin": ORIGIN}
    denied = {"Authorization": f"Bearer {token(publish=[])}", "Origin": ORIGIN}
    answers = [
        (401, public_hub.get([("topic", topic)], **bad)),
        (401, public_hub.offer([("topic", topic)], **bad)),
        (403, public_hub.offer([("topic", topic)], **denied)),
        (400, public_hub.get("", Origin=ORIGIN)),
        (400, public_hub.offer([], Origin=ORIGIN)),
        (413, public_hub.offer([("topic", "x" * 4097)], Origin=ORIGIN)),
        (404, public_hub.get("", path=f"{PATH}/subscriptions", Origin=ORIGIN)),
    ]
    for status, answer in answers:
        assert answer.status == status
        assert_shared(answer.headers)


FOREIGN = [
    "null", "https://evil.example", "http://app.example", "https://app.example:8443", "https://app.example.evil.example",
    "https://appXexample", "https://xapp.example", "https://app.example/", "https://APP.example.evil.example",
    "*", "", "file://",
]  # fmt: skip


@pytest.mark.parametrize("origin", FOREIGN)
def test_another_origin_is_refused_and_told_nothing(public_hub: Hub, topic: str, origin: str) -> None:
    """1.8: 403 without CORS headers, on both methods; never a reflection."""
    for answer in (
        public_hub.get([("topic", topic)], Origin=origin),
        public_hub.offer([("topic", topic)], Origin=origin),
    ):
        assert answer.status == 403 or (not origin and answer.status == 200), answer
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_foreign_event_source_is_refused_for_good(public_hub: Hub, topic: str) -> None:
    """1.8: 403, which ends a native client."""
    assert public_hub.subscribe([("topic", topic)], Origin="https://evil.example").status == 403


def test_the_servers_own_pages_are_allowed(public_hub: Hub, topic: str) -> None:
    """1.8: the origin that the request itself was sent to."""
    assert public_hub.subscribe([("topic", topic)], Origin=public_hub.node.url).status == 200
    assert public_hub.offer([("topic", topic)], Origin=public_hub.node.url).status == 200


@pytest.mark.parametrize("origin", [None, ORIGIN, "https://evil.example"])
def test_every_answer_varies_by_origin(public_hub: Hub, topic: str, origin: str | None) -> None:
    """1.8: a cache may not serve one origin's answer to another."""
    headers = {"Origin": origin} if origin else {}
    answers = [
        public_hub.subscribe([("topic", topic)], **headers).headers,
        public_hub.get("", **headers).headers,
        public_hub.offer([], **headers).headers,
        public_hub.node.request("OPTIONS", PATH, **headers)[1],
        public_hub.node.request("PUT", PATH, **headers)[1],
    ]
    assert all("origin" in names(answer["vary"]) for answer in answers), answers


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_preflight_allows_what_clients_send(public_hub: Hub, method: str) -> None:
    """R5, 1.8: methods, the headers of the polyfills and of publishers, and ten minutes of memory."""
    asked = {
        "Access_Control_Request_Method": method,
        "Access_Control_Request_Headers": "authorization,cache-control,last-event-id",
    }
    status, headers, body = public_hub.node.request("OPTIONS", PATH, Origin=ORIGIN, **asked)
    assert (status, body) == (204, b"")
    assert headers["access-control-allow-origin"] == ORIGIN
    assert headers["access-control-allow-credentials"] == "true"
    assert names(headers["access-control-allow-methods"]) == {"get", "head", "post"}
    assert names(headers["access-control-allow-headers"]) == {
        "authorization",
        "cache-control",
        "content-type",
        "idempotency-key",
        "last-event-id",
    }
    assert headers["access-control-max-age"] == "600"


def test_a_foreign_preflight_is_told_nothing(public_hub: Hub) -> None:
    """1.8: no CORS headers, whatever the status."""
    _, headers, _ = public_hub.node.request(
        "OPTIONS", PATH, Origin="https://evil.example", Access_Control_Request_Method="GET"
    )
    assert not [name for name in headers if name.startswith("access-control-")]


def test_without_a_list_no_other_origin_is_allowed(hub: Hub, topic: str) -> None:
    """1.8: in development mode too, so that a page elsewhere can't read the machine's streams."""
    assert hub.subscribe([("topic", topic)], Origin=ORIGIN).status == 403
    assert hub.offer([("topic", topic)], Origin=ORIGIN).status == 403
