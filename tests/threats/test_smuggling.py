"""Requests whose end is a matter of opinion. No opinion may let a hidden request through.

Each case hides a marker: a publish to topic `smuggled` in the name of the case. A strict server refuses the case and
hangs up, or takes the marker as the body that it is. The test listens to the topic, so a marker that was obeyed is seen
whichever answer it got. Each case goes in as the first request of a connection (the front door peeks at it) and as a
later one on a kept-alive connection (the HTTP server behind the door reads it).
"""

from __future__ import annotations

import json

import pytest

from tests.harness.process import Node
from tests.harness.stream import Stream
from tests.threats.process_facts import cpu_share
from tests.threats.wire import WAYS, Wire, answered, request

PUBLISH = b"POST /channels/main/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
STREAM = b"GET /channels/main/events?topic=none HTTP/1.1\r\nHost: localhost\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
TARGETS = {"publish": PUBLISH, "stream": STREAM, "health": HEALTH}


def marker(name: str) -> bytes:
    """The hidden request."""
    body = json.dumps({"topic": "smuggled", "data": name}).encode()
    return request("POST", "/channels/main/events", body, Content_Type="application/json")


def lengths(hidden: bytes) -> dict[str, bytes]:
    """Headers about the length of a body, each with the body: hidden in what the one reading takes as the body and the
    other as the next request.
    """
    n, size = str(len(hidden)).encode(), f"{len(hidden):x}".encode()
    last = b"0\r\n\r\n" + hidden
    total = str(len(last)).encode()
    chunk = size + b"\r\n" + hidden + b"\r\n0\r\n\r\n"
    cases = {
        "two equal lengths": (b"Content-Length: " + n + b"\r\nContent-Length: " + n, hidden),
        "two lengths": (b"Content-Length: " + n + b"\r\nContent-Length: 0", hidden),
        "two lengths, other order": (b"Content-Length: 0\r\nContent-Length: " + n, hidden),
        "a list of lengths": (b"Content-Length: " + n + b", 0", hidden),
        "length and chunked": (b"Content-Length: " + total + b"\r\nTransfer-Encoding: chunked", last),
        "chunked and length": (b"Transfer-Encoding: chunked\r\nContent-Length: 4", chunk),
        "chunked and length 0": (b"Transfer-Encoding: chunked\r\nContent-Length: 0", chunk),
    }
    for sign in (
        b"+%s",
        b"-%s",
        b"0x%s",
        b"%s ,",
        b"%s;",
        b"%s_0",
        b" %s 0",
        b"%s.0",
        b"'%s'",
        b"\x0b%s",
        b"%s\x00",
        b"\xef\xbc\x91%s",
        b"1e2%s",
        b"",
    ):
        cases[f"length {sign!r}"] = (b"Content-Length: " + (sign % n if b"%" in sign else sign), hidden)
    for coding in (
        b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: identity",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked", b" Transfer-Encoding: chunked",
        b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: \x00chunked",
        b"Transfer-Encoding:\r\n chunked", b"X: y\nTransfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked",
        b"Transfer_Encoding: chunked", b"transfer-encoding: CHUNKED",
        b"Transfer-Encoding: \"chunked\"", b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding: chunk",
        b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding:",
        b"\xc2\xa0Transfer-Encoding: chunked", b"Transfer-Encoding\x00: chunked",
        b"Content-Encoding: x\r\n Transfer-Encoding: chunked", b"X:\r\n\tTransfer-Encoding: chunked",
    ):  # fmt: skip
        cases[f"{coding!r} and length"] = (coding + b"\r\nContent-Length: " + total, last)
    return {name: head + b"\r\n\r\n" + body for name, (head, body) in cases.items()}


