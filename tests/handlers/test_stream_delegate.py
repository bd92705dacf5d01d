"""Streams that come to Tornado: they leave it as soon as their head is there, and are then like any other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import structlog
from tornado.httpclient import AsyncHTTPClient
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from handlers.stream_delegate import _released, declared_bytes
from server.opening import Opener
from tests.handlers.lodge import KEYED, MERCURE, ORIGIN, Lodge
from tests.handlers.test_application import fetch
from tests.server.engine import until

EVENTS = "/channels/main/events"
Connect = Callable[[bytes], Awaitable["Wire"]]


class Wire:
    """A connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> str:
        return (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")

    async def rest(self) -> bytes:
        try:
            return await self.reader.read()
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        self.writer.close()


@pytest.fixture
def connect(http_server: object, http_port: int, io_loop: IOLoop) -> Iterator[Connect]:
    """Opens a connection and sends the bytes. All are closed when the test ends."""
    opened: list[Wire] = []

    async def open_one(data: bytes) -> Wire:
        opened.append(Wire(*await asyncio.open_connection("127.0.0.1", http_port)))
        opened[-1].writer.write(data)
        return opened[-1]

    async def close_all() -> None:
        for wire in opened:
            wire.close()
            with contextlib.suppress(OSError):
                await wire.writer.wait_closed()

    yield open_one
    io_loop.run_sync(close_all)


def get(path: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    return ("\r\n".join([f"{method} {path} HTTP/{version}", "Host: localhost", *fields]) + "\r\n\r\n").encode()


@pytest.mark.gen_test
async def test_a_stream_gets_hello_and_events_and_an_end(
    http_client: AsyncHTTPClient, base_url: str, lodge: Lodge
) -> None:
    pieces: list[bytes] = []
    url = f"{base_url}{EVENTS}?topic=a"
    answering = asyncio.ensure_future(fetch(http_client, url, streaming_callback=pieces.append))
    await until(lambda: pieces)
    await fetch(http_client, base_url + MERCURE, "POST", body="topic=a&data=x",
                headers={"Content-Type": "application/x-www-form-urlencoded"})  # fmt: skip
    await until(lambda: b"data: x\n\n" in b"".join(pieces))
    with structlog.testing.capture_logs():
        await lodge.node.drain(0)
    answer = await answering
    assert (answer.code, answer.headers["Content-Type"]) == (200, "text/event-stream")
    blocks = b"".join(pieces).split(b"\n\n")
    assert b"event: hello\n" in blocks[0]
    assert b"event: draining\n" in blocks[-2]
    assert lodge.node.ended == {"draining": 1}


@pytest.mark.gen_test
async def test_a_channel_that_is_not_open_yet_is_opened(connect: Connect, lodge: Lodge) -> None:
    wire = await connect(get("/channels/new/events"))
    assert (await wire.head()).startswith("HTTP/1.1 200 OK\r\n")
    assert lodge.node.hub.channels["new"].readers == 1
    wire.close()
    await until(lambda: lodge.node.hub.channels["new"].readers == 0)


@pytest.mark.gen_test
async def test_a_later_request_of_a_connection_may_be_a_stream(connect: Connect, lodge: Lodge) -> None:
    wire = await connect(get("/health"))
    assert "200 OK" in await wire.head()
    await wire.reader.readuntil(b"}")
    wire.writer.write(get(EVENTS))
    head = await wire.head()
    assert "Content-Type: text/event-stream\r\n" in head
    assert "Connection: close\r\n" in head
    assert lodge.node.broadcaster.readers == 1


@pytest.mark.gen_test
@pytest.mark.parametrize("more", [b"x", get("/health"), get(EVENTS)])
async def test_what_follows_a_request_for_a_stream_is_never_obeyed(connect: Connect, lodge: Lodge, more: bytes) -> None:
    wire = await connect(get(EVENTS) + more)
    answer = await wire.rest()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    assert lodge.node.broadcaster.readers == 0


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("fields", "body"), [(["Content-Length: 1"], b"x"), (["Transfer-Encoding: chunked"], b"0\r\n\r\n")]
)
async def test_a_request_for_a_stream_has_no_body(
    connect: Connect, lodge: Lodge, fields: list[str], body: bytes
) -> None:
    wire = await connect(get(EVENTS, *fields) + body)
    assert (await wire.rest()).startswith(b"HTTP/1.1 400 ")
    assert lodge.node.broadcaster.readers == 0


@pytest.mark.gen_test
async def test_a_request_without_content_may_say_so(connect: Connect, lodge: Lodge) -> None:
    wire = await connect(get(EVENTS, "Content-Length: 0"))
    assert (await wire.head()).startswith("HTTP/1.1 200 OK\r\n")


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
async def test_head_is_answered_with_the_head_that_get_would_have_and_the_end(
    connect: Connect, lodge: Lodge, own_settings: dict[str, Any]
) -> None:
    for method in ("HEAD", "GET"):
        wire = await connect(get(EVENTS, f"Origin: {ORIGIN}", method=method))
        answer = await wire.rest()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        assert (body == b"") == (method == "HEAD")
        assert b"Content-Length: " in head
        assert f"Access-Control-Allow-Origin: {ORIGIN}".encode() in head


@pytest.mark.gen_test
async def test_head_of_a_stream_opens_none(connect: Connect, lodge: Lodge) -> None:
    wire = await connect(get(f"{EVENTS}?last_event_id=earliest", method="HEAD"))
    answer = await wire.rest()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\nLast-Event-ID: earliest\r\n\r\n")
    assert lodge.node.opener.opened == 0


@pytest.mark.gen_test
async def test_a_client_of_http_1_0_gets_no_chunks(connect: Connect, lodge: Lodge) -> None:
    wire = await connect(get(EVENTS, version="1.0"))
    head = await wire.head()
    assert head.startswith("HTTP/1.0 200 OK\r\n")
    assert "Transfer-Encoding" not in head
    assert (await wire.reader.readline()).startswith(b"retry: ")


@pytest.mark.gen_test
async def test_a_refused_stream_is_answered_as_at_the_front_door(connect: Connect, lodge: Lodge) -> None:
    lodge.node.admission.max_connections = 0
    plain = await (await connect(get(EVENTS))).rest()
    browser = await (await connect(get(EVENTS, "Accept: text/event-stream"))).rest()
    assert plain.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert json.loads(plain.partition(b"\r\n\r\n")[2])["code"] == "overloaded"
    assert browser.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\nevent: overloaded\n" in browser
    assert all(b"\r\nConnection: close\r\n" in answer for answer in (plain, browser))


@pytest.mark.gen_test
async def test_a_defect_costs_the_connection_and_a_log_line_without_the_query(
    connect: Connect, lodge: Lodge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defective(*_: object) -> Any:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Opener, "locate", defective)
    with structlog.testing.capture_logs() as lines:
        assert await (await connect(get(f"{EVENTS}?authorization=secret"))).rest() == b""
    assert [line["event"] for line in lines] == ["request_failed"]
    assert "secret" not in str(lines)


@pytest.mark.gen_test
async def test_a_client_that_left_at_once_costs_nothing(connect: Connect, lodge: Lodge) -> None:
    wire = await connect(get(EVENTS))
    wire.writer.transport.abort()
    again = await connect(get(EVENTS))
    await again.head()
    await until(lambda: lodge.node.broadcaster.readers == 1)
    assert lodge.node.admission.held == 1


@pytest.mark.gen_test
async def test_a_client_that_leaves_with_its_request_costs_nothing(
    connect: Connect, lodge: Lodge, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of the connection is read together with the head, or right after it."""
    wire = await connect(get("/health"))
    await wire.head()
    await wire.reader.readuntil(b"}")
    wire.writer.write(get(EVENTS))
    wire.writer.write_eof()
    with structlog.testing.capture_logs() as lines:
        await wire.rest()
    await until(lambda: lodge.node.broadcaster.readers == 0 and not lodge.surface._tasks)
    assert (lines, caplog.records, lodge.connections.facts()["open"]) == ([], [], 0)


@pytest.mark.gen_test
async def test_a_connection_that_ends_while_it_is_taken_is_none() -> None:
    near, far = socket.socketpair()
    far.close()
    assert _released(IOStream(near)) == (-1, False)
    assert near.fileno() == -1


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """This process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


@pytest.mark.gen_test
async def test_a_stream_leaves_tornado_where_there_is_no_descriptor_to_spare(connect: Connect, lodge: Lodge) -> None:
    wire = await connect(get("/health"))
    await wire.head()
    await wire.reader.readuntil(b"}")
    with no_descriptor_left():
        wire.writer.write(get(EVENTS))
        head = await wire.head()
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert lodge.node.broadcaster.readers == 1


@pytest.mark.gen_test
async def test_an_opening_that_fails_has_had_the_descriptor(
    connect: Connect, lodge: Lodge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then it may be a reader's, or closed and another's: it is not closed once more."""
    had: list[int] = []

    def open_and_fail(_opener: Opener, fd: int, *_: object) -> None:
        had.append(fd)
        raise RuntimeError("a defect")

    monkeypatch.setattr(Opener, "open", open_and_fail)
    with structlog.testing.capture_logs() as lines:
        await connect(get(EVENTS))
        await until(lambda: had and not lodge.surface._tasks)
    assert [line["event"] for line in lines] == ["request_failed"]
    os.close(had[0])  # which raises if it was closed


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 0), ("0", 0), ("5", 5), ("0005", 5), ("0" * 6000 + "7", 7), ("9" * 18, 10**18 - 1), ("1" * 19, sys.maxsize),
     ("9" * 6000, sys.maxsize), ("-1", 0), ("+5", 0), ("5, 5", 0), ("\xb2", 0), ("\u0665", 0), ("0x5", 0), ("5\n", 0)],
)  # fmt: skip
def test_a_declared_length_is_read_without_a_fault(text: str, size: int) -> None:
    assert declared_bytes(text) == size


@pytest.mark.gen_test
@pytest.mark.parametrize("length", ["\xb2", "9" * 6000, "-1", "5, 6"])
async def test_a_length_that_is_none_is_a_refusal_and_no_fault_of_ours(
    connect: Connect, lodge: Lodge, length: str
) -> None:
    with structlog.testing.capture_logs() as lines:
        wire = await connect(get(MERCURE, method="POST")[:-2] + f"Content-Length: {length}\r\n\r\n".encode("latin-1"))
        answer = await wire.rest()
    assert answer.split(b" ")[1] in (b"400", b"413")
    assert lines == []
    await until(lambda: not lodge.surface._publishing)


# --- names of other servers


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/health"), ("GET", "/stats"), ("GET", "/nothing"), ("GET", EVENTS), ("HEAD", "/health"),
     ("OPTIONS", MERCURE), ("POST", MERCURE), ("POST", EVENTS), ("PUT", "/x"), ("DELETE", EVENTS)],
)  # fmt: skip
async def test_without_a_key_a_page_that_calls_this_server_by_its_own_name_gets_nothing(
    connect: Connect, method: str, path: str
) -> None:
    asked = get(path, "Origin: http://evil.example:8888", "Content-Length: 7", method=method)
    wire = await connect(asked.replace(b"Host: localhost", b"Host: evil.example:8888") + b"topic=a")
    head, _, body = (await wire.rest()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"Access-Control" not in head
    if method != "HEAD":
        assert json.loads(body)["field"] == "Host"


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
async def test_with_a_key_a_server_may_have_any_name(connect: Connect, own_settings: dict[str, Any]) -> None:
    wire = await connect(get("/health").replace(b"Host: localhost", b"Host: events.example"))
    assert (await wire.head()).startswith("HTTP/1.1 200 OK\r\n")
