"""Tokens stay secret: nothing of them in a log, a metric, a statistic or an answer."""

from __future__ import annotations

import http.client
from pathlib import Path

from tests.harness.process import TOKEN_SECRET, Node
from tests.threats.conftest import ORIGIN, finish
from tests.threats.tokens import EVERYTHING, bearer, signed
from tests.threats.wire import FIRST, WAYS, Wire, ask, request

PATH = "/channels/main/events"
CANARY = "CANARYx7Qz"
OPERATOR = bearer(signed({"ringcast": {"operate": True}}))


def spread(port: int, token: str) -> bytes:
    """Bring a token in every way to every kind of answer; all that was answered."""
    said = b""
    places = [
        {"Authorization": bearer(token)},
        {"Authorization": token},
        {"Authorization": f"Basic {token}"},
        {"Cookie": f"mercureAuthorization={token}; a={token}"},
    ]
    paths = [
        "/.well-known/mercure?topic=a",
        "/.well-known/mercure",
        "/channels/main/events",
        "/channels/none-such/events",
        "/nowhere",
        "/health",
        "/stats",
    ]
    for way in WAYS:
        for path in paths:
            for headers in [*places, {"Origin": "https://evil.example", "Authorization": bearer(token)}]:
                for method in ("GET", "POST", "DELETE", "OPTIONS", "HEAD") if way == "first" else ("GET", "POST"):
                    said += _said(port, request(method, path, **headers), way)
            question = f"{path}{'&' if '?' in path else '?'}authorization={token}"
            for raw in (
                request("GET", question),
                request("POST", question, b"topic=a"),
                request("GET", question, Referer=f"http://x/?authorization={token}"),
            ):
                said += _said(port, raw, way)
    return said


def _said(port: int, raw: bytes, way: str) -> bytes:
    answer = ask(port, raw, way)
    return b"" if answer is None else str(answer).encode()


def accidents(port: int, token: str) -> None:
    """Requests that break off or make no sense, with the token in them."""
    for raw in (
        f"GET /channels/main/events?authorization={token}".encode(),
        f"GET {PATH}?authorization={token} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}".encode(),
        f"GET /channels/main/events?authorization={token}\x00 HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        f"GET /?authorization={token}&{'a' * 100_000} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        f"GET /health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nBroken\r\n\r\n".encode(),
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: x\r\n\r\n".encode(),
        f"{token} / HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        b"GET /channels/main/events HTTP/1.1\r\nHost: x\r\nCookie: mercureAuthorization="
        + token.encode()
        + b"\xff\r\n\r\n",
    ):
        for prefix in (b"", *FIRST.values()):
            connection = Wire(port)
            connection.send(prefix + raw)
            connection.close()


def test_no_log_metric_or_answer_holds_a_token(tmp_path: Path) -> None:
    """S28: a canary in good, expired, forged and broken tokens, through 200, 400, 401, 403, 404, 405, 413 and broken
    requests: found nowhere.
    """
    node = Node(
        tmp_path,
        drain_seconds=0,
        jwt_secret=TOKEN_SECRET,
        allowed_origins=ORIGIN,
        log_level="debug",
        log_format="json",
        query_token=True,
    ).start()
    good = signed(EVERYTHING | {"sub": "a"})
    expired = signed(EVERYTHING | {"exp": 1})
    tokens = [good, expired, f"{good[:-6]}{CANARY}", f"{CANARY}.{CANARY}.{CANARY}", CANARY, f"{CANARY} {CANARY}"]
    try:
        said = b"".join(spread(node.port, token) for token in tokens)
        for token in tokens:
            accidents(node.port, token)
        for path in ("/metrics", "/stats", "/ready", "/health", "/"):
            said += node.get(path, Authorization=OPERATOR)[2]
    finally:
        finish(node)
    everything = said + node.log_path.read_bytes()
    for secret in (CANARY, good.split(".")[2], expired.split(".")[2], good.split(".")[1], TOKEN_SECRET):
        assert secret.encode() not in everything, secret


def test_a_token_in_the_query_can_be_turned_off(tmp_path: Path) -> None:
    """S28: with query_token off it is as if it were not there."""
    node = Node(tmp_path, drain_seconds=0, jwt_secret=TOKEN_SECRET, query_token=False).start()
    try:
        for way in WAYS:
            answer = ask(node.port, request("GET", f"/.well-known/mercure?topic=a&authorization={signed()}"), way)
            assert answer is not None and answer.status == 401
    finally:
        finish(node)


def test_settings_are_shown_without_the_secret(tmp_path: Path) -> None:
    """S28: what the server prints at start does not contain its key."""
    node = Node(tmp_path, drain_seconds=0, jwt_secret=TOKEN_SECRET, log_level="debug").start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", node.port)
        for path in ("/", "/health", "/ready", "/stats", "/metrics"):
            connection.request("GET", path)
            assert TOKEN_SECRET.encode() not in connection.getresponse().read()
        connection.close()
    finally:
        finish(node)
    assert TOKEN_SECRET not in node.log()
