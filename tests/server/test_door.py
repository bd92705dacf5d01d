"""The front door on real sockets, with a scripted surface behind it: who gets a connection, and what becomes of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog

from server.door import MAX_HEAD_BYTES, READ_BYTES
from server.exchange import Response
from server.sockets import listen_unix
from tests.server.doorway import STREAM, Doorway, post, with_door
from tests.server.engine import turns, until

# --- streams


def test_a_streaming_get_becomes_a_reader_and_is_the_doors_no_more() -> None:
    async def check(doorway: Doorway) -> None:
        await doorway.client(b"GET /stream?topic=a HTTP/1.1\r\nHost: h\r\nX: 1\r\n\r\n")
        await until(lambda: doorway.opened)
        [request] = doorway.requests
        assert (request.method, request.path, request.query, request.remote) == (
            "GET",
            "/stream",
            "topic=a",
            "127.0.0.1",
        )
        assert request.header(b"x") == "1"
        assert not os.get_blocking(doorway.opened[0])
        assert (doorway.door.accepted, doorway.door.waiting, doorway.door.handed_over) == (1, 0, 0)

    with_door(check)


def test_a_request_may_come_byte_by_byte() -> None:
    async def check(doorway: Doorway) -> None:
        client = await doorway.client()
        for byte in STREAM:
            client.send(bytes([byte]))
            await turns(1)
            await client.writer.drain()
        await until(lambda: doorway.opened)
        assert doorway.door.waiting == 0

    with_door(check)


def test_bytes_after_a_request_for_a_stream_are_refused() -> None:
    async def check(doorway: Doorway) -> None:
        client = await doorway.client(STREAM + b"x")
        assert (await client.rest()).startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"nothing may come after the request for a stream" in client.received
        assert doorway.opened == []

    with_door(check)


def test_a_refused_stream_gets_its_answer_and_the_end() -> None:
    async def check(doorway: Doorway) -> None:
        doorway.subscription = Response(503, b"{}", headers=[("Retry-After", "5")])
        client = await doorway.client(STREAM)
        status, headers, body = await client.answer()
        assert (status, headers["Retry-After"], headers["Connection"], body) == (503, "5", "close", b"{}")
        assert await client.rest() == b""
        assert doorway.door.waiting == 0

    with_door(check)


def test_a_stream_whose_admission_takes_waiting_is_handed_over_with_its_bytes() -> None:
    async def check(doorway: Doorway) -> None:
        doorway.subscription = None
        await doorway.client(STREAM)
        await until(lambda: doorway.handed)
        assert doorway.handed[0][1:] == ("127.0.0.1", STREAM)
        assert doorway.opened == []

    with_door(check)


def test_a_stream_whose_start_takes_asking_is_handed_over_with_its_bytes() -> None:
    async def check(doorway: Doorway) -> None:
        doorway.start = None
        await doorway.client(STREAM)
        await until(lambda: doorway.handed)
        assert (doorway.handed[0][2], doorway.opened) == (STREAM, [])

    with_door(check)


# --- publishes


def test_a_publish_is_answered_and_the_connection_kept_for_the_next() -> None:
    async def check(doorway: Doorway) -> None:
        client = await doorway.client()
        for number in range(3):
            body = b"event %d" % number
            client.send(post(body))
            status, headers, answer = await client.answer()
            assert (status, answer) == (200, body)
            assert "Connection" not in headers
        assert (doorway.door.published, doorway.door.accepted, doorway.door.waiting) == (3, 1, 1)

    with_door(check)


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("pieces", [1, 7])
def test_publishes_sent_without_waiting_are_answered_in_order(later: bool, pieces: int) -> None:
    async def check(doorway: Doorway) -> None:
        async def answer(body: bytes) -> Response:
            await turns(20 - int(body))  # the first takes longest
            return Response(200, body)

        if later:
            doorway.publish_answer = answer
        client = await doorway.client()
        data = b"".join(post(b"%d" % number) for number in range(20))
        for piece in range(pieces):
            client.send(data[piece * len(data) // pieces : (piece + 1) * len(data) // pieces])
            await client.writer.drain()
            await turns(1)
        assert [int((await client.answer())[2]) for _ in range(20)] == list(range(20))

    with_door(check)


def test_a_body_may_come_later_than_its_head() -> None:
    async def check(doorway: Doorway) -> None:
        client = await doorway.client()
        whole = post(b"x" * 30_000)
        client.send(whole[:100])
        await until(lambda: doorway.door.waiting)
        client.send(whole[100:])
        assert (await client.answer())[2] == b"x" * 30_000

    with_door(check)


@pytest.mark.parametrize(
    ("version", "fields", "kept"),
    [
        ("1.1", [], True),
        ("1.1", ["Connection: close"], False),
        ("1.0", [], False),
        ("1.0", ["Connection: keep-alive"], True),
    ],
)
def test_the_connection_of_a_publisher_ends_when_it_wants_that(version: str, fields: list[str], kept: bool) -> None:
    async def check(doorway: Doorway) -> None:
        client = await doorway.client(post(b"x", "/publish", *fields, version=version))
        headers = (await client.answer())[1]
        assert headers.get("Connection") == (None if version == "1.1" and kept else "keep-alive" if kept else "close")
        if kept:
            client.send(post(b"y"))
            assert (await client.answer())[2] == b"y"
        else:
            assert await client.rest() == b""

    with_door(check)


def test_a_publish_too_large_for_the_door_is_handed_over_with_what_was_read() -> None:
    async def check(doorway: Doorway) -> None:
        whole = post(b"x" * READ_BYTES)
        await doorway.client(whole)
        await until(lambda: doorway.handed)
        data = doorway.handed[0][2]
        assert data == whole[: len(data)]
        assert doorway.requests == []

    with_door(check)


def test_a_publisher_that_left_before_its_answer_costs_nothing() -> None:
    async def check(doorway: Doorway) -> None:
        gate = doorway.hold_publishes()
        client = await doorway.client(post(b"x"))
        await until(lambda: doorway.requests)
        client.writer.transport.abort()
        gate.set()
        await until(lambda: doorway.door.waiting == 0 and not doorway.door._tasks)

    with_door(check)


# --- everything else


@pytest.mark.parametrize(
    "data",
    [
        b"GET /other HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /other HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        b"GET /stream HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        b"POST /publish HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /publish HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /publish HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
        b"HEAD /stream HTTP/1.1\r\nHost: h\r\n\r\n",
        b"OPTIONS /publish HTTP/1.1\r\nHost: h\r\n\r\n",
        b"DELETE /stream HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /stream HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
        b"GET /stream HTTP/1.1\r\n\r\n",
        b"GET /stream HTTP/2.0\r\nHost: h\r\n\r\n",
        b"GET http://h/stream HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_what_is_not_for_the_door_is_handed_over_untouched(data: bytes) -> None:
    async def check(doorway: Doorway) -> None:
        await doorway.client(data)
        await until(lambda: doorway.handed)
        assert doorway.handed[0][1:] == ("127.0.0.1", data)
        assert (doorway.requests, doorway.door.waiting, doorway.door.handed_over) == ([], 0, 1)

    with_door(check)


def test_a_connection_that_published_is_handed_over_when_it_asks_for_something_else() -> None:
    async def check(doorway: Doorway) -> None:
        client = await doorway.client(post(b"x") + b"GET /other HTTP/1.1\r\nHost: h\r\n\r\nmore")
        assert (await client.answer())[2] == b"x"
        await until(lambda: doorway.handed)
        assert doorway.handed[0][2] == b"GET /other HTTP/1.1\r\nHost: h\r\n\r\nmore"

    with_door(check)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /stream HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES, b"431"),
        (b"GET /stream HTTP/1.1\nHost: h\n\n", b"400"),
        (b"\n\n", b"400"),
    ],
)
def test_a_head_that_will_not_end_is_refused(data: bytes, status: bytes) -> None:
    async def check(doorway: Doorway) -> None:
        client = await doorway.client(data)
        assert (await client.rest()).startswith(b"HTTP/1.1 " + status)
        assert b"Connection: close\r\n" in client.received
        assert doorway.door.waiting == 0

    with_door(check)


def test_a_head_of_just_the_size_is_read() -> None:
    async def check(doorway: Doorway) -> None:
        start, end = b"GET /stream HTTP/1.1\r\nHost: h\r\nX: ", b"\r\n\r\n"
        await doorway.client(start + b"x" * (MAX_HEAD_BYTES - len(start + end)) + end)
        await until(lambda: doorway.opened)

    with_door(check)


def test_a_connection_that_sends_nothing_and_ends_is_forgotten() -> None:
    async def check(doorway: Doorway) -> None:
        client = await doorway.client(b"GET /str")
        await until(lambda: doorway.door.waiting == 1)
        client.writer.close()
        await until(lambda: doorway.door.waiting == 0)
        assert doorway.requests == []

    with_door(check)


def test_an_error_behind_the_door_costs_one_connection() -> None:
    async def check(doorway: Doorway) -> None:
        def broken(_body: bytes) -> Response:
            raise RuntimeError("a defect")

        doorway.publish_answer = broken
        with structlog.testing.capture_logs() as lines:
            client = await doorway.client(post(b"x"))
            assert await client.rest() == b""
        assert [line["event"] for line in lines] == ["request_failed"]
        doorway.publish_answer = lambda body: Response(200, body)
        assert (await (await doorway.client(post(b"y"))).answer())[2] == b"y"

    with_door(check)


def test_a_unix_socket_is_a_way_in_without_an_address(tmp_path: Path) -> None:
    async def check(doorway: Doorway) -> None:
        path = tmp_path / "sock"
        doorway.door.listen(listen_unix(str(path), send_buffer_bytes=0, receive_buffer_bytes=0))
        client = await doorway.client(post(b"x"), path)
        assert (await client.answer())[2] == b"x"
        assert doorway.requests[0].remote == ""

    with_door(check)
