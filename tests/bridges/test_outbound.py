"""S48: requests to addresses that strangers name lead to public addresses alone, and read little of what comes back.

A canary listens on the loopback interface: where a request must not go there, it must not even have been connected to.
"""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from bridges import addresses
from bridges.addresses import is_permitted
from bridges.outbound import RESOLVING_THREADS, Answer, Outbound, OutboundFailed, OutboundRefused, PutOff
from tests.bridges.canary import Serve, canary, guard, reason_of, run

PUBLIC = "93.184.215.14"


# --- where it may lead


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.9.9.9", "169.254.169.254", "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "224.0.0.1", "239.1.1.1", "240.0.0.1",
        "255.255.255.255", "192.0.2.1", "::", "::1", "fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "2002:7f00:1::", "2001::1", "2001:db8::1",
        "::127.0.0.1", "::ffff:0:7f00:1", "64:ff9b:1::7f00:1", "fec0::1", "3fff::1", "5f00::1", "192.88.99.1",
        "168.63.129.16", "100.100.100.200", "not an address", "",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_blocked(address: str) -> None:
    assert not is_permitted(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", PUBLIC, "172.15.255.255", "172.32.0.1", "100.63.0.1", "2606:4700::1111"]
)
def test_a_public_address_is_permitted(address: str) -> None:
    assert is_permitted(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "192.168.1.1", "::1", "fd12::1"])
def test_an_own_network_is_permitted_where_the_operator_says_so(address: str) -> None:
    assert is_permitted(address, allow_private=True)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "fe80::1", "0.0.0.0", "::ffff:127.0.0.1", "224.0.0.1", "::", "100.100.100.200",
        "168.63.129.16", "fd00:ec2::254", "fd20:ce::254",
    ],
)  # fmt: skip
def test_where_clouds_keep_secrets_is_blocked_even_then(address: str) -> None:
    assert not is_permitted(address, allow_private=True)


def test_an_address_of_this_machine_is_blocked_though_it_is_a_public_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What listens here may be shut off from outside alone. As if the loopback's addresses were public ones."""
    monkeypatch.setattr(addresses, "BLOCKED", ())
    monkeypatch.setattr(ipaddress.IPv4Address, "is_global", True)
    assert not is_permitted("127.0.0.1")
    assert is_permitted("127.0.0.1", allow_private=True)
    assert is_permitted(PUBLIC)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "localhost",
        "localhost.", "LOCALHOST", "ⓛocalhost", "[::1]", "[::ffff:127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]", "0", "0.0.0.0", "%31%32%37.0.0.1", "127。0。0。1",
    ],
)  # fmt: skip
def test_no_spelling_of_this_machine_is_connected_to(host: str) -> None:
    """S48: decimal, octal, hexadecimal, mapped, escaped, full-width."""

    async def work() -> None:
        async with canary() as listening, guard(ports=[listening.port]) as outbound:
            reason = await reason_of(outbound.get(f"http://{host}:{listening.port}/"))
            assert "public" in reason
            assert listening.connections == 0

    run(work)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://example.com/", "http"), ("file:///etc/passwd", "http"), ("unix:/run/docker.sock", "http"),
        ("gopher://example.com/", "http"), ("http+unix://x/", "http"), ("javascript:alert(1)", "http"),
        ("http://user:password@example.com/", "user name"), ("http://example.com@127.0.0.1/", "user name"),
        ("http://example.com:22/", "port 22"), ("http://example.com:99999/", "not a URL"), ("", "not a URL"),
        ("//example.com/", "not a URL"), ("http://", "not a URL"), ("http://exa\nmple.com/", "control"),
        ("http://\ud800/", "control"), ("http://1.2.3.4.5/", "not a URL"), ("http://" + "a" * 2_000, "2000"),
        ("http://example.com/" + "ä" * 1_000, "2000"), ("http://" + "a." * 127 + "example/", "no name"),
        ("http://./", "no name"),
        ("http://[fe80::1%25eth0]/", "not a URL"),
    ],
)  # fmt: skip
def test_what_a_url_must_not_be(url: str, reason: str) -> None:
    async def work() -> None:
        async with guard() as outbound:
            assert reason in await reason_of(outbound.get(url))

    run(work)


