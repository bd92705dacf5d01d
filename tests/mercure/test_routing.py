"""Where the endpoint is and which methods it has: rows R1 to R8."""

from __future__ import annotations

import socket
from urllib.parse import quote

import pytest

from tests.mercure.hub import PATH, Hub


def test_the_hub_is_at_its_well_known_path(hub: Hub, topic: str) -> None:
    """R1: subscribe and publish both live at the reserved path."""
    watch = hub.watch([("topic", topic)])
    hub.publish(topic, "here")
    assert watch.data() == ["here"]


@pytest.mark.parametrize("path", ["/.well-known/mercur", "/.well-known/mercure2", "/mercure", "/.well-known/mercure/x"])
def test_no_other_path_is_a_hub(hub: Hub, path: str) -> None:
    """R1: neighbours of the path are not found, in JSON and never cached."""
    answer = hub.get("topic=a", path=path)
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert "no-store" in answer.headers["cache-control"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_other_methods_are_refused_with_the_allowed_ones(hub: Hub, method: str) -> None:
    """R2: 405 with `Allow`."""
    status, headers, _ = hub.node.request(method, f"{PATH}?topic=a")
    assert status == 405
    assert {name.strip() for name in headers["allow"].split(",")} >= {"GET", "HEAD", "POST"}


def test_head_answers_the_headers_and_closes(hub: Hub, topic: str) -> None:
    """R4: HEAD holds no subscriber open."""
    with socket.create_connection(("127.0.0.1", hub.node.port), timeout=5) as connection:
        path = f"{PATH}?topic={quote(topic, safe='')}"
        connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode())
        received = b""
        while part := connection.recv(65536):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"text/event-stream" in head.lower()
    assert body == b""


def test_head_is_refused_as_a_get_is(hub: Hub) -> None:
    """R4: a HEAD without a selector has the status that a GET would have."""
    assert hub.node.request("HEAD", PATH)[0] == 400


def test_options_needs_no_token(keyed_hub: Hub) -> None:
    """R5: a preflight is answered before anybody is asked for a token."""
    status, _, body = keyed_hub.node.request("OPTIONS", PATH)
    assert (status, body) == (204, b"")


def test_get_without_a_key_for_readers_is_development_mode_not_a_missing_method(hub: Hub, topic: str) -> None:
    """R2: without a key both methods are there, for the loopback interface."""
    assert hub.subscribe([("topic", topic)]).status == 200
    assert hub.offer([("topic", topic)]).status == 200
