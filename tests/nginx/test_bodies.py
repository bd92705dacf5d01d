"""What a node takes nginx lets through: no body of a size that the node promises to take is refused on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from bridges.pubsub import MAX_ENVELOPE_BYTES
from config.settings import Settings
from tests.apps.jobbing import ROOT as JOBS
from tests.bridges.conftest import bridge, mapping, settings, state
from tests.bridges.google import AUDIENCE, EMAIL, PATH, SUBSCRIPTION, Accounts, envelope, token
from tests.harness.process import TOKEN_SECRET, free_port, wait_until
from tests.nginx.conftest import StartNginx, StartSocketNode
from tests.nginx.proxy import Nginx

JSON = "application/json"
HARDLY_ANY = {"rate=50r/s": "rate=1r/m", "burst=200 nodelay": "burst=5 nodelay"}


@pytest.fixture
def pushed(socket_node: StartSocketNode) -> Iterator[str]:
    """Address of a node with a bridge for pushes. Beside it nothing needs a token of Google's."""
    accounts = Accounts()
    # Of a large message the event has its order alone: it fits whatever the message holds.
    wanted = bridge(
        "pubsub", "p", mapping(SUBSCRIPTION, data="{attributes.order}"), delivery="push", audience=AUDIENCE, email=EMAIL
    )
    node = socket_node(**settings(wanted, pubsub_jwks_url=accounts.url, jwt_secret=TOKEN_SECRET, anonymous=True))
    wait_until(lambda: state(node, "p") == "ok", what="the issuer's keys")
    yield f"unix:{node.settings['socket']}"
    accounts.close()


def push(front: Nginx, body: bytes, bearer: str) -> int:
    """The status of a push."""
    return front.request("POST", PATH, body, Authorization=f"Bearer {bearer}", Content_Type=JSON)[0]


def sized(message_id: str, size_bytes: int) -> bytes:
    """A push of exactly so many bytes."""
    short = json.dumps(envelope(message_id)).encode()
    return short + b" " * (size_bytes - len(short))


def test_a_push_of_any_size_that_the_bridge_takes_gets_through(nginx: StartNginx, pushed: str) -> None:
    """A status but 204 is a push that Google repeats without end: 2 MB of a message, and the largest of all."""
    front = nginx(pushed)
    with front.stream("/channels/main/events?topic=t") as stream:
        assert stream.next_event().type == "hello"
        assert push(front, json.dumps(envelope("large", "x" * 2_000_000)).encode(), token()) == 204
        assert push(front, sized("largest", MAX_ENVELOPE_BYTES), token()) == 204
        assert [event.data for event in stream.events(2)] == ["7", "7"]
    assert push(front, sized("larger", MAX_ENVELOPE_BYTES + 1), token()) == 413


def test_pushes_are_not_counted(nginx: StartNginx, pushed: str) -> None:
    """All of Google is a few addresses. Everybody else is counted as ever."""
    front = nginx(pushed, changes=HARDLY_ANY)
    good = token()
    assert [push(front, sized(str(number), 1_000), good) for number in range(40)] == [204] * 40
    assert [front.get("/health")[0] for _ in range(10)] == [200] * 6 + [429] * 4


def test_a_stranger_s_push_is_refused_before_its_body_comes(nginx: StartNginx, pushed: str) -> None:
    """By its head, so nothing of it is kept anywhere; who sends all of it nevertheless gets the same answer."""
    front = nginx(pushed)
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token(aud='https://else.where')}\r\n"
    with front.connect() as connection:
        connection.sendall(f"{head}Content-Length: {MAX_ENVELOPE_BYTES}\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
    assert push(front, sized("refused", MAX_ENVELOPE_BYTES), "no token") == 401


def test_a_push_goes_to_the_next_node_where_one_is_away(nginx: StartNginx, pushed: str) -> None:
    """That its body is not held back costs it nothing: to a node that refused none of it was sent."""
    front = nginx("unix:/nowhere/ringcast.sock", pushed)
    assert [push(front, sized(str(number), 2_000_000), token()) for number in range(6)] == [204] * 6
    assert front.stop() == 0
    assert {(line["path"], line["status"]) for line in front.access()} == {(PATH, 204)}


def test_a_push_to_nobody_is_refused_as_everything_is(nginx: StartNginx) -> None:
    """With a status and never with the 200 of a stream, which Google would take for an acknowledgement."""
    front = nginx(f"127.0.0.1:{free_port()}")
    for accept in ("*/*", "text/event-stream"):
        status, headers, body = front.request("POST", PATH, sized("a", 1_000), Accept=accept, Content_Type=JSON)
        assert (status, json.loads(body)["code"]) == (502, "unavailable")
        assert 2 <= int(headers["retry-after"]) <= 9


def test_a_batch_and_a_job_may_be_as_large_as_a_node_takes_them(
    socket_node: StartSocketNode, nginx: StartNginx
) -> None:
    """The node's bounds, to the byte for a batch."""
    front = nginx(socket_node(apps="jobs"))
    most = Settings().max_body_bytes
    line = json.dumps({"topic": "a", "data": "x" * 1_000}).encode() + b"\n"
    batch = (line * (most // len(line))).ljust(most)
    path = "/channels/main/events"
    assert front.request("POST", path, batch, Content_Type="application/x-ndjson")[0] == 200
    assert front.request("POST", path, batch + b" ", Content_Type="application/x-ndjson")[0] == 413
    wanted = {"topics": ["technology"], "texts": ["\u20ac" * 20_000] * 5}
    for escaped in (False, True):
        body = json.dumps(wanted, ensure_ascii=escaped).encode()
        assert 300_000 < len(body) < most
        assert front.request("POST", JOBS, body, Content_Type=JSON)[0] == 201
