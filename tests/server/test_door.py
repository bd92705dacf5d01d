"""The front door on real sockets, with a scripted surface behind it: who gets the connection, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

import server.door
from server.channel import Start
from server.door import MAX_HEAD_BYTES, READ_BYTES, Door
from server.endings import DRAINING
from server.exchange import Request, Response
from server.frames import Encoding
from server.opening import Subscription
from server.selection import Selection
from server.sockets import listen_tcp, listen_unix
from tests.server.engine import channel, run, until

HEADER_SECONDS = 7.0
STREAM = b"GET /stream HTTP/1.1\r\nHost: h\r\n\r\n"


def post(body: bytes, path: str = "/publish", *fields: str, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: h", f"Content-Length: {len(body)}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


class Client:
    """One connection to the door. It reads whatever comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = b""

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next whole answer: status, headers, body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")[:-2]
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers.get("Content-Length", 0)))
        return int(first.split()[1]), headers, body

    async def rest(self) -> bytes:
        """Everything until the connection ends."""
        with contextlib.suppress(ConnectionResetError):
            self.received += await self.reader.read()
        return self.received


class House:
    """A door, what is behind it, and what came through. `answers` make the answer to a publish of its body."""

    def __init__(self) -> None:
        self.door = Door(
            asyncio.get_running_loop(), self, self, self._hand_over, header_seconds=HEADER_SECONDS  # type: ignore[arg-type]
        )  # fmt: skip
        listener = listen_tcp("127.0.0.1", 0, send_buffer_bytes=0, receive_buffer_bytes=0, user_timeout_seconds=5)
        self.port = listener.getsockname()[1]
        self.door.listen(listener)
        self.requests: list[Request] = []
        self.handed: list[tuple[int, str, bytes]] = []
        self.opened: list[int] = []
        self.subscription: Any = Subscription(
            channel(), Selection(), None, 0, "", None, None, "", Encoding.CHUNKED
        )  # fmt: skip
        self.start: Start | None = Start(None)
        self.publish_answer: Callable[[bytes], Response | Awaitable[Response]] = lambda body: Response(200, body)
        self.clients: list[Client] = []

    # What the door asks of its surface and its opener.

    @staticmethod
    def is_stream(path: str) -> bool:
        return path == "/stream"

    @staticmethod
    def is_publish(path: str) -> bool:
        return path == "/publish"

    def subscribe(self, request: Request) -> Any:
        self.requests.append(request)
        return self.subscription

    def publish(self, request: Request) -> Response | Awaitable[Response]:
        self.requests.append(request)
        return self.publish_answer(request.body)

    def locate(self, _wanted: Subscription) -> Start | None:
        return self.start

    def open(self, fd: int, _wanted: Subscription, _start: Start) -> None:
        self.opened.append(fd)

    def _hand_over(self, fd: int, remote: str, data: bytes) -> None:
        self.handed.append((fd, remote, data))

    # What a test does.

    async def client(self, data: bytes = b"", path: Path | None = None) -> Client:
        if path is None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        else:
            reader, writer = await asyncio.open_unix_connection(path)
        one = Client(reader, writer)
        self.clients.append(one)
        if data:
            one.send(data)
        return one

    async def close(self) -> None:
        self.door.stop_listening()
        await self.door.finish(0)
        for fd in (*self.opened, *(fd for fd, _, _ in self.handed)):
            os.close(fd)
        for one in self.clients:
            one.writer.close()


def with_door(doing: Callable[[House], Awaitable[None]]) -> None:
    async def main() -> None:
        house = House()
        try:
            await doing(house)
        finally:
            await house.close()

    run(main)


# --- streams


def test_a_streaming_get_becomes_a_reader_and_is_the_doors_no_more() -> None:
    async def check(house: House) -> None:
        await house.client(b"GET /stream?topic=a HTTP/1.1\r\nHost: h\r\nX: 1\r\n\r\n")
        await until(lambda: house.opened)
        [request] = house.requests
        assert (request.method, request.path, request.query, request.remote) == ("GET", "/stream", "topic=a", "127.0.0.1")
        assert request.header(b"x") == "1"
        assert not os.get_blocking(house.opened[0])
        assert (house.door.accepted, house.door.waiting, house.door.handed_over) == (1, 0, 0)

    with_door(check)


