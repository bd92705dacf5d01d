"""Web origins: who may read the server from a page, and what a preflight is told."""

from __future__ import annotations

import pytest

from tests.conftest import StartNode
from tests.harness.process import Node
from tests.http.conftest import ALLOWED
from tests.http.endpoint import FORM, HUB, Endpoint, hello_of, open_stream
from tests.http.test_refusals import assert_refused, token

both_ways = pytest.mark.parametrize("way", ["first", "later"])

STRANGERS = [
    "null",
    "https://evil.com",
    "https://app.example.evil.com",
    "https://appXexample",
    "http://app.example",
    "https://APP.example",
    "HTTPS://app.example",
    "https://app.example:443",
    "https://app.example:8443",
    "https://app.example/",
    "https://app.example.",
    "https://sub.app.example",
    "https://app.example, https://evil.com",
    "https://evil.com https://app.example",
    "https://app.example\x00.evil.com",
    "*",
    "file://",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    "moz-extension://0f6b1c1e",
    "https://xn--app-9la.example",
]


def bearer() -> str:
    return f"Bearer {token(subscribe=['*'], publish=['*'])}"


@both_ways
@pytest.mark.parametrize("origin", STRANGERS)
def test_a_strangers_origin_gets_403_and_no_cors_headers(
    keyed_node: Node, endpoint: Endpoint, topic: str, origin: str, way: str
) -> None:
    """X01, X06: never reflected, no wildcard; `null`, `file://` and extensions are strangers like others."""
    with open_stream(keyed_node, endpoint.path(topic), way, Origin=origin, Authorization=bearer()) as answer:
        assert answer.status in ((400, 403) if "\x00" in origin else (403,))
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@both_ways
@pytest.mark.parametrize("origin", [ALLOWED, "http://127.0.0.1:3000"])
def test_a_listed_origin_gets_its_own_value(
    keyed_node: Node, endpoint: Endpoint, topic: str, origin: str, way: str
) -> None:
    """X01: with credentials, and the headers a script needs to see a loss."""
    with open_stream(keyed_node, endpoint.path(topic), way, Origin=origin, Authorization=bearer()) as stream:
        assert stream.status == 200
        assert stream.headers["access-control-allow-origin"] == origin
        assert stream.headers["access-control-allow-credentials"] == "true"
        exposed = {name.strip() for name in stream.headers["access-control-expose-headers"].split(",")}
        assert exposed == {"Mercure-Last-Event-ID", "Last-Event-ID", "Link"}
        hello_of(stream)


@both_ways
def test_the_servers_own_origin_needs_no_listing(keyed_node: Node, endpoint: Endpoint, topic: str, way: str) -> None:
    """X01: a page that this server (or a proxy in front, by its Host) served."""
    headers = {"Origin": f"http://127.0.0.1:{keyed_node.port}", "Authorization": bearer()}
    with open_stream(keyed_node, endpoint.path(topic), way, **headers) as stream:
        assert stream.status == 200
        hello_of(stream)


@both_ways
def test_a_request_without_an_origin_gets_no_cors_headers(
    keyed_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """X01: curl and servers."""
    with open_stream(keyed_node, endpoint.path(topic), way, Authorization=bearer()) as stream:
        assert stream.status == 200
        assert "access-control-allow-origin" not in stream.headers


@both_ways
@pytest.mark.parametrize("origin", [None, ALLOWED, "https://evil.com"])
@pytest.mark.parametrize(
    "path", [f"{HUB}?topic=a", HUB, "/channels/wire/events", "/channels/WIRE/events", "/nowhere", "/health"]
)
def test_every_answer_varies_by_origin(keyed_node: Node, path: str, origin: str | None, way: str) -> None:
    """X02: streams, refusals and errors alike, so that a cache never serves one origin's answer to another."""
    for authorization in (bearer(), None):
        with open_stream(keyed_node, path, way, Origin=origin, Authorization=authorization) as answer:
            assert "origin" in [name.strip().lower() for name in answer.headers["vary"].split(",")], (
                answer.status,
                authorization,
            )


@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "HEAD", "POST"])
@pytest.mark.parametrize("origin", [None, ALLOWED, "https://evil.com"])
def test_every_method_varies_by_origin(keyed_node: Node, endpoint: Endpoint, method: str, origin: str | None) -> None:
    """X02."""
    headers = {"Origin": origin} if origin else {}
    _, answered, _ = keyed_node.request(method, endpoint.path("a"), b"" if method == "POST" else None, **headers)
    assert "origin" in answered["vary"].lower()