def chunks(hidden: bytes) -> dict[str, bytes]:
    """Chunked bodies out of order: what follows a chunk that a strict reader refuses is hidden."""
    bodies = {
        size.decode("latin-1"): size + b"\r\n" + b"hello" + b"\r\n0\r\n\r\n" + hidden
        for size in (
            b"0x5",
            b"+5",
            b"-5",
            b" 5",
            b"5 x",
            b"5_0",
            b"g",
            b"",
            b"\xef\xbc\x95",
            b"FFFFFFFFFFFFFFFF5",
            b"1" * 5000,
            b"5\x00",
            b"5\x0b",
        )
    }
    bodies |= {
        "no line end after the data": b"5\r\nhello0\r\n\r\n" + hidden,
        "data longer than said": b"3\r\nhello\r\n0\r\n\r\n" + hidden,
        "a bare LF after the size": b"5\nhello\r\n0\r\n\r\n" + hidden,
        "a bare CR after the size": b"5\rhello\r\n0\r\n\r\n" + hidden,
        "an extension with LF": b"5;a=\nhello\r\n0\r\n\r\n" + hidden,
        "a LF in an extension": b"0;a\n\r\n" + hidden + b"\r\n0\r\n\r\n",
        "an endless extension": b"5;" + b"a" * 100_000 + b"\r\nhello\r\n0\r\n\r\n" + hidden,
        "a trailer that is a length": b"5\r\nhello\r\n0\r\nContent-Length: 500\r\nTransfer-Encoding: chunked\r\n"
        + hidden,
        "the marker as data": f"{len(hidden):x}".encode() + b"\r\n" + hidden + b"\r\n0\r\n\r\n",
    }
    return {f"chunk: {name[:30]}": b"Transfer-Encoding: chunked\r\n\r\n" + body for name, body in bodies.items()}