def test_a_url_is_read_as_browsers_read_it() -> None:
    """Backslashes, tabs and letters that look alike: what is checked is what is used."""

    async def work() -> None:
        async with guard(ports=[80, 443, 8080]) as outbound:
            target = outbound.target("HTTPS:\\\\EXÄmple.com.:8080\\a b?c d#e")
            assert (target.host, target.port, target.secure) == ("xn--exmple-cua.com", 8080, True)
            assert (target.path, target.host_header) == ("/a%20b?c%20d", "xn--exmple-cua.com:8080")
            assert outbound.target("http://[2606:4700::1111]/").host_header == "[2606:4700::1111]"
            assert outbound.target("https://example.com:443").host_header == "example.com"

    run(work)


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], [PUBLIC, "127.0.0.1"], ["2606:4700::1111", "10.0.0.1"], ["::ffff:127.0.0.1"], []]
)
def test_a_name_with_any_address_that_is_not_public_is_refused(addresses: Sequence[str]) -> None:
    """One of several would be enough for an attacker who tries again. And a name that is not there says the same."""

    async def work() -> None:
        async def resolve(_host: str, _port: int) -> Sequence[str]:
            return addresses

        async with canary() as listening, guard(ports=[listening.port], resolve=resolve) as outbound:
            reason = await reason_of(outbound.get(f"http://name.example:{listening.port}/"))
            assert reason == "the name does not lead to a public address"
            assert listening.connections == 0

    run(work)


def test_a_name_that_is_led_elsewhere_in_between_is_not_followed() -> None:
    """S48, rebinding: resolved once; the connection goes to the address that was checked."""

    async def work() -> None:
        asked: list[str] = []

        async def resolve(host: str, _port: int) -> Sequence[str]:
            asked.append(host)
            return ["203.0.114.1"] if len(asked) == 1 else ["127.0.0.1"]  # public once, then this machine

        async with canary() as listening:
            async with guard(ports=[listening.port], resolve=resolve, connect_seconds=0.2) as outbound:
                await reason_of(outbound.get(f"http://rebind.example:{listening.port}/"))
                assert asked == ["rebind.example"]
                assert listening.connections == 0
                assert "public" in await reason_of(outbound.get(f"http://rebind.example:{listening.port}/"))
                assert listening.connections == 0

    run(work)


# --- what is sent, and redirects


def test_a_request_names_the_host_and_holds_nothing_else() -> None:
    async def work() -> None:
        async def resolve(_host: str, _port: int) -> Sequence[str]:
            return ["127.0.0.1"]

        async with canary() as listening:
            async with guard(ports=[listening.port], allow_private=True, resolve=resolve) as outbound:
                answer = await outbound.get(f"http://name.example:{listening.port}/path?a=b#c")
        assert (answer.status, answer.body, answer.truncated, answer.certificate) == (200, b"hi", False, None)
        assert 0 < answer.seconds < 5
        assert listening.requests == [
            f"GET /path?a=b HTTP/1.1\r\nHost: name.example:{listening.port}\r\nUser-Agent: Ringcast\r\n"
            "Accept: */*\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n"
        ]

    run(work)


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


def test_a_redirect_is_an_answer() -> None:
    async def work() -> None:
        async with canary(redirect("http://169.254.169.254/latest/meta-data/")) as listening:
            async with guard(ports=[listening.port], allow_private=True) as outbound:
                answer = await outbound.get(f"http://127.0.0.1:{listening.port}/")
                assert (answer.status, listening.connections) == (302, 1)

    run(work)


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data/", "public"),
        ("http://[::ffff:169.254.169.254]/", "public"),
        ("file:///etc/passwd", "http"),
        ("http://user@example.com/", "user name"),
        ("http://example.com:22/", "port 22"),
        ("http://[", "no URL"),
    ],
)
def test_a_redirect_that_is_followed_is_judged_like_the_first_url(location: str, reason: str) -> None:
    async def work() -> None:
        async with canary(redirect(location)) as listening:
            async with guard(ports=[80, listening.port], allow_private=True) as outbound:
                assert reason in await reason_of(outbound.get(f"http://127.0.0.1:{listening.port}/", redirects=5))
                assert listening.connections == 1

    run(work)


def test_redirects_that_lead_in_a_circle_come_to_an_end() -> None:
    """S48: a chain of eleven."""

    async def work() -> None:
        async with canary(redirect("/again", 307)) as listening:
            async with guard(ports=[listening.port], allow_private=True) as outbound:
                assert "redirects" in await reason_of(outbound.get(f"http://127.0.0.1:{listening.port}/", redirects=10))
                assert listening.connections == 11
                assert listening.requests[-1].startswith("GET /again ")

    run(work)


def test_somebody_may_be_asked_about_the_address_first() -> None:
    async def work() -> None:
        def no(address: str) -> None:
            raise OutboundRefused(f"not {address}")

        async with canary() as listening:
            async with guard(ports=[listening.port], allow_private=True) as outbound:
                url = f"http://127.0.0.1:{listening.port}/"
                assert await reason_of(outbound.get(url, permit=no)) == "not 127.0.0.1"
                assert listening.connections == 0

    run(work)


