"""Requests that never come to an end: slow headers, slow bodies, silence, too much."""

from __future__ import annotations

import time

import pytest

from tests.harness.process import Node, wait_until
from tests.threats.conftest import Start
from tests.threats.crowd import Crowd
from tests.threats.neighbours import Neighbours
from tests.threats.process_facts import cpu_share, descriptors, rss_bytes
from tests.threats.wire import FIRST, WAYS, Wire, answered, ask, request

MIB = 1 << 20
HEAD = b" /channels/main/events HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
HEALTH = request("GET", "/health")
TRICKLED = (b"GET" + HEAD, b"POST" + HEAD, HEALTH + b"GET" + HEAD, FIRST["published"] + b"POST" + HEAD)
SILENT = (b"", HEALTH, FIRST["published"])


def test_trickled_headers_are_cut_off_in_time(start: Start) -> None:
    """S01: 300 connections that say nothing, or a byte of a header now and then, are gone after header_seconds (+ 3);
    neighbours notice nothing.
    """
    node = start(header_seconds=2)
    before, begin = len(descriptors(node.pid)), time.monotonic()
    with Neighbours(node.port), Crowd(node.port, 120, lambda i: SILENT[i % 3]) as silent:
        with Crowd(node.port, 180, lambda i: TRICKLED[i % 4]) as trickling:
            trickling.wait_closed(2 + 3, trickle=b"a")
        silent.wait_closed(begin + 2 + 3 - time.monotonic())
    wait_until(lambda: len(descriptors(node.pid)) <= before, 10, "descriptors back at their number before")
    assert cpu_share(node.pid, 0.5) < 0.1


def test_trickled_bodies_are_cut_off_in_time(start: Start) -> None:
    """S02: 100 publishes at a byte now and then end with 408 or a hang-up after body_seconds (+ 3)."""
    node = start(body_seconds=2)
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: 1000000\r\n\r\n"
    kinds = [
        head % (b"/channels/main/events", b"application/json"),
        head % (b"/channels/main/events", b"application/x-ndjson"),
        head % (b"/.well-known/mercure", b"application/x-www-form-urlencoded"),
        (head % (b"/channels/main/events", b"application/json")).replace(
            b"Content-Length: 1000000", b"Transfer-Encoding: chunked"
        )
        + b"f4240\r\n",
    ]
    with Neighbours(node.port), Crowd(node.port, 100, lambda i: kinds[i % 4]) as crowd:
        crowd.wait_closed(2 + 3, trickle=b"a")
        for member in crowd.members:
            assert not member.received or member.received.split()[1] in (b"408", b"400"), member.received


@pytest.mark.parametrize("path", ["/channels/main/events", "/.well-known/mercure"])
def test_a_body_declared_too_large_is_refused_before_it_is_sent(open_node: Node, path: str) -> None:
    """S02: 413 comes on the declaration alone."""
    kind = f"Content-Type: application/json\r\nContent-Length: {2 * MIB}"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n\r\n"
    assert answered(open_node.port, head.encode()).status == 413


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_bodies_that_are_too_large_are_not_kept(start: Start, framing: str) -> None:
    """S02: 2 MiB from each of 40 publishers, sent regardless: refused, and memory grows by less than 5 MB."""
    node = start()
    _pour(node, framing, 4)
    before = rss_bytes(node.pid)
    statuses = _pour(node, framing, 40)
    assert all(status in (413, None) for status in statuses), statuses
    assert rss_bytes(node.pid) - before < 5_000_000


def _pour(node: Node, framing: str, count: int) -> list[int | None]:
    """Send 2 MiB on each of `count` connections; the statuses answered, None for a hang-up."""
    length = f"Content-Length: {2 * MIB}" if framing == "length" else "Transfer-Encoding: chunked"
    kind = f"Content-Type: application/x-ndjson\r\n{length}"
    head = f"POST /channels/main/events HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n\r\n".encode()
    body = b"x" * (2 * MIB) if framing == "length" else (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 32 + b"0\r\n\r\n"
    connections = [Wire(node.port) for _ in range(count)]
    statuses: list[int | None] = []
    for connection in connections:
        connection.send(head)
    for connection in connections:
        connection.send(body)
        try:
            answer = connection.answer()
            statuses.append(answer.status if answer else None)
        finally:
            connection.close()
    return statuses


def unwanted(path: str, method: str = "POST", framing: str = f"Content-Length: {MIB}") -> bytes:
    """The head of a request whose body is for nobody, and nearly all of that body."""
    kind = "Content-Type: application/x-www-form-urlencoded"
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n{framing}\r\n\r\n".encode()
    body = b"x" * (MIB - 1000)
    return head + (b"%x\r\n" % (len(body) + 1) + body if "chunked" in framing else body)


UNWANTED = {
    "without a token": unwanted("/.well-known/mercure"),
    "without a token, in chunks": unwanted("/channels/main/events", framing="Transfer-Encoding: chunked"),
    "with a bad token": unwanted("/.well-known/mercure?authorization=a.b.c"),
    "a preflight": unwanted("/.well-known/mercure", "OPTIONS"),
    "a method that is not there": unwanted("/.well-known/mercure", "PUT"),
    "a page": unwanted("/health", "GET"),
    "no page": unwanted("/nowhere"),
}


@pytest.mark.parametrize("name", UNWANTED)
def test_bodies_that_are_for_nobody_are_not_held(keyed_node: Node, name: str) -> None:
    """S02: 40 clients at the end of a MiB that the server has no use for: memory stays as it is while they wait, and
    who may not publish is told before the body is whole.
    """
    for count in (4, 40):
        before = rss_bytes(keyed_node.pid)
        connections = [Wire(keyed_node.port) for _ in range(count)]
        for connection in connections:
            connection.send(UNWANTED[name])
        assert answered(keyed_node.port, HEALTH).status == 200
        if "token" in name:
            assert [answer.status for connection in connections if (answer := connection.answer())] == [401] * count
        grown = rss_bytes(keyed_node.pid) - before
        for connection in connections:
            connection.close()
    assert grown < 10_000_000


def test_an_endless_request_head_is_refused(open_node: Node) -> None:
    """S01, S11: a head of a megabyte, in one line or in many, gets 4xx or a hang-up, by both ways in."""
    before = rss_bytes(open_node.pid)
    for way in WAYS:
        for head in (
            b"GET /channels/main/events?topic=" + b"a" * MIB,
            b"GET /channels/main/events HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * MIB,
            b"GET /channels/main/events HTTP/1.1\r\nHost: localhost\r\n" + b"X-Many: a\r\n" * 100_000,
        ):
            answer = ask(open_node.port, head, way)
            assert answer is None or answer.status in (400, 414, 431), answer
    assert rss_bytes(open_node.pid) - before < 10_000_000
