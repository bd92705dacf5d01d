"""HTTP connections over real sockets: how many there may be, who goes when there are too many, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import Application

import handlers.http_connections
from server.channel import Start
from server.door import Door
from server.opening import Opener
from server.sockets import listen_tcp
from tests.handlers.lodge import KEYED, MERCURE, ORIGIN, Lodge, bearer
from tests.server.doorway import Client
from tests.server.engine import until

EVENTS = "/channels/main/events"
BODY_BYTES = 900_000
PUBLISHER = bearer(mercure={"publish": ["*"]})
TWO: dict[str, Any] = {"max_http_connections": 2}


def asking(path: str = "/health", method: str = "GET", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def uploading(**headers: str) -> bytes:
    """The head of a publish that is too large for the door."""
    form = {"Content_Type": "application/x-www-form-urlencoded", "Content_Length": str(BODY_BYTES)}
    return asking(MERCURE, "POST", **form | headers)


class Site:
    """A server as `server/__main__.py` puts it together, and its clients."""

    def __init__(self, lodge: Lodge, app: Application) -> None:
        self.lodge = lodge
        self.http = HTTPServer(app, idle_connection_timeout=60, body_timeout=60)
        lodge.serve = self.http.handle_stream
        self.door = Door(
            asyncio.get_running_loop(), lodge.surface, lodge.node.opener, lodge.connections.take, header_seconds=60
        )
        listener = listen_tcp("127.0.0.1", 0, send_buffer_bytes=0, receive_buffer_bytes=16_384, user_timeout_seconds=5)
        self.port = listener.getsockname()[1]
        self.door.listen(listener)
        self.clients: list[Client] = []

    @property
    def facts(self) -> dict[str, int]:
        return self.lodge.connections.facts()

    async def client(self, data: bytes = b"") -> Client:
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port)))
        self.clients[-1].send(data)
        return self.clients[-1]

    async def idle(self) -> Client:
        """A connection on which a request was answered."""
        idle = self.facts["idle"] + 1
        client = await self.client(asking())
        assert (await client.answer())[0] == 200
        await until(lambda: self.facts["idle"] == idle)
        return client

    async def at_work(self) -> Client:
        """A connection on which a publish is coming in."""
        count = self.facts["open"] + 1
        client = await self.client(uploading(**PUBLISHER) + b"topic=a&data=")
        await until(lambda: self.facts["open"] == count)
        await until(lambda: len(self.lodge.surface._publishing) == self.facts["open"] - self.facts["idle"])
        return client

    async def publisher(self) -> Client:
        """A connection on which a publish was answered."""
        client = await self.at_work()
        client.send(b"x" * (BODY_BYTES - len(b"topic=a&data=")))
        assert (await client.answer())[0] == 200
        assert self.lodge.surface._publishing == set()
        return client

    async def close(self) -> None:
        for client in self.clients:
            client.writer.close()
        for client in self.clients:
            with contextlib.suppress(OSError):
                await client.writer.wait_closed()
        self.door.stop_listening()
        await self.door.finish(0)
        await self.http.close_all_connections()
        await until(lambda: self.facts["open"] == 0)


@pytest.fixture
def site(lodge: Lodge, app: Application, io_loop: IOLoop) -> Iterator[Site]:
    async def build() -> Site:
        return Site(lodge, app)

    built = io_loop.run_sync(build)
    yield built
    io_loop.run_sync(built.close)


# --- how many


@pytest.mark.gen_test
async def test_connections_are_counted_until_they_are_closed(site: Site) -> None:
    clients = [await site.idle() for _ in range(3)]
    assert site.facts == {"open": 3, "idle": 3, "evicted": 0, "refused": 0}
    for left, client in ((2, clients[0]), (1, clients[1])):
        client.writer.close()
        await until(lambda left=left: site.facts["open"] == site.facts["idle"] == left)


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [TWO])
async def test_who_has_been_idle_longest_goes_when_there_are_too_many(site: Site, own_settings: dict[str, Any]) -> None:
    first, second = await site.idle(), await site.idle()
    first.send(asking())
    assert (await first.answer())[0] == 200  # so the second is idle longer now
    third = await site.client(asking())
    assert (await third.answer())[0] == 200
    assert await second.rest() == b""
    assert site.facts == {"open": 2, "idle": 2, "evicted": 1, "refused": 0}
    first.send(asking())
    assert (await first.answer())[0] == 200


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED | TWO])
async def test_a_publisher_does_not_go_for_strangers(site: Site, own_settings: dict[str, Any]) -> None:
    publisher = await site.publisher()
    strangers = [await site.client(asking()) for _ in range(4)]
    for stranger in strangers:
        assert (await stranger.answer())[0] == 200
    for stranger in strangers[:3]:
        assert await stranger.rest() == b""
    assert site.facts == {"open": 2, "idle": 2, "evicted": 3, "refused": 0}
    publisher.send(asking())
    assert (await publisher.answer())[0] == 200
    strangers[3].send(asking(MERCURE, "POST", Content_Length="5"))
    assert (await strangers[3].answer())[0] == 401
    assert (await (await site.client(asking())).answer())[0] == 200, "who may not publish is a stranger"


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED | TWO])
async def test_publishers_that_hold_more_than_half_lock_nobody_out(site: Site, own_settings: dict[str, Any]) -> None:
    first, second = await site.publisher(), await site.publisher()
    assert (await (await site.client(asking())).answer())[0] == 200
    assert await first.rest() == b""
    second.send(asking())
    assert (await second.answer())[0] == 200


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [TWO])
@pytest.mark.parametrize("half", [asking()[:20], b"\r\n"])
async def test_a_head_that_does_not_come_to_its_end_holds_no_place(
    site: Site, own_settings: dict[str, Any], half: bytes
) -> None:
    trickling = await site.idle()
    trickling.send(half)
    await site.idle()
    assert (await (await site.client(asking())).answer())[0] == 200
    assert await trickling.rest() == b""


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [{"max_http_connections": 1}])
async def test_an_answer_that_is_not_taken_holds_no_place(site: Site, own_settings: dict[str, Any]) -> None:
    slow = await site.client()
    slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
    slow.send(asking("/console/console.js") * 3_000)
    held = site.lodge.connections._held
    await until(lambda: held and next(iter(held)).writing())  # type: ignore[attr-defined]
    assert site.facts["idle"] == 1
    assert (await (await site.client(asking())).answer())[0] == 200
    assert site.facts["evicted"] == 1


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED | TWO])
async def test_if_all_are_at_work_the_newcomer_is_told_to_come_back(site: Site, own_settings: dict[str, Any]) -> None:
    at_work = [await site.at_work() for _ in range(2)]
    status, headers, body = await (await site.client(asking(Origin=ORIGIN))).answer()
    assert (status, headers["Connection"]) == (503, "close")
    assert b'"overloaded"' in body
    assert int(headers["Retry-After"]) > 0
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    head = await (await site.client(asking(method="HEAD"))).rest()
    assert head.startswith(b"HTTP/1.1 503 ")
    assert head.endswith(b"\r\n\r\n")
    assert site.facts == {"open": 2, "idle": 0, "evicted": 0, "refused": 2}
    for client in at_work:
        client.send(b"x" * (BODY_BYTES - len(b"topic=a&data=")))
        assert (await client.answer())[0] == 200


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED | {"max_http_connections": 1}])
async def test_so_is_an_event_source_in_its_own_way(site: Site, own_settings: dict[str, Any]) -> None:
    await site.at_work()
    reader = bearer(ringcast={"new": {"subscribe": ["*"]}})
    asked = asking("/channels/new/events", Accept="text/event-stream", **reader)  # it has to wait for its channel
    answer = await (await site.client(asked)).rest()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\nevent: overloaded\n" in answer
    assert answer.partition(b"\r\n\r\n")[2].startswith(b"retry: ")


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [{"max_http_connections": 0}])
async def test_there_may_be_no_limit(site: Site, own_settings: dict[str, Any]) -> None:
    for _ in range(5):
        await site.idle()
    assert site.facts == {"open": 5, "idle": 5, "evicted": 0, "refused": 0}


@pytest.mark.gen_test
async def test_a_connection_counts_until_it_is_a_readers(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = asyncio.Event()

    async def find(*_: object) -> Start:
        await goes_on.wait()
        return Start(None)

    monkeypatch.setattr(Opener, "locate", lambda *_: None)
    monkeypatch.setattr(Opener, "find", find)
    client = await site.client(asking(EVENTS))
    await until(lambda: site.lodge.node.admission.held == 1)
    assert site.facts == {"open": 1, "idle": 0, "evicted": 0, "refused": 0}
    goes_on.set()
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
    assert (site.facts["open"], site.lodge.node.broadcaster.readers) == (0, 1)


# --- how they end


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
async def test_who_may_not_publish_is_told_at_once_and_the_rest_of_the_body_is_dropped(
    site: Site, own_settings: dict[str, Any]
) -> None:
    """The body is sent regardless, as clients do; the answer arrives whole, and then a proper end."""
    client = await site.client(uploading())
    status, headers, _ = await client.answer()
    assert (status, headers["Connection"]) == (401, "close")
    assert headers["WWW-Authenticate"] == "Bearer"
    client.send(b"x" * BODY_BYTES)
    await client.writer.drain()
    assert await client.reader.read() == b""
    assert site.lodge.surface._publishing == set()
    client.writer.close()
    await until(lambda: site.facts["open"] == 0)


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
@pytest.mark.parametrize("framing", [{"Content_Length": "5"}, {"Transfer_Encoding": "chunked"}])
async def test_what_follows_a_refused_publish_is_not_obeyed(
    site: Site, own_settings: dict[str, Any], framing: dict[str, str]
) -> None:
    client = await site.idle()
    form = {"Content_Type": "application/x-www-form-urlencoded"} | framing
    body = b"abcde" if "Content_Length" in framing else b"5\r\nabcde\r\n0\r\n\r\n"
    client.send(asking(MERCURE, "POST", **form) + body + asking())
    assert (await client.answer())[0] == 401
    assert await client.rest() == b""


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
async def test_who_waits_to_be_asked_for_its_body_is_not_asked(site: Site, own_settings: dict[str, Any]) -> None:
    client = await site.client(uploading(Expect="100-continue"))
    assert (await client.answer())[0] == 401
    assert await client.rest() == b""


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED | {"max_http_connections": 1}])
async def test_a_refused_body_holds_no_place(site: Site, own_settings: dict[str, Any]) -> None:
    refused = await site.client(uploading())
    assert (await refused.answer())[0] == 401
    assert (await (await site.client(asking())).answer())[0] == 200
    assert site.facts == {"open": 1, "idle": 1, "evicted": 1, "refused": 0}


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
async def test_a_refused_client_that_does_not_hang_up_is_not_waited_for(
    site: Site, own_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers.http_connections, "LINGER_SECONDS", 0.05)
    client = await site.client(uploading())
    assert (await client.answer())[0] == 401
    await until(lambda: site.facts["open"] == 0)


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED | {"max_body_bytes": 100_000}])
async def test_a_refused_body_is_not_taken_in_without_end(
    site: Site, own_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers.http_connections, "LINGER_SECONDS", 60)
    client = await site.client(uploading(Transfer_Encoding="chunked"))
    assert (await client.answer())[0] == 401
    with contextlib.suppress(ConnectionError):
        while True:
            client.send(b"x" * 65_536)
            await client.writer.drain()
    assert site.facts["open"] == 0


@pytest.mark.gen_test
async def test_every_descriptor_comes_back(site: Site) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for data in (asking(), asking("/nothing", "PUT"), asking(EVENTS), asking("/channels/new/events"),
                 uploading(Origin="https://evil.example"), asking(MERCURE, "HEAD"), b"GET / HTTP/9\r\n\r\n",
                 b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"):  # fmt: skip
        client = await site.client(data)
        assert await client.reader.readuntil(b"\r\n") != b""
        client.writer.transport.abort()
        with contextlib.suppress(OSError):
            await client.writer.wait_closed()
    await until(lambda: site.facts["open"] == 0 and site.lodge.node.broadcaster.readers == 0)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.gen_test
async def test_a_client_that_is_gone_when_it_is_handed_over_costs_nothing(site: Site) -> None:
    near, far = socket.socketpair()
    far.close()
    site.lodge.connections.take(near.detach(), "", asking())
    await until(lambda: site.facts["open"] == 0)