def test_somebody_is_asked_about_each_address_that_is_tried() -> None:
    """S48: or a name's second address would be asked as often as its owner likes."""

    async def work() -> None:
        asked: list[str] = []

        async def resolve(_host: str, _port: int) -> Sequence[str]:
            return ["127.0.0.2", "127.0.0.1"]

        def permit(address: str) -> None:
            asked.append(address)
            if len(asked) > 2:
                raise PutOff("enough")

        async with canary() as listening:  # on 127.0.0.1 alone
            async with guard(ports=[listening.port], allow_private=True, resolve=resolve) as outbound:
                url = f"http://name.example:{listening.port}/"
                assert (await outbound.get(url, permit=permit)).status == 200
                assert asked == ["127.0.0.2", "127.0.0.1"]
                with pytest.raises(PutOff):
                    await outbound.get(url, permit=permit)
                assert (asked[2:], listening.connections) == (["127.0.0.2"], 1)

    run(work)


def test_names_that_are_not_answered_take_their_threads_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """S48: whoever has names that take long holds up nobody who asks for none; a look-up that can't begin says nothing
    of the name."""

    async def work() -> None:
        end = threading.Event()
        monkeypatch.setattr("bridges.outbound.socket.getaddrinfo", lambda *_, **__: end.wait(20) and [])
        async with canary() as listening, guard(ports=[listening.port], allow_private=True) as outbound:
            slow = [
                asyncio.ensure_future(reason_of(outbound.get(f"http://slow.example:{listening.port}/", seconds=0.1)))
                for _ in range(RESOLVING_THREADS)
            ]
            assert "no whole answer" in (await asyncio.gather(*slow))[0]
            with pytest.raises(PutOff):
                await outbound.get(f"http://other.example:{listening.port}/")
            assert (await outbound.get(f"http://127.0.0.1:{listening.port}/")).status == 200
            end.set()
            async with asyncio.timeout(10):
                while not await _is_free(outbound, listening.port):  # noqa: ASYNC110 - threads end when they do
                    await asyncio.sleep(0.01)

    async def _is_free(outbound: Outbound, port: int) -> bool:
        try:
            await outbound.get(f"http://other.example:{port}/")
        except PutOff:
            return False
        except OutboundRefused:
            return True
        raise AssertionError("there are no names here")

    run(work)


# --- what is read


async def ask(answer: bytes | Serve, **options: Any) -> Answer:
    async with canary(answer) as listening:
        async with guard(ports=[listening.port], allow_private=True, **options) as outbound:
            return await outbound.get(f"http://127.0.0.1:{listening.port}/")


def test_a_body_without_end_is_cut() -> None:
    """S48: of 10 GB, 64 KB are read."""

    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    async def work() -> None:
        answer = await ask(endless)
        assert (answer.status, len(answer.body), answer.truncated) == (200, 65_536, True)

    run(work)


def test_a_body_in_pieces_of_a_byte_is_cut_too() -> None:
    async def crumbs(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1;" + b"e" * 400 + b"\r\nx\r\n")
            await writer.drain()

    async def work() -> None:
        answer = await ask(crumbs, max_body_bytes=1_000)
        assert answer.status == 200
        assert len(answer.body) <= 1_000

    run(work)


def test_a_packed_body_is_not_unpacked() -> None:
    """S48: a gzip bomb stays the few bytes that it is."""

    async def work() -> None:
        bomb = gzip.compress(b"\0" * 50_000_000)
        head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
        answer = await ask(head + bomb)
        assert answer.body == bomb[:65_536]

    run(work)


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nX-A", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"])
def test_an_answer_that_drips_has_an_end(begin: bytes) -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        await reader.read()  # until the other side has had enough

    async def work() -> None:
        began = time.monotonic()
        with pytest.raises(OutboundFailed, match=r"no whole answer within 0\.3 s"):
            await ask(slow, total_seconds=0.3)
        assert time.monotonic() - began < 5

    run(work)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "ended before"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000, "too long"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000, "too long"),
    ],
)
def test_what_is_no_answer(answer: bytes, reason: str) -> None:
    async def work() -> None:
        assert reason in await reason_of(ask(answer))

    run(work)


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nx", 404, b"x"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\ngarbage", 200, b"hi"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", 200, b"cut"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n\0\1", 101, b""),
    ],
)
def test_the_forms_of_an_answer(answer: bytes, status: int, body: bytes) -> None:
    async def work() -> None:
        found = await ask(answer)
        assert (found.status, found.body) == (status, body)

    run(work)


def test_a_port_where_nobody_listens() -> None:
    async def work() -> None:
        async with canary() as listening:
            port = listening.port
        async with guard(ports=[port], allow_private=True) as outbound:
            assert await reason_of(outbound.get(f"http://127.0.0.1:{port}/")) == "the connection was refused"

    run(work)


def test_an_address_that_swallows_everything_is_given_up_soon() -> None:
    """A full accept queue drops the handshake, as a firewall would."""

    async def work() -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        port = listener.getsockname()[1]
        held = [socket.socket() for _ in range(4)]
        for one in held:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        try:
            async with guard(ports=[port], allow_private=True, connect_seconds=0.2) as outbound:
                assert await reason_of(outbound.get(f"http://127.0.0.1:{port}/")) == "no connection within 0.2 s"
        finally:
            for one in [*held, listener]:
                one.close()

    run(work)