def corpus() -> dict[str, bytes]:
    """Every case by name, with the marker of that name in it."""
    cases: dict[str, bytes] = {}
    for target, head in TARGETS.items():
        for build in (lengths, chunks):
            for name in build(b""):
                full = f"{target}, {name}"
                cases[full] = head + build(marker(full))[name]
    body = {
        "a body on a stream": b"Content-Length: %d\r\n\r\n",
        "a body on a stream that closes": b"Connection: close\r\nContent-Length: %d\r\n\r\n",
    }
    for name, tail in body.items():
        cases[name] = STREAM + tail % len(marker(name)) + marker(name)
    cases["a second request behind a stream"] = STREAM + b"\r\n" + marker("a second request behind a stream")
    for name, upgrade in {"h2c": b"h2c", "websocket": b"websocket"}.items():
        head = (
            STREAM
            + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: "
            + upgrade
            + b"\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        cases[f"upgrade to {name} behind a stream"] = head + marker(f"upgrade to {name} behind a stream")
    return cases


CASES = corpus()
# What a server that is strict about framing must not answer with success, beyond not obeying what is hidden in it.
AMBIGUOUS = (
    "two lengths",
    "length and chunked",
    "chunked and length",
    "a list of lengths",
    "length b'-",
    "length b'+",
    "xchunked",
)


def run(node: Node, name: str, way: str) -> list[int]:
    """Send one case, say goodbye, and read to the end; the statuses of all answers to it."""
    connection = Wire(node.port)
    try:
        connection.come_in(way)
        connection.send(CASES[name])
        connection.say_goodbye()
        text = connection.rest()
    except OSError:
        return []  # the server hung up with our bytes unread
    finally:
        connection.close()
    return [int(line.split()[1]) for line in text.split(b"\r\n") if line.startswith(b"HTTP/1.")]


@pytest.mark.parametrize("way", WAYS)
def test_no_hidden_request_is_obeyed(open_node: Node, way: str) -> None:
    """S42: some 200 cases of unclear framing, by this way in: no marker arrives, the node lives."""
    with Stream(open_node.port, "/channels/main/events?topic=smuggled") as stream:
        stream.next_event()
        loose = {}
        for name in CASES:
            # Behind a stream it is a race between two ends, so it is tried more than once.
            for _ in range(10 if "behind a stream" in name else 1):
                statuses = run(open_node, name, way)
            if any(part in name for part in AMBIGUOUS) and any(status < 400 for status in statuses):
                loose[name] = statuses
        body = b'{"topic": "smuggled", "data": "end of the corpus"}'
        assert (
            answered(
                open_node.port, request("POST", "/channels/main/events", body, Content_Type="application/json")
            ).status
            == 200
        )
        obeyed = []
        while (data := stream.next_event().data) != "end of the corpus":
            obeyed.append(data)
    assert not obeyed
    assert not loose


def test_the_listener_hears_a_marker_that_is_a_proper_request(open_node: Node) -> None:
    """S42: the negative control: two proper requests in one packet are both obeyed, so the test above can fail."""
    with Stream(open_node.port, "/channels/main/events?topic=smuggled") as stream:
        stream.next_event()
        connection = Wire(open_node.port)
        connection.send(HEALTH + b"\r\n" + marker("control"))
        first, second = connection.answer(), connection.answer()
        connection.close()
        assert first and second and (first.status, second.status) == (200, 200)
        assert stream.next_event().data == "control"


MALFORMED = {
    "no host": b"GET %s HTTP/1.1\r\n\r\n",
    "two hosts": b"GET %s HTTP/1.1\r\nHost: localhost\r\nHost: b\r\n\r\n",
    "two equal hosts": b"GET %s HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "a host with a space": b"GET %s HTTP/1.1\r\nHost: localhost b\r\n\r\n",
    "a host with a path": b"GET %s HTTP/1.1\r\nHost: localhost/b\r\n\r\n",
    "a host with an account": b"GET %s HTTP/1.1\r\nHost: a@localhost\r\n\r\n",
    "NUL in a value": b"GET %s HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    "NUL in a name": b"GET %s HTTP/1.1\r\nHost: localhost\r\nX\x00: a\r\n\r\n",
    "NUL in the path": b"GET %s\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a bare CR": b"GET %s HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
    "a space before the colon": b"GET %s HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "a name with a space": b"GET %s HTTP/1.1\r\nHost: localhost\r\nX Y: a\r\n\r\n",
    "a line without a colon": b"GET %s HTTP/1.1\r\nHost: localhost\r\nXY\r\n\r\n",
    "an empty name": b"GET %s HTTP/1.1\r\nHost: localhost\r\n: a\r\n\r\n",
    "a first header line that is continued": b"GET %s HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "a method with a space": b"GE T %s HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no version": b"GET %s\r\nHost: localhost\r\n\r\n",
    "version 9": b"GET %s HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "version 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a lower-case version": b"GET %s http/1.1\r\nHost: localhost\r\n\r\n",
    "two versions": b"GET %s HTTP/1.1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a version with a tail": b"GET %s HTTP/1.1x\r\nHost: localhost\r\n\r\n",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500 + b"\r\n\r\n",
    "chunked in HTTP/1.0": b"POST %s HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_refused_and_the_connection_ended(open_node: Node, name: str, way: str) -> None:
    """S42: 4xx, 5xx for a version or a hang-up, never success; on a stream and on a plain page, and nothing is left
    open.
    """
    for path in (b"/channels/main/events", b"/health"):
        raw = MALFORMED[name].replace(b"%s", path)
        connection = Wire(open_node.port)
        connection.come_in(way)
        connection.send(raw)
        try:
            answer = connection.answer()
            assert answer is None or (400 <= answer.status <= 505 and answer.status != 500), answer
            assert connection.rest(4) == b""
        except ConnectionResetError:
            pass
        finally:
            connection.close()


def test_the_node_is_at_rest_after_the_corpus(open_node: Node) -> None:
    """S42: nothing spins once the attackers are gone."""
    assert cpu_share(open_node.pid, 0.5) < 0.1