def test_a_request_may_come_byte_by_byte() -> None:
    async def check(house: House) -> None:
        client = await house.client()
        for byte in STREAM:
            client.send(bytes([byte]))
            await asyncio.sleep(0)
            await client.writer.drain()
        await until(lambda: house.opened)
        assert house.door.waiting == 0

    with_door(check)


def test_bytes_after_a_request_for_a_stream_are_refused() -> None:
    async def check(house: House) -> None:
        client = await house.client(STREAM + b"x")
        assert (await client.rest()).startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"nothing may come after the request for a stream" in client.received
        assert house.opened == []

    with_door(check)


def test_a_refused_stream_gets_its_answer_and_the_end() -> None:
    async def check(house: House) -> None:
        house.subscription = Response(503, b"{}", headers=[("Retry-After", "5")])
        client = await house.client(STREAM)
        status, headers, body = await client.answer()
        assert (status, headers["Retry-After"], headers["Connection"], body) == (503, "5", "close", b"{}")
        assert await client.rest() == b""
        assert house.door.waiting == 0

    with_door(check)


def test_a_stream_whose_admission_takes_waiting_is_handed_over_with_its_bytes() -> None:
    async def check(house: House) -> None:
        house.subscription = None
        await house.client(STREAM)
        await until(lambda: house.handed)
        assert house.handed[0][1:] == ("127.0.0.1", STREAM)
        assert house.opened == []

    with_door(check)


def test_a_stream_whose_start_takes_asking_is_handed_over_with_its_bytes() -> None:
    async def check(house: House) -> None:
        house.start = None
        await house.client(STREAM)
        await until(lambda: house.handed)
        assert (house.handed[0][2], house.opened) == (STREAM, [])

    with_door(check)


# --- publishes


