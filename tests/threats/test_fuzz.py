"""10,000 mutated requests, to the door and to each endpoint behind it; afterwards everything works as before."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.stream import Stream
from tests.threats.conftest import ORIGIN, finish
from tests.threats.mutations import mutants, seeds
from tests.threats.neighbours import Neighbours
from tests.threats.process_facts import cpu_share, descriptors, rss_bytes
from tests.threats.tokens import bearer, signed
from tests.threats.wire import FIRST, answered, request

TOGETHER = 48
PATIENCE_SECONDS = 6


class Shot:
    """One fuzzed request on a connection of its own. Every fifth hangs up with RST, the others say goodbye and read to
    the end.
    """

    __slots__ = ("answer", "begun", "payload", "rude", "sent", "socket")

    def __init__(self, port: int, number: int, payload: bytes) -> None:
        self.payload = payload
        self.rude = number % 5 == 4
        # A third each: first of a connection, behind a plain page, behind a publish. Different code reads them.
        self.sent = (b"", FIRST["later"], FIRST["published"])[number % 3] + payload
        self.answer = b""
        self.begun = time.monotonic()
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)

    def push(self) -> None:
        """Send what can be sent; then say goodbye."""
        if not self.sent:
            return
        try:
            self.sent = self.sent[self.socket.send(self.sent) :]
            if not self.sent and not self.rude:
                self.socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:
            self.sent = b""

    def pull(self) -> bool:
        """Read what is there; True once it is over. (All of it: edge-triggered, epoll tells of it once.)"""
        try:
            while got := self.socket.recv(65536):
                self.answer = (self.answer + got)[:65536]
                if self.rude and not self.sent:
                    return True
        except BlockingIOError:
            return False
        except OSError:
            pass  # reset: over as well
        return True

    def hang_up(self) -> None:
        if self.rude:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def statuses(self) -> list[bytes]:
        """The status of each answer on the connection, as far as it was kept."""
        return [line[9:12] for line in self.answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def fire(port: int, payloads: Iterable[bytes]) -> list[Shot]:
    """Send all, some at a time; those that got an answer no server should give, or none for too long."""
    bad: list[Shot] = []
    poll = select.epoll()
    flying: dict[int, Shot] = {}
    waiting = enumerate(payloads)
    more = True
    while more or flying:
        while more and len(flying) < TOGETHER:
            number, payload = next(waiting, (-1, b""))
            more = number >= 0
            if more:
                shot = Shot(port, number, payload)
                flying[shot.socket.fileno()] = shot
                poll.register(shot.socket.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        for descriptor, _ in poll.poll(0.05):
            shot = flying[descriptor]
            shot.push()
            if shot.pull():
                del flying[descriptor]
                _judge(shot, bad)
        for shot in [
            shot for shot in flying.values() if time.monotonic() - shot.begun > (0.2 if shot.rude else PATIENCE_SECONDS)
        ]:
            del flying[shot.socket.fileno()]
            _judge(shot, bad, late=not shot.rude)
    poll.close()
    return bad


def _judge(shot: Shot, bad: list[Shot], *, late: bool = False) -> None:
    if late or b"500" in shot.statuses() or (shot.answer and not shot.answer.startswith(b"HTTP/1.")):
        bad.append(shot)
    shot.hang_up()


@pytest.mark.parametrize("keyed", [False, True], ids=["open", "keyed"])
def test_ten_thousand_bad_requests_change_nothing(tmp_path: Path, keyed: bool) -> None:
    """5,000 to an open node and 5,000 to one with a key: no 500, no hang, no event lost by neighbours, memory and
    descriptors back, at rest.
    """
    settings = {"jwt_secret": TOKEN_SECRET, "allowed_origins": ORIGIN} if keyed else {}
    node = Node(
        tmp_path,
        drain_seconds=0,
        header_seconds=2,
        body_seconds=2,
        ring_events=500,
        ring_bytes=1 << 20,
        idempotency_keys=100,
        **settings,
    ).start()
    token = signed() if keyed else None
    headers = {"Authorization": bearer(token)} if token else {}
    try:
        valid = seeds(token)
        fire(node.port, mutants(1, 600, valid))
        before, files = rss_bytes(node.pid), len(descriptors(node.pid))
        with Neighbours(node.port, every=0.05, **headers):
            bad = fire(node.port, mutants(20 + keyed, 5000, valid))
        assert not bad, [(len(shot.payload), shot.payload[:300], shot.answer[:300]) for shot in bad[:5]]
        wait_until(lambda: len(descriptors(node.pid)) <= files, 5, "descriptors back at their number before")
        assert rss_bytes(node.pid) - before < 12_000_000
        assert cpu_share(node.pid, 0.5) < 0.1
        _everything_works(node, headers)
    finally:
        finish(node)


def _everything_works(node: Node, headers: dict[str, str]) -> None:
    with Stream(node.port, "/channels/main/events?topic=after", **headers) as stream:
        assert stream.next_event().type == "hello"
        raw = request(
            "POST",
            "/.well-known/mercure",
            b"topic=after&data=one",
            Content_Type="application/x-www-form-urlencoded",
            **headers,
        )
        assert answered(node.port, raw).status == 200
        raw = request(
            "POST",
            "/channels/main/events",
            b'{"topic": "after", "data": "two"}',
            Content_Type="application/json",
            **headers,
        )
        assert answered(node.port, raw).status == 200
        assert [event.data for event in stream.events(2)] == ["one", "two"]
    for path in ("/health", "/ready", "/stats", "/metrics", "/"):
        assert node.get(path, **headers)[0] == 200
