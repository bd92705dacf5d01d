"""Tokens stay secret in nginx's logs too, whatever goes wrong with a request (S28)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.harness.process import TOKEN_SECRET, Node, free_port, wait_until
from tests.nginx.conftest import Script, StartNginx, StartSocketNode
from tests.nginx.http2 import Http2Stream
from tests.nginx.proxy import Nginx
from tests.threats.tokens import signed

CANARY = "CANARYxQz"
TOGETHER = 16
PATIENCE_SECONDS = 2.0  # longer than nginx and the node wait here for a request that does not end
PATHS = (
    "/channels/main/events",
    "/.well-known/mercure",
    "/channels/NOT-A-NAME/events",
    f"/api/stream/facilities/{CANARY}",
    f"/api/v1/jobs/{CANARY}/events",
    "/bridges/pubsub/p",
    "/nowhere",
    "/health",
    "/stats",
)


def requests(token: str) -> list[bytes]:
    """The token in every place of a request, in those that have an answer and in those that make no sense."""
    host = b"Host: localhost\r\n"
    whole = [
        f"{method} {path}{question} HTTP/1.1\r\nAccept: {accept}\r\n{header}"
        for method in ("GET", "POST", "OPTIONS", "HEAD", "DELETE")
        for path in PATHS
        for accept in ("text/event-stream", "*/*")
        for question, header in (
            (f"?topic=a&authorization={token}", ""),
            (f"%3Fauthorization={token}", ""),
            ("?topic=a", f"Authorization: Bearer {token}\r\nCookie: mercureAuthorization={token}\r\n"),
            ("?topic=a", f"Referer: https://localhost/?authorization={token}\r\nUser-Agent: {token}\r\n"),
        )
    ]
    made = [line.encode() + host + b"Connection: close\r\nContent-Length: 0\r\n\r\n" for line in whole]
    path = f"/channels/main/events?authorization={token}"
    return [
        *made,
        f"GET {path}".encode(),
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}".encode(),
        f"GET {path}\0 HTTP/1.1\r\n".encode() + host + b"\r\n",
        f"GET {path}&{'a' * 70_000} HTTP/1.1\r\n".encode() + host + b"\r\n",
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Long: {'a' * 70_000}\r\n\r\n".encode(),
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthor ization: {token}\r\n\r\n".encode(),
        f"GET {path} HTTP/1.1\r\nHost: a b\r\nAuthorization: {token}\r\n\r\n".encode(),
        f"GET {path} HTTP/1.1\r\n\r\n".encode(),
        f"GET {path} HTTP/3.7\r\n".encode() + host + b"\r\n",
        f"GET {path} HTTP/1.1\r\nHost: {token}\r\nConnection: close\r\n\r\n".encode(),
        f"GET https://{token}/?authorization={token} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(),
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n".encode(),
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n".encode(),
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz{token}\r\n".encode(),
        f"{token} {path} HTTP/1.1\r\n".encode() + host + b"\r\n",
        f"{token.upper()} / HTTP/1.1\r\n".encode() + host + b"Connection: close\r\n\r\n",
        f"{token}\r\n\r\n".encode(),
    ]


def spread(front: Nginx, token: str) -> None:
    """Send them all, each on a connection of its own, and wait for the first bytes of an answer."""

    def send(raw: bytes) -> None:
        with contextlib.suppress(OSError, ssl.SSLError), front.connect() as connection:
            connection.sendall(raw)
            connection.settimeout(PATIENCE_SECONDS)
            connection.recv(65536)

    with ThreadPoolExecutor(TOGETHER) as clients:
        list(clients.map(send, requests(token)))


def check_silent(front: Nginx, *secrets: str) -> None:
    """Nothing of it in any file that nginx wrote, and yet a line for every request that had a head."""
    assert front.stop() == 0
    for path in front.folder.rglob("*"):
        if path.is_file():
            text = path.read_bytes().lower()
            for secret in secrets:
                assert secret.lower().encode() not in text, (
                    path,
                    [line for line in text.split(b"\n") if secret in str(line)],
                )
    assert len(front.access()) > 200


def keyed(socket_node: StartSocketNode) -> Node:
    return socket_node(jwt_secret=TOKEN_SECRET, body_seconds=1, header_seconds=1)


GENTLE = {
    "rate=50r/s": "rate=10000r/s",
    "client_header_timeout 10s;": "client_header_timeout 1s;",
    "client_body_timeout   10s;": "client_body_timeout   1s;",
}


def test_no_log_holds_a_token_while_a_node_answers(socket_node: StartSocketNode, nginx: StartNginx) -> None:
    """S28: 200, 400, 401, 403, 404, 405, 413, 414, 431, timeouts, and over HTTP/2."""
    front = nginx(keyed(socket_node), changes=GENTLE)
    good = signed({"sub": CANARY, "mercure": {"subscribe": ["*"], "publish": ["*"]}})
    spread(front, f"{good[:-6]}{CANARY}")
    spread(front, good)
    with Http2Stream(front, f"/channels/main/events?authorization={good}") as stream:
        assert b"200" in stream.head
    check_silent(front, CANARY, good.split(".")[1], good.split(".")[2])


def test_no_log_holds_a_token_while_no_node_answers(nginx: StartNginx) -> None:
    """S28: refused over TCP, and a Unix socket that is not there, which nginx counts as critical."""
    front = nginx(f"127.0.0.1:{free_port()}", "unix:/nowhere/ringcast.sock", changes=GENTLE)
    spread(front, CANARY)
    check_silent(front, CANARY)


@pytest.mark.parametrize("alone", [True, False])
def test_no_log_holds_a_token_while_a_node_stands_still_or_hangs_up(
    socket_node: StartSocketNode, scripted: Script, nginx: StartNginx, alone: bool
) -> None:
    """S28: time-outs while connected; beside it a node whose answers break off, which is asked more often as it keeps
    nobody waiting.
    """
    node = keyed(socket_node)
    half = scripted(*[b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"] * 1000)
    nodes = [node] if alone else [node, f"127.0.0.1:{half.port}"]
    front = nginx(*nodes, changes=GENTLE | {"proxy_read_timeout 75s;": "proxy_read_timeout 100ms;"})
    os.kill(node.pid, signal.SIGSTOP)
    try:
        spread(front, CANARY)
    finally:
        os.kill(node.pid, signal.SIGCONT)
    check_silent(front, CANARY)
    timeouts = sum("504" in line["node_status"] for line in front.access())
    assert timeouts > (300 if alone else 0)


def test_no_log_holds_a_token_of_those_over_a_limit(socket_node: StartSocketNode, nginx: StartNginx) -> None:
    """S28: nginx reports who is limited, request line and all."""
    few = {"rate=50r/s": "rate=1r/s", "client_header_timeout 10s;": "client_header_timeout 1s;"}
    front = nginx(keyed(socket_node), changes=few)
    spread(front, CANARY)
    check_silent(front, CANARY)
    assert sum(line["status"] == 429 for line in front.access()) > 5


def test_what_is_wrong_with_nginx_itself_is_still_written_down(nginx: StartNginx) -> None:
    """The silence is about requests: a configuration that cannot be loaded has its line."""
    front = nginx(f"127.0.0.1:{free_port()}")
    front.change({"keepalive 64;": "keepalive many;"})
    assert front.process is not None
    front.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "invalid value" in front.errors(), 10, "a line in the error log")


def test_a_line_is_json_whatever_a_client_calls_its_method(nginx: StartNginx) -> None:
    """S46: no line is forged."""
    front = nginx(f"127.0.0.1:{free_port()}")
    for raw in (b'GET /"\\,{} HTTP/1.1', b"X-Y_Z /\xff\x1b[2J HTTP/1.1", b"GET /a%0a%22b HTTP/1.1"):
        with contextlib.suppress(OSError, ssl.SSLError), front.connect() as connection:
            connection.sendall(raw + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
            connection.recv(65536)
    assert front.stop() == 0
    lines = front.access_log.read_text().splitlines()
    assert len(lines) == 3
    assert all(set(json.loads(line)) == set(json.loads(lines[0])) for line in lines)
