"""The front door on real sockets, with a scripted surface behind it: who gets a connection, and what becomes of it."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
import structlog

import server.door
from server.door import MAX_HEAD_BYTES, READ_BYTES
from server.endings import DRAINING
from server.exchange import Response
from server.sockets import listen_unix
from tests.server.doorway import HEADER_SECONDS, STREAM, Doorway, post, with_door
from tests.server.engine import run, until

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
            await asyncio.sleep(0)
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
            for _ in range(20 - int(body)):  # the first takes longest
                await asyncio.sleep(0)
            return Response(200, body)

        if later:
            doorway.publish_answer = answer
        client = await doorway.client()
        data = b"".join(post(b"%d" % number) for number in range(20))
        for piece in range(pieces):
            client.send(data[piece * len(data) // pieces : (piece + 1) * len(data) // pieces])
            await client.writer.drain()
            await asyncio.sleep(0)
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
        gate = asyncio.Event()

        async def answer(body: bytes) -> Response:
            await gate.wait()
            return Response(200, body)

        doorway.publish_answer = answer
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


# --- bounds


def test_a_request_that_does_not_come_to_an_end_is_given_up() -> None:
    async def check(doorway: Doorway) -> None:
        silent, slow = await doorway.client(), await doorway.client(b"GET /str")
        await until(lambda: doorway.door.waiting == 2)
        now = max(knock.since for knock in doorway.door._knocks.values())
        doorway.door.expire(now + HEADER_SECONDS)
        assert doorway.door.waiting > 0
        doorway.door.expire(now + HEADER_SECONDS + 0.1)
        assert (doorway.door.waiting, doorway.door.timed_out) == (0, 2)
        assert await silent.rest() == await slow.rest() == b""

    with_door(check)


def test_time_to_send_a_request_is_not_won_by_sending_a_byte_now_and_then() -> None:
    async def check(doorway: Doorway) -> None:
        client = await doorway.client(b"G")
        await until(lambda: doorway.door.waiting)
        [knock] = doorway.door._knocks.values()
        since = knock.since
        client.send(b"E")
        await until(lambda: knock.data == b"GE")
        assert knock.since == since

    with_door(check)


def test_a_publishers_time_begins_anew_with_each_answer_and_each_request() -> None:
    async def check(doorway: Doorway) -> None:
        client = await doorway.client(post(b"x"))
        await client.answer()
        [knock] = doorway.door._knocks.values()
        answered = knock.since
        client.send(b"POST /pub")
        await until(lambda: knock.data)
        assert knock.since >= answered
        doorway.door.expire(knock.since + HEADER_SECONDS)
        assert doorway.door.waiting == 1
        doorway.door.expire(knock.since + HEADER_SECONDS + 0.1)
        assert await client.rest() == b""

    with_door(check)


def test_a_publisher_that_comes_no_more_is_let_go() -> None:
    async def check(doorway: Doorway) -> None:
        client = await doorway.client(post(b"x"))
        await client.answer()
        [knock] = doorway.door._knocks.values()
        doorway.door.expire(knock.since + HEADER_SECONDS + 0.1)
        assert await client.rest() == b""

    with_door(check)


def test_who_has_published_is_not_the_first_to_go_when_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.door, "MAX_WAITING", 2)

    async def check(doorway: Doorway) -> None:
        publisher = await doorway.client(post(b"x"))
        await publisher.answer()
        silent = await doorway.client(b"GET /")
        await until(lambda: doorway.door.waiting == 2)
        await doorway.client(b"GET /")
        assert await silent.rest() == b""
        publisher.send(post(b"y"))
        assert (await publisher.answer())[2] == b"y"

    with_door(check)


def test_when_too_many_wait_the_one_that_has_waited_longest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.door, "MAX_WAITING", 3)

    async def check(doorway: Doorway) -> None:
        clients = []
        for number in range(5):
            clients.append(await doorway.client(b"GET /%d" % number))
            await until(lambda: doorway.door.accepted == len(clients) and doorway.door.waiting == min(3, len(clients)))
        assert await clients[0].rest() == await clients[1].rest() == b""
        assert doorway.door.waiting == 3

    with_door(check)


# --- the end


def test_a_door_that_is_shut_takes_nobody_and_sends_those_who_wait_away() -> None:
    async def check(doorway: Doorway) -> None:
        waiting = await doorway.client(b"GET /str")
        await until(lambda: doorway.door.waiting)
        doorway.door.stop_listening()
        assert await waiting.rest() == b""
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await doorway.client()

    with_door(check)


def test_a_publish_under_way_is_answered_before_the_end_and_told_to_go() -> None:
    async def check(doorway: Doorway) -> None:
        gate = asyncio.Event()

        async def answer(body: bytes) -> Response:
            await gate.wait()
            return Response(200, body)

        doorway.publish_answer = answer
        client = await doorway.client(post(b"x"))
        await until(lambda: doorway.requests)
        doorway.door.stop_listening()
        asyncio.get_running_loop().call_later(0.01, gate.set)
        await doorway.door.finish(10)
        status, headers, body = await client.answer()
        assert (status, headers["Connection"], body) == (200, "close", b"x")
        assert await client.rest() == b""

    async def main() -> None:
        doorway = Doorway()
        await check(doorway)
        for one in doorway.clients:
            one.writer.close()

    run(main)


def test_farewells_of_a_refused_stream_go_out_like_any_other_answer() -> None:
    async def check(doorway: Doorway) -> None:
        doorway.subscription = Response(200, DRAINING.farewell(700), "text/event-stream")
        client = await doorway.client(STREAM)
        status, headers, body = await client.answer()
        assert (status, headers["Content-Type"], body) == (200, "text/event-stream", DRAINING.farewell(700))

    with_door(check)


def test_many_connections_at_once_are_all_served() -> None:
    async def check(doorway: Doorway) -> None:
        sockets = [socket.create_connection(("127.0.0.1", doorway.port)) for _ in range(200)]
        for number, one in enumerate(sockets):
            one.sendall(post(b"%d" % number))
        await until(lambda: doorway.door.published == 200)
        for number, one in enumerate(sockets):
            assert one.recv(4096).endswith(b"\r\n\r\n%d" % number)
            one.close()
        await until(lambda: doorway.door.waiting == 0)

    with_door(check)
