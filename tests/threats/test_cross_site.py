"""Other people's pages, caches, and values that are sent back in headers."""

from __future__ import annotations

import json

import pytest

from tests.harness.process import Node, wait_until
from tests.threats.conftest import ORIGIN
from tests.threats.process_facts import descriptors
from tests.threats.tokens import bearer, signed
from tests.threats.wire import WAYS, Answer, answered, ask, request, wire

COOKIE = {"Cookie": f"mercureAuthorization={signed()}"}
PATH = "/.well-known/mercure?topic=a"
EVIL = [
    "https://evil.example", "null", "http://app.example", "https://app.example.evil.example",
    "https://evilapp.example", "https://app.example:444",
    "https://app.exampl\u00e9", "HTTPS://APP.EXAMPLE/", "https://app.example/",
    "https://app.example https://evil.example", "https://app.example,https://evil.example",
    "https://x@app.example", "file://", "https://appXexample", "*", "https://app.example\x00", "https://app.example.",
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("origin", EVIL)
def test_a_foreign_page_gets_no_stream_and_holds_no_place(keyed_node: Node, origin: str, way: str) -> None:
    """S29: with the visitor's cookie, from any origin but the listed one: 403, nothing readable, no connection kept."""
    before = len(descriptors(keyed_node.pid))
    with wire(keyed_node.port, way) as connection:
        connection.send(request("GET", PATH, Origin=origin, Accept="text/event-stream", **COOKIE))
        answer = connection.answer()
        assert answer is None or answer.status in (400, 403), answer
        if answer is not None:
            assert answer.header("Access-Control-Allow-Origin") is None
            assert answer.header("Access-Control-Allow-Credentials") is None
    wait_until(lambda: len(descriptors(keyed_node.pid)) <= before, 10, "the place free again")


@pytest.mark.parametrize("origin", EVIL)
def test_a_foreign_page_cannot_publish(keyed_node: Node, origin: str) -> None:
    """S29: a form sent across sites with the visitor's cookie is refused, by Origin, by Referer, or without them."""
    form = {"Content_Type": "application/x-www-form-urlencoded"} | COOKIE
    # As the address of a page these two are the listed origin's own.
    pages = [] if origin.lower() == "https://app.example/" else [{"Referer": f"{origin}/page"}]
    for extra in ({"Origin": origin}, *pages, {}):
        answer = ask(keyed_node.port, request("POST", "/.well-known/mercure", b"topic=csrf&data=x", **form, **extra))
        assert answer is None or answer.status in (400, 403), (answer, extra)
    answer = answered(
        keyed_node.port, request("POST", "/.well-known/mercure", b"topic=csrf&data=x", Origin=ORIGIN, **form)
    )
    assert answer.status == 200


def test_the_listed_page_is_let_in(keyed_node: Node) -> None:
    """S29: the tests above would mean nothing otherwise."""
    for way in WAYS:
        answer = answered(keyed_node.port, request("GET", PATH, Origin=ORIGIN, **COOKIE), way)
        assert answer.status == 200
        assert (
            answer.header("Access-Control-Allow-Origin") == ORIGIN
            and answer.header("Access-Control-Allow-Credentials") == "true"
        )


@pytest.mark.parametrize("way", WAYS)
def test_what_another_sites_page_merely_shows_holds_no_place(keyed_node: Node, way: str) -> None:
    """S29: an image or a frame brings the visitor's cookie and no Origin; nobody could read that stream."""
    before = len(descriptors(keyed_node.pid))
    with wire(keyed_node.port, way) as connection:
        connection.send(request("GET", PATH, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors", **COOKIE))
        answer = connection.answer()
        assert answer is not None and answer.status == 403, answer
    wait_until(lambda: len(descriptors(keyed_node.pid)) <= before, 10, "the place free again")


REBOUND = "evil.example:8888"
ASKED = [
    ("GET", "/", b""), ("GET", "/health", b""), ("GET", "/stats", b""), ("GET", "/metrics", b""), ("GET", "/x", b""),
    ("GET", PATH, b""), ("HEAD", PATH, b""), ("GET", "/channels/rebound/events", b""), ("OPTIONS", PATH, b""),
    ("POST", "/.well-known/mercure", b"topic=rebound"), ("POST", "/channels/main/events", b'{"topic": "rebound"}'),
    ("POST", "/channels/main/events", b'{"data": "' + b"x" * 200_000 + b'"}'), ("PUT", "/x", b"x"),
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("origin", [{}, {"Origin": f"http://{REBOUND}"}])
def test_a_page_that_calls_this_machine_by_its_own_name_gets_nothing(
    open_node: Node, way: str, origin: dict[str, str]
) -> None:
    """X06: DNS rebinding. Its name leads to 127.0.0.1, so to the browser this server is its own; where nobody needs a
    token, the name gives it away.
    """
    kinds = {b"t": "application/x-www-form-urlencoded", b"{": "application/json"}
    for method, path, body in ASKED:
        kind = {"Content_Type": kinds.get(body[:1], "text/plain")} if body else {}
        raw = request(method, path, body, **kind, **origin).replace(b"Host: localhost", f"Host: {REBOUND}".encode())
        answer = answered(open_node.port, raw, way)
        assert answer.status == 403, (method, path, answer)
        assert method == "HEAD" or json.loads(answer.body)["field"] == "Host"
        assert answer.header("Access-Control-Allow-Origin") is None
    assert "rebound" not in json.loads(answered(open_node.port, request("GET", "/stats")).body)["channels"]


@pytest.mark.parametrize("way", WAYS)
def test_names_of_this_machine_are_answered_to(open_node: Node, way: str) -> None:
    """X06: the tests above would mean nothing otherwise."""
    for host in ("localhost", "127.0.0.1:8888", "[::1]:8888", "app.localhost:3000"):
        raw = request("GET", PATH, Origin=f"http://{host}").replace(b"Host: localhost", f"Host: {host}".encode())
        assert answered(open_node.port, raw, way).status == 200


def test_with_a_key_a_server_answers_to_any_name(keyed_node: Node) -> None:
    """X06: there a page needs a token, whatever it calls the server."""
    raw = request("GET", "/health").replace(b"Host: localhost", b"Host: events.example")
    assert answered(keyed_node.port, raw).status == 200


BREAKS = [
    "%0d%0aX-Injected: 1",
    "%0aX-Injected: 1",
    "%0dX-Injected: 1",
    "%00",
    "%0d%0a%0d%0aX-Injected",
    "%E5%98%8A%E5%98%8DX-Injected: 1",
    "%c4%8d%c4%8aX-Injected: 1",
]
RAW_BREAKS = [
    b"a\rX-Injected: 1",
    b"a\x00b",
    b"a\x0bX-Injected: 1",
    b"a\x85X-Injected: 1",
    "a\u560d\u560aX-Injected: 1".encode(),
    b"a\n X-Injected: 1",
]


def no_injection(answer: Answer | None) -> None:
    if answer is None:
        return
    for key, value in answer.headers:
        assert key.lower() != "x-injected"
        assert all(32 <= ord(character) < 127 for character in value), (key, value)
    assert b"X-Injected" not in answer.body


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("attack", BREAKS)
def test_a_query_cannot_write_headers(keyed_node: Node, attack: str, way: str) -> None:
    """S41: cursors in the query come back in a header; line breaks in them do not."""
    header = {"Authorization": bearer(signed())}
    for name in ("last_event_id", "lastEventID", "lastEventId", "Last-Event-ID", "topic", "type", "authorization", "x"):
        with wire(keyed_node.port, way) as connection:
            connection.send(request("GET", f"{PATH}&{name}=a{attack.replace(' ', '%20')}", **header))
            no_injection(connection.answer())
    for path in (f"/channels/a{attack.replace(' ', '%20')}/events", f"/{attack.replace(' ', '%20')}"):
        no_injection(ask(keyed_node.port, request("GET", path, **header), way))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("attack", RAW_BREAKS)
def test_a_header_cannot_write_headers(keyed_node: Node, attack: bytes, way: str) -> None:
    """S41: the same for values that come in headers and go out in headers."""
    for name in (
        b"Last-Event-ID",
        b"Origin",
        b"Idempotency-Key",
        b"Host",
        b"X-Forwarded-Host",
        b"Access-Control-Request-Headers",
        b"Access-Control-Request-Method",
    ):
        for method in (b"GET", b"OPTIONS", b"POST"):
            token = signed().encode()
            raw = (
                method
                + b" "
                + PATH.encode()
                + b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
                + token
                + b"\r\n"
                + name
                + b": "
                + attack
                + b"\r\n\r\n"
            )
            no_injection(ask(keyed_node.port, raw, way))


def everything(port: int) -> list[tuple[bytes, Answer]]:
    """Answers of every kind."""
    header = {"Authorization": bearer(signed())}
    asked = [
        request("GET", PATH, **header), request("GET", PATH), request("GET", "/.well-known/mercure", **header),
        request("GET", PATH, Origin="https://evil.example"),
        request("GET", "/channels/main/events", Authorization="Bearer x"),
        request("GET", "/channels/secret/events", **header), request("GET", "/nowhere"),
        request("DELETE", PATH), request("POST", "/.well-known/mercure", b"", **header),
        request("POST", "/channels/main/events", b"{}"), request("HEAD", PATH, **header),
        request("OPTIONS", PATH, Origin=ORIGIN, Access_Control_Request_Method="GET"),
        request("GET", PATH, Origin=ORIGIN, **header), request("GET", PATH, Origin=ORIGIN),
        request("GET", "/stats", X_Forwarded_For="203.0.113.1"), request("GET", "/stats"), request("GET", "/metrics"),
        request("GET", "/ready"), request("GET", "/health"),
    ]  # fmt: skip
    return [(raw, answered(port, raw, way)) for raw in asked for way in WAYS]


def test_no_cache_keeps_an_answer(keyed_node: Node) -> None:
    """S44: every answer, errors included, is `no-store` and varies with the origin; streams with the token too."""
    for raw, answer in everything(keyed_node.port):
        assert "no-store" in (answer.header("Cache-Control") or "") or answer.status == 204, (raw, answer)
        vary = {part.strip().lower() for part in (answer.header("Vary") or "").split(",")}
        assert "origin" in vary, (raw, answer)
        if answer.header("Content-Type") == "text/event-stream":
            assert {"authorization", "cookie"} <= vary, (raw, answer)
            assert "no-transform" in (answer.header("Cache-Control") or "")
        assert answer.header("ETag") is None and answer.header("Last-Modified") is None


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-Host",
        "X-Host",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Forwarded-Proto",
        "X-Forwarded-Prefix",
        "Forwarded",
    ],
)
def test_what_a_proxy_might_send_is_not_sent_back(keyed_node: Node, header: str) -> None:
    """S44: a made-up host or path in a header changes no answer."""
    for path in ("/", "/health", PATH, "/nowhere", "/channels/main/events"):
        for way in WAYS:
            answer = answered(keyed_node.port, request("GET", path, **{header: "poisoned.example/stats"}), way)
            assert "poisoned" not in str(answer)
