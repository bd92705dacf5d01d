"""The front door's bounds and its end: how long and how many may wait, and what becomes of them when it shuts."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

import server.door
from server.endings import DRAINING
from server.exchange import Response
from tests.server.doorway import HEADER_SECONDS, STREAM, Doorway, post, with_door
from tests.server.engine import until

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
        silent, idle = await doorway.client(), await doorway.client(post(b"x"))
        await idle.answer()
        await until(lambda: doorway.door.waiting == 2)
        doorway.door.stop_listening()
        assert await silent.rest() == await idle.rest() == b""
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await doorway.client()

    with_door(check)


def test_a_publish_under_way_is_answered_before_the_end_and_told_to_go() -> None:
    async def check(doorway: Doorway) -> None:
        gate = doorway.hold_publishes()
        client = await doorway.client(post(b"x"))
        await until(lambda: doorway.requests)
        doorway.door.stop_listening()
        asyncio.get_running_loop().call_later(0.01, gate.set)
        await doorway.finish(10)
        status, headers, body = await client.answer()
        assert (status, headers["Connection"], body) == (200, "close", b"x")
        assert await client.rest() == b""

    with_door(check)


def test_a_publish_that_has_begun_to_come_is_answered_before_the_end() -> None:
    async def check(doorway: Doorway) -> None:
        whole = post(b"hello")
        client = await doorway.client(whole[:-3])
        await until(lambda: any(knock.data for knock in doorway.door._knocks.values()))
        doorway.door.stop_listening()
        asyncio.get_running_loop().call_later(0.01, client.send, whole[-3:])
        await doorway.finish(10)
        status, headers, body = await client.answer()
        assert (status, headers["Connection"], body) == (200, "close", b"hello")

    with_door(check)


def test_a_request_that_has_begun_to_come_and_does_not_end_holds_the_end_up_for_a_while_only() -> None:
    async def check(doorway: Doorway) -> None:
        client = await doorway.client(post(b"hello")[:-3])
        await until(lambda: any(knock.data for knock in doorway.door._knocks.values()))
        doorway.door.stop_listening()
        began = time.monotonic()
        await doorway.finish(0.2)
        assert time.monotonic() - began < 5
        assert await client.rest() == b""

    with_door(check)


def test_an_answer_larger_than_the_socket_takes_arrives_whole_and_the_connection_goes_on() -> None:
    async def check(doorway: Doorway) -> None:
        large = bytes(range(256)) * 80_000
        doorway.publish_answer = lambda body: Response(200, large if body == b"large" else body)
        client = await doorway.client(post(b"large") + post(b"behind"))
        await until(lambda: any(knock.rest for knock in doorway.door._knocks.values()))
        assert (await client.answer())[2] == large
        assert (await client.answer())[2] == b"behind"
        client.send(post(b"later"))
        assert (await client.answer())[2] == b"later"

    with_door(check)


def test_an_answer_that_nobody_takes_is_given_up() -> None:
    async def check(doorway: Doorway) -> None:
        doorway.publish_answer = lambda body: Response(200, bytes(20_000_000))
        with socket.create_connection(("127.0.0.1", doorway.port)) as deaf:
            deaf.sendall(post(b"x"))
            await until(lambda: any(knock.rest for knock in doorway.door._knocks.values()))
            [knock] = doorway.door._knocks.values()
            doorway.door.expire(knock.since + HEADER_SECONDS + 0.1)
            assert (doorway.door.waiting, doorway.door.timed_out) == (0, 1)

    with_door(check)


def test_the_door_tells_what_it_did() -> None:
    async def check(doorway: Doorway) -> None:
        client = await doorway.client(post(b"x"))
        await client.answer()
        assert doorway.door.facts() == {
            "waiting": 1, "accepted": 1, "published": 1, "handed_over": 0, "timed_out": 0, "accept_errors": 0,
        }  # fmt: skip

    with_door(check)


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
