"""Refusals before a stream begins: which clients get an event stream that sends them away, and which get a status."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable

import jwt
import pytest

from tests.conftest import StartNode
from tests.harness.process import TOKEN_SECRET, Node
from tests.harness.stream import Stream
from tests.http.conftest import ALLOWED
from tests.http.endpoint import HUB, Endpoint, hello_of, open_stream, used_connection
from tests.wire.parser import StrictParser

NATIVE = "text/event-stream"
both_ways = pytest.mark.parametrize("way", ["first", "later"])

LIMITS = {
    "overloaded": ({"max_connections": 1}, 503, "node is full"),
    "too_many": ({"max_connections_per_address": 1}, 429, "this address holds its share"),
    "rate_limited": ({"opens_per_second": 0.001, "opens_burst": 1}, 429, "too many a second"),
}


def token(*, seconds: float | None = None, secret: str = TOKEN_SECRET, **rights: list[str]) -> str:
    """A token that grants `rights` on channel main and on channel wire."""
    claims: dict[str, object] = {"mercure": rights, "ringcast": {"wire": rights}}
    if seconds is not None:
        claims["exp"] = time.time() + seconds
    return jwt.encode(claims, secret, "HS256")


def assert_sent_away(stream: Stream, code: str) -> None:
    """200 with the right type; a whole stream of one event; a delay; the end."""
    assert (stream.status, stream.headers["content-type"]) == (200, NATIVE)
    assert "no-store" in stream.headers["cache-control"]
    assert stream.headers["connection"].lower() == "close"
    stream.wait_end(5)
    assert stream.clean_end
    parser = StrictParser()
    parser.feed(stream.raw)
    parser.end()
    [event] = parser.events
    assert event.type == code
    assert parser.last_event_id == ""
    assert parser.retry_ms is not None
    assert parser.retry_ms > 0
    body = json.loads(event.data)
    assert sorted(body) == ["code", "reason", "reconnect"]
    assert (body["code"], body["reconnect"]) == (code, True)


def assert_refused(stream: Stream, code: str, status: int) -> dict[str, str]:
    """The status and a JSON body with the code, never cached, never an event stream; the body."""
    assert (stream.status, stream.headers["content-type"].split(";")[0]) == (status, "application/json")
    assert "no-store" in stream.headers["cache-control"]
    assert "origin" in stream.headers["vary"].lower()
    body: dict[str, str] = json.loads(stream.body())
    assert body["code"] == code
    assert body["reason"]
    return body


@pytest.fixture(scope="module", params=LIMITS)
def full_node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> object:
    """A server at one of its limits, with the reader that fills it."""
    settings, status, _ = LIMITS[request.param]
    server = Node(tmp_path_factory.mktemp("full"), **settings).start()
    with Stream(server.port, f"{HUB}?topic=a") as held:
        hello_of(held)
        yield server, held, request.param, status
    server.kill()


Full = tuple[Node, Stream, str, int]


@both_ways
def test_a_native_client_at_a_limit_is_told_to_come_back(full_node: Full, endpoint: Endpoint, way: str) -> None:
    """H01, H05: 429 and 503 would end a native EventSource for good."""
    server, _, code, _ = full_node
    with open_stream(server, endpoint.path("a"), way) as stream:
        assert_sent_away(stream, code)


@both_ways
@pytest.mark.parametrize("accept", [None, "*/*", "application/json"])
def test_an_api_client_at_a_limit_gets_the_status(
    full_node: Full, endpoint: Endpoint, accept: str | None, way: str
) -> None:
    """H05: with a Retry-After in seconds."""
    server, _, code, status = full_node
    with open_stream(server, endpoint.path("a"), way, Accept=accept) as answer:
        assert_refused(answer, code, status)
        assert int(answer.headers["retry-after"]) >= 1


def test_a_refusal_costs_the_held_reader_nothing(full_node: Full, topic: str) -> None:
    """H05: refused, not evicted."""
    server, held, _, _ = full_node
    with open_stream(server, f"{HUB}?topic=a") as refused:
        refused.wait_end(5)
    [event_id] = Endpoint("main").publish(server, "a", "still here")
    assert held.events(1)[0].id == event_id


def test_each_refusal_draws_its_own_delay(full_node: Full) -> None:
    """H05: a herd that was told one delay comes back as a herd."""
    server, _, _, _ = full_node
    delays = set()
    for _ in range(6):
        with open_stream(server, f"{HUB}?topic=a") as stream:
            delays.add(stream.next_event().get("retry"))
    assert len(delays) > 1


@both_ways
@pytest.mark.parametrize("accept", [NATIVE, None])
def test_no_token_is_401(keyed_node: Node, endpoint: Endpoint, topic: str, accept: str | None, way: str) -> None:
    """H01, H04: ends a native client for good, as it should."""
    with open_stream(keyed_node, endpoint.path(topic), way, Accept=accept) as answer:
        assert_refused(answer, "unauthorized", 401)
        assert answer.headers["www-authenticate"] == "Bearer"


@both_ways
@pytest.mark.parametrize(
    "make", [lambda: token(secret="x" * 40), lambda: token(seconds=-60, subscribe=["*"]), lambda: "no.token.atall"]
)
def test_a_bad_token_is_401(
    keyed_node: Node, endpoint: Endpoint, topic: str, make: Callable[[], str], way: str
) -> None:
    """H01, H04: an expired token on reconnect, or a forged one."""
    with open_stream(keyed_node, endpoint.path(topic), way, Authorization=f"Bearer {make()}") as answer:
        assert answer.status == 401
        assert json.loads(answer.body())["code"] in ("unauthorized", "auth_expired")
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@both_ways
def test_a_foreign_origin_is_403(keyed_node: Node, endpoint: Endpoint, topic: str, way: str) -> None:
    """H01: and stays so."""
    headers = {"Origin": "https://evil.example", "Authorization": f"Bearer {token(subscribe=['*'])}"}
    with open_stream(keyed_node, endpoint.path(topic), way, **headers) as answer:
        assert_refused(answer, "forbidden", 403)


@both_ways
@pytest.mark.parametrize(
    "path", ["/nowhere", "/channels/NOT-A-NAME/events", "/channels/a/b/events", "/.well-known/mercurial?topic=a"]
)
def test_no_such_address_is_404(shared_node: Node, path: str, way: str) -> None:
    """H01, H02: an error page of ours is JSON, not HTML."""
    with open_stream(shared_node, path, way) as answer:
        assert_refused(answer, "not_found", 404)


def test_a_channel_that_may_not_come_into_being_is_404(node: StartNode) -> None:
    """H01: as far as a client can tell, it does not exist."""
    server = node(open_channels=False)
    with open_stream(server, "/channels/wire/events") as answer:
        assert_refused(answer, "not_found", 404)
    with open_stream(server, f"{HUB}?topic=a") as stream:
        hello_of(stream)


@both_ways
@pytest.mark.parametrize(
    ("path", "field"),
    [
        (HUB, "topic"),
        (f"{HUB}?topic=%ff", "topic"),
        (f"{HUB}?topic=a%00b", "topic"),
        (f"{HUB}?topic=a&matchX=b", "matchX"),
        (f"{HUB}?topic=a&MATCH=b", "MATCH"),
        (f"{HUB}?" + "&".join(["topic=a"] * 101), "topic"),
        (f"{HUB}?topic=" + "a" * 4097, "topic"),
        ("/channels/wire/events?topic=%e2%80%ae", "topic"),
        ("/channels/wire/events?last=0", "last"),
        ("/channels/wire/events?last=1001", "last"),
        ("/channels/wire/events?last=-1", "last"),
        ("/channels/wire/events?last=1.5", "last"),
        ("/channels/wire/events?last=%D9%A1", "last"),
        ("/channels/wire/events?last=", "last"),
    ],
)
def test_a_request_that_makes_no_sense_is_400(shared_node: Node, path: str, field: str, way: str) -> None:
    """H01, H02: the body names the field."""
    with open_stream(shared_node, path, way) as answer:
        assert assert_refused(answer, "bad_request", 400)["field"] == field


def test_a_draining_server_sends_a_late_native_client_away(node: StartNode) -> None:
    """H01, H05: on a connection that was there before the signal. Ten readers make the drain last."""
    server = node(drain_seconds=3)
    with used_connection(server) as native, used_connection(server) as api, contextlib.ExitStack() as held:
        for _ in range(10):
            hello_of(held.enter_context(open_stream(server, f"{HUB}?topic=a")))
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        ready(server)
        host = f"127.0.0.1:{server.port}"
        requests = {"path": f"{HUB}?topic=a", "Host": host}
        assert_sent_away(Stream(server.port, connection=native, **requests), "draining")  # type: ignore[arg-type]
        assert_refused(Stream(server.port, connection=api, Accept=None, **requests), "draining", 503)  # type: ignore[arg-type]
    assert server.process.wait(15) == 0


def ready(server: Node) -> None:
    """Wait until the node no longer takes new work."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if server.get("/ready")[0] == 503:
                return
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError("the node stayed ready")


def test_error_facts_are_whole_json(shared_node: Node) -> None:
    """H02: quotes and backslashes of the request cannot break the body."""
    status, _, body = shared_node.get("/channels/wire/events?last=%22%5C%0a")
    assert status == 400
    assert facts_of(body)["code"] == "bad_request"


def facts_of(body: bytes) -> dict[str, str]:
    found: dict[str, str] = json.loads(body)
    return found


def test_the_allowed_origin_reads_the_refusal(keyed_node: Node, endpoint: Endpoint, topic: str) -> None:
    """H04, X02: without CORS headers a script could not tell 401 from a network failure."""
    with open_stream(keyed_node, endpoint.path(topic), Origin=ALLOWED) as answer:
        assert_refused(answer, "unauthorized", 401)
        assert answer.headers["access-control-allow-origin"] == ALLOWED