def test_a_publish_is_answered_and_the_connection_kept_for_the_next() -> None:
    async def check(house: House) -> None:
        client = await house.client()
        for number in range(3):
            body = b"event %d" % number
            client.send(post(body))
            status, headers, answer = await client.answer()
            assert (status, answer) == (200, body)
            assert "Connection" not in headers
        assert (house.door.published, house.door.accepted, house.door.waiting) == (3, 1, 1)

    with_door(check)


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("pieces", [1, 7])
def test_publishes_sent_without_waiting_are_answered_in_order(later: bool, pieces: int) -> None:
    async def check(house: House) -> None:
        async def answer(body: bytes) -> Response:
            for _ in range(20 - int(body)):  # the first takes longest
                await asyncio.sleep(0)
            return Response(200, body)

        if later:
            house.publish_answer = answer
        client = await house.client()
        data = b"".join(post(b"%d" % number) for number in range(20))
        for piece in range(pieces):
            client.send(data[piece * len(data) // pieces : (piece + 1) * len(data) // pieces])
            await client.writer.drain()
            await asyncio.sleep(0)
        assert [int((await client.answer())[2]) for _ in range(20)] == list(range(20))

    with_door(check)


def test_a_body_may_come_later_than_its_head() -> None:
    async def check(house: House) -> None:
        client = await house.client()
        whole = post(b"x" * 30_000)
        client.send(whole[:100])
        await until(lambda: house.door.waiting)
        client.send(whole[100:])
        assert (await client.answer())[2] == b"x" * 30_000

    with_door(check)


@pytest.mark.parametrize(
    ("version", "fields", "kept"),
    [("1.1", [], True), ("1.1", ["Connection: close"], False), ("1.0", [], False), ("1.0", ["Connection: keep-alive"], True)],
)
def test_the_connection_of_a_publisher_ends_when_it_wants_that(version: str, fields: list[str], kept: bool) -> None:
    async def check(house: House) -> None:
        client = await house.client(post(b"x", "/publish", *fields, version=version))
        headers = (await client.answer())[1]
        assert headers.get("Connection") == (None if version == "1.1" and kept else "keep-alive" if kept else "close")
        if kept:
            client.send(post(b"y"))
            assert (await client.answer())[2] == b"y"
        else:
            assert await client.rest() == b""

    with_door(check)


def test_a_publish_too_large_for_the_door_is_handed_over_with_what_was_read() -> None:
    async def check(house: House) -> None:
        whole = post(b"x" * READ_BYTES)
        await house.client(whole)
        await until(lambda: house.handed)
        data = house.handed[0][2]
        assert data == whole[: len(data)]
        assert house.requests == []

    with_door(check)


def test_a_publisher_that_left_before_its_answer_costs_nothing() -> None:
    async def check(house: House) -> None:
        gate = asyncio.Event()

        async def answer(body: bytes) -> Response:
            await gate.wait()
            return Response(200, body)

        house.publish_answer = answer
        client = await house.client(post(b"x"))
        await until(lambda: house.requests)
        client.writer.transport.abort()
        gate.set()
        await until(lambda: house.door.waiting == 0 and not house.door._tasks)

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
    async def check(house: House) -> None:
        await house.client(data)
        await until(lambda: house.handed)
        assert house.handed[0][1:] == ("127.0.0.1", data)
        assert (house.requests, house.door.waiting, house.door.handed_over) == ([], 0, 1)

    with_door(check)


def test_a_connection_that_published_is_handed_over_when_it_asks_for_something_else() -> None:
    async def check(house: House) -> None:
        client = await house.client(post(b"x") + b"GET /other HTTP/1.1\r\nHost: h\r\n\r\nmore")
        assert (await client.answer())[2] == b"x"
        await until(lambda: house.handed)
        assert house.handed[0][2] == b"GET /other HTTP/1.1\r\nHost: h\r\n\r\nmore"

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
    async def check(house: House) -> None:
        client = await house.client(data)
        assert (await client.rest()).startswith(b"HTTP/1.1 " + status)
        assert b"Connection: close\r\n" in client.received
        assert house.door.waiting == 0

    with_door(check)


def test_a_head_of_just_the_size_is_read() -> None:
    async def check(house: House) -> None:
        start, end = b"GET /stream HTTP/1.1\r\nHost: h\r\nX: ", b"\r\n\r\n"
        await house.client(start + b"x" * (MAX_HEAD_BYTES - len(start + end)) + end)
        await until(lambda: house.opened)

    with_door(check)


def test_a_connection_that_sends_nothing_and_ends_is_forgotten() -> None:
    async def check(house: House) -> None:
        client = await house.client(b"GET /str")
        await until(lambda: house.door.waiting == 1)
        client.writer.close()
        await until(lambda: house.door.waiting == 0)
        assert house.requests == []

    with_door(check)


def test_an_error_behind_the_door_costs_one_connection() -> None:
    async def check(house: House) -> None:
        def broken(_body: bytes) -> Response:
            raise RuntimeError("a defect")

        house.publish_answer = broken
        with structlog.testing.capture_logs() as lines:
            client = await house.client(post(b"x"))
            assert await client.rest() == b""
        assert [line["event"] for line in lines] == ["request_failed"]
        house.publish_answer = lambda body: Response(200, body)
        assert (await (await house.client(post(b"y"))).answer())[2] == b"y"

    with_door(check)


def test_a_unix_socket_is_a_way_in_without_an_address(tmp_path: Path) -> None:
    async def check(house: House) -> None:
        path = tmp_path / "sock"
        house.door.listen(listen_unix(str(path), send_buffer_bytes=0, receive_buffer_bytes=0))
        client = await house.client(post(b"x"), path)
        assert (await client.answer())[2] == b"x"
        assert house.requests[0].remote == ""

    with_door(check)


# --- bounds


def test_a_request_that_does_not_come_to_an_end_is_given_up() -> None:
    async def check(house: House) -> None:
        silent, slow = await house.client(), await house.client(b"GET /str")
        await until(lambda: house.door.waiting == 2)
        now = max(knock.since for knock in house.door._knocks.values())
        house.door.expire(now + HEADER_SECONDS)
        assert house.door.waiting > 0
        house.door.expire(now + HEADER_SECONDS + 0.1)
        assert (house.door.waiting, house.door.timed_out) == (0, 2)
        assert await silent.rest() == await slow.rest() == b""

    with_door(check)


def test_time_to_send_a_request_is_not_won_by_sending_a_byte_now_and_then() -> None:
    async def check(house: House) -> None:
        client = await house.client(b"G")
        await until(lambda: house.door.waiting)
        [knock] = house.door._knocks.values()
        since = knock.since
        client.send(b"E")
        await until(lambda: knock.data == b"GE")
        assert knock.since == since

    with_door(check)


def test_a_publishers_time_begins_anew_with_each_answer_and_each_request() -> None:
    async def check(house: House) -> None:
        client = await house.client(post(b"x"))
        await client.answer()
        [knock] = house.door._knocks.values()
        answered = knock.since
        client.send(b"POST /pub")
        await until(lambda: knock.data)
        assert knock.since >= answered
        house.door.expire(knock.since + HEADER_SECONDS)
        assert house.door.waiting == 1
        house.door.expire(knock.since + HEADER_SECONDS + 0.1)
        assert await client.rest() == b""

    with_door(check)


def test_a_publisher_that_comes_no_more_is_let_go() -> None:
    async def check(house: House) -> None:
        client = await house.client(post(b"x"))
        await client.answer()
        [knock] = house.door._knocks.values()
        house.door.expire(knock.since + HEADER_SECONDS + 0.1)
        assert await client.rest() == b""

    with_door(check)


def test_who_has_published_is_not_the_first_to_go_when_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.door, "MAX_WAITING", 2)

    async def check(house: House) -> None:
        publisher = await house.client(post(b"x"))
        await publisher.answer()
        silent = await house.client(b"GET /")
        await until(lambda: house.door.waiting == 2)
        await house.client(b"GET /")
        assert await silent.rest() == b""
        publisher.send(post(b"y"))
        assert (await publisher.answer())[2] == b"y"

    with_door(check)


def test_when_too_many_wait_the_one_that_has_waited_longest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.door, "MAX_WAITING", 3)

    async def check(house: House) -> None:
        clients = []
        for number in range(5):
            clients.append(await house.client(b"GET /%d" % number))
            await until(lambda: house.door.accepted == len(clients) and house.door.waiting == min(3, len(clients)))
        assert await clients[0].rest() == await clients[1].rest() == b""
        assert house.door.waiting == 3

    with_door(check)