@both_ways
def test_a_long_or_unsafe_cursor_from_a_page_is_answered(
    keyed_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """X03: browsers may ask a preflight for such values; the answer of the request itself is the same."""
    for cursor in ("k3x9q1:5", "{}", "<a>", "x" * 200):
        headers = {"Origin": ALLOWED, "Authorization": bearer(), "Last_Event_ID": cursor}
        with open_stream(keyed_node, endpoint.path(topic), way, **headers) as stream:
            assert hello_of(stream)["complete"] is False


@pytest.mark.parametrize("asked", ["authorization, cache-control, last-event-id", "Content-Type", "idempotency-key"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_preflight_allows_what_polyfills_send(
    keyed_node: Node, endpoint: Endpoint, topic: str, method: str, asked: str
) -> None:
    """X04."""
    headers = {"Origin": ALLOWED, "Access_Control_Request_Method": method, "Access_Control_Request_Headers": asked}
    status, answered, body = keyed_node.request("OPTIONS", endpoint.path(topic), **headers)
    assert (status, body) == (204, b"")
    assert answered["access-control-allow-origin"] == ALLOWED
    assert answered["access-control-allow-credentials"] == "true"
    assert answered["access-control-max-age"] == "600"
    assert words(answered["access-control-allow-methods"]) == {"get", "head", "post"}
    allowed = {"authorization", "cache-control", "content-type", "idempotency-key", "last-event-id"}
    assert words(answered["access-control-allow-headers"]) == allowed
    assert words(asked) <= allowed


def words(header: str) -> set[str]:
    return {word.strip().lower() for word in header.split(",")}


@pytest.mark.parametrize("origin", STRANGERS[:8])
def test_a_strangers_preflight_allows_nothing(keyed_node: Node, endpoint: Endpoint, topic: str, origin: str) -> None:
    """X01, X04: nor does it tell what would be allowed."""
    headers = {"Origin": origin, "Access_Control_Request_Method": "GET"}
    _, answered, _ = keyed_node.request("OPTIONS", endpoint.path(topic), **headers)
    assert not [name for name in answered if name.startswith("access-control-")]


def test_private_network_access_is_not_granted(keyed_node: Node, endpoint: Endpoint, topic: str) -> None:
    """X06: no public page is let into a private network by this server's word."""
    headers = {
        "Origin": ALLOWED,
        "Access_Control_Request_Method": "GET",
        "Access_Control_Request_Private_Network": "true",
    }
    _, answered, _ = keyed_node.request("OPTIONS", endpoint.path(topic), **headers)
    assert "access-control-allow-private-network" not in answered


def test_a_strangers_page_cannot_publish(keyed_node: Node, topic: str) -> None:
    """X01: a form needs no preflight, so the origin is checked on the request itself."""
    status, answered, _ = keyed_node.request(
        "POST", HUB, f"topic={topic}&data=a", Content_Type=FORM, Origin="https://evil.com", Authorization=bearer()
    )
    assert status == 403
    assert not [name for name in answered if name.startswith("access-control-")]


@both_ways
def test_in_development_mode_a_strangers_page_is_refused_too(
    shared_node: Node, endpoint: Endpoint, topic: str, way: str
) -> None:
    """X06: any page in the developer's browser can reach loopback; the origin gives it away."""
    with open_stream(shared_node, endpoint.path(topic), way, Origin="https://evil.com") as answer:
        assert_refused(answer, "forbidden", 403)


def test_a_wildcard_in_the_list_is_refused_at_start(node: StartNode) -> None:
    """X01: an error, not a wide door."""
    with pytest.raises(AssertionError, match="the server ended"):
        node(allowed_origins="*")