# --- the end


def test_a_door_that_is_shut_takes_nobody_and_sends_those_who_wait_away() -> None:
    async def check(house: House) -> None:
        waiting = await house.client(b"GET /str")
        await until(lambda: house.door.waiting)
        house.door.stop_listening()
        assert await waiting.rest() == b""
        with pytest.raises(OSError, match="refused|Connect call failed"):
            await house.client()

    with_door(check)


def test_a_publish_under_way_is_answered_before_the_end_and_told_to_go() -> None:
    async def check(house: House) -> None:
        gate = asyncio.Event()

        async def answer(body: bytes) -> Response:
            await gate.wait()
            return Response(200, body)

        house.publish_answer = answer
        client = await house.client(post(b"x"))
        await until(lambda: house.requests)
        house.door.stop_listening()
        asyncio.get_running_loop().call_later(0.01, gate.set)
        await house.door.finish(10)
        status, headers, body = await client.answer()
        assert (status, headers["Connection"], body) == (200, "close", b"x")
        assert await client.rest() == b""

    async def main() -> None:
        house = House()
        await check(house)
        for one in house.clients:
            one.writer.close()

    run(main)


def test_farewells_of_a_refused_stream_go_out_like_any_other_answer() -> None:
    async def check(house: House) -> None:
        house.subscription = Response(200, DRAINING.farewell(700), "text/event-stream")
        client = await house.client(STREAM)
        status, headers, body = await client.answer()
        assert (status, headers["Content-Type"], body) == (200, "text/event-stream", DRAINING.farewell(700))

    with_door(check)


def test_many_connections_at_once_are_all_served() -> None:
    async def check(house: House) -> None:
        sockets = [socket.create_connection(("127.0.0.1", house.port)) for _ in range(200)]
        for number, one in enumerate(sockets):
            one.sendall(post(b"%d" % number))
        await until(lambda: house.door.published == 200)
        for number, one in enumerate(sockets):
            assert one.recv(4096).endswith(b"\r\n\r\n%d" % number)
            one.close()
        await until(lambda: house.door.waiting == 0)

    with_door(check)
