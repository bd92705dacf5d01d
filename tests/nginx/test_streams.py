"""What a client gets through nginx while all is well: the same as from the node, and as soon."""

from __future__ import annotations

import json
import time
from statistics import median

import pytest

from tests.commands.scripted import answer
from tests.harness.process import wait_until
from tests.harness.stream import Stream
from tests.nginx.conftest import Script, StartNginx, StartSocketNode
from tests.nginx.http2 import Http2Stream
from tests.nginx.proxy import Nginx
from tests.wire.parser import StrictParser

PATH = "/channels/main/events"
PATHS = [f"{PATH}?topic=", "/.well-known/mercure?topic="]
TRIES = 5  # what is held back is late every time; a busy machine stands still now and then


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_opens_and_delivers_at_once_over_http_1(shared_front: Nginx, path: str) -> None:
    """H10: `hello` within 200 ms on an idle topic, and an event as soon as it is published, though none follows."""
    opened: list[float] = []
    delivered: list[float] = []
    for _ in range(TRIES):
        began = time.monotonic()
        with shared_front.stream(f"{path}at-once") as stream:
            assert stream.next_event().type == "hello"
            opened.append(time.monotonic() - began)
    with shared_front.stream(f"{path}at-once") as stream:
        assert stream.next_event().type == "hello"
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        for number in range(TRIES):
            event_id = shared_front.publish("at-once", f"event {number}")
            published = time.monotonic()
            event = stream.next_event()
            assert (event.id, event.data) == (event_id, f"event {number}")
            delivered.append(time.monotonic() - published)
    assert median(opened) < 0.2
    assert median(delivered) < 0.2


@pytest.mark.parametrize("path", PATHS)
def test_a_stream_opens_and_delivers_at_once_over_http_2(shared_front: Nginx, path: str) -> None:
    """H10, H16: the same over HTTP/2, where all streams of a browser share a connection."""
    with Http2Stream(shared_front, f"{path}at-once-2") as stream:
        assert stream.head.startswith(b"HTTP/2 200")
        delivered: list[float] = []
        for number in range(TRIES):
            event_id = shared_front.publish("at-once-2", f"event {number}")
            published = time.monotonic()
            assert stream.wait_event(f"event {number}").last_event_id == event_id
            delivered.append(time.monotonic() - published)
        assert median(delivered) < 0.2


def test_nothing_is_compressed_that_would_have_to_wait(shared_front: Nginx) -> None:
    """H09: a client that takes gzip gets the stream as it is, and the node's promises about caches."""
    with shared_front.stream(f"{PATH}?topic=gzip", Accept_Encoding="gzip, deflate, br") as stream:
        assert stream.next_event().type == "hello"
        assert "content-encoding" not in stream.headers
        assert "content-length" not in stream.headers
        assert stream.headers["cache-control"] == "no-store, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["vary"] == "Origin, Authorization, Cookie"


def test_a_cursor_in_a_header_or_in_the_query_reaches_the_node(shared_front: Nginx) -> None:
    """H13: `Last-Event-ID` resumes, and so does the parameter."""
    first, second, third = (shared_front.publish("cursor", data) for data in ("one", "two", "three"))
    with shared_front.stream(f"{PATH}?topic=cursor", Last_Event_ID=first) as stream:
        hello = json.loads(stream.next_event().data or "")
        assert hello["complete"] is True
        assert [event.id for event in stream.events(2)] == [second, third]
    with shared_front.stream(f"{PATH}?topic=cursor&last_event_id={second}") as stream:
        assert [event.id for event in stream.events(1)] == [third]
    with Http2Stream(shared_front, f"{PATH}?topic=cursor", Last_Event_ID=second) as again:
        assert again.wait_event("three").last_event_id == third
        assert [event.data for event in again.events if event.type == "message"] == ["three"]


def test_the_path_and_the_query_arrive_as_they_were_sent(scripted: Script, nginx: StartNginx) -> None:
    """A selector is percent-encoded: decoded or encoded anew on the way it would select something else."""
    node = scripted(answer(200))
    front = nginx(f"127.0.0.1:{node.port}")
    path = "/channels/a-1_b/events?topic=items%2F%7Bid%7D&topic=a+b%20c&last_event_id=x~y&topic=%C3%A9"
    front.get(path, Accept="text/event-stream")
    assert node.requests[0].line == f"GET {path} HTTP/1.1"


def test_the_node_is_told_the_client_and_the_host_and_nothing_made_up(scripted: Script, nginx: StartNginx) -> None:
    """S07: what a client claims of its address is gone; tokens, cursors and origins pass."""
    node = scripted(answer(200))
    front = nginx(f"127.0.0.1:{node.port}")
    claims = {"X_Forwarded_For": "203.0.113.9, 10.0.0.1", "Forwarded": "for=203.0.113.9", "X_Forwarded_Proto": "http"}
    passed = {"Authorization": "Bearer t", "Cookie": "mercureAuthorization=t", "Last_Event_ID": "a-1"}
    front.get(PATH, Accept="text/event-stream", Origin="https://app.example", **claims, **passed)
    headers = node.requests[0].headers
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert "forwarded" not in headers
    assert headers["host"] == f"127.0.0.1:{front.port}"
    assert headers["origin"] == "https://app.example"
    assert {name: headers[name.lower().replace("_", "-")] for name in passed} == passed
    assert "connection" not in headers


def test_a_health_check_without_a_host_is_answered(socket_node: StartSocketNode, nginx: StartNginx) -> None:
    """Load balancers ask by HTTP/1.0; the node is asked under the server's own name."""
    front = nginx(socket_node(jwt_secret="a secret of at least thirty-two bytes"))
    raw = b"GET /ready HTTP/1.0\r\n\r\n"
    with Stream(front.port, "/ready", connection=front.connect(), request=raw) as ready:
        assert ready.status == 200


def test_limits_of_the_node_per_address_count_the_client_and_not_what_it_claims(
    socket_node: StartSocketNode, nginx: StartNginx
) -> None:
    """S07: through a Unix socket, and over TCP with nginx among the trusted proxies."""
    node = socket_node(max_connections_per_address=2, trusted_proxies="127.0.0.1")
    for address in (node, f"127.0.0.1:{node.port}"):
        front = nginx(address)
        streams = [front.stream(PATH, X_Forwarded_For=f"203.0.113.{number}") for number in range(4)]
        assert [stream.next_event().type for stream in streams] == ["hello", "hello", "too_many", "too_many"]
        for stream in streams:
            stream.close()
        assert front.stop() == 0
        front.folder.rename(front.folder.with_name(f"nginx-{front.port}"))


def test_operators_pages_are_not_shown_to_whoever_comes_through_a_unix_socket(
    socket_node: StartSocketNode, nginx: StartNginx
) -> None:
    """S47: behind nginx every peer is local; the header that nginx sets says that it is not. `/metrics` is nobody's."""
    front = nginx(socket_node(jwt_secret="a secret of at least thirty-two bytes"))
    for path in ("/stats", "/metrics", "//metrics", "/%6detrics", "/channels/../metrics", "/metrics;x", "/METRICS"):
        assert front.get(path)[0] == 404, path


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (204, {}),
        (400, {}),
        (401, {"WWW_Authenticate": "Bearer"}),
        (403, {}),
        (404, {}),
        (409, {}),
        (429, {"Retry_After": "7"}),
        (500, {}),
        (503, {"Retry_After": "9"}),
    ],
)
def test_what_a_node_answers_is_not_changed(
    scripted: Script, nginx: StartNginx, status: int, headers: dict[str, str]
) -> None:
    """H03, H04: a client that must not come back is not told to, and a refusal of the node's own keeps its hints."""
    body = None if status == 204 else {"code": "as-it-was"}
    node = scripted(*[answer(status, body, **headers)] * 4)
    front = nginx(f"127.0.0.1:{node.port}")
    for accept in ("text/event-stream", "*/*"):
        for method in ("GET", "POST"):
            found, answered, content = front.request(method, PATH, Accept=accept)
            assert found == status
            assert content == b"" if body is None else json.loads(content) == body
            assert {name: answered[name.lower().replace("_", "-")] for name in headers} == headers
    assert len(node.requests) == 4


def test_a_publish_of_any_size_that_the_node_takes_passes(shared_front: Nginx) -> None:
    """Forms, JSON, lines, with an idempotency key; 413 beyond the limit, without sending it on."""
    with shared_front.stream(f"{PATH}?topic=publish") as stream:
        stream.next_event()
        status, _, body = shared_front.request(
            "POST", "/.well-known/mercure", "topic=publish&data=form", Content_Type="application/x-www-form-urlencoded"
        )
        assert (status, stream.next_event().id) == (200, body.decode())
        keyed = {"Content_Type": "application/x-ndjson", "Idempotency_Key": "nginx-1"}
        lines = "\n".join(f'{{"topic": "publish", "data": "{number} {"x" * 900}"}}' for number in range(1000))
        first = shared_front.request("POST", PATH, lines, **keyed)
        again = shared_front.request("POST", PATH, lines, **keyed)
        assert first[0] == again[0] == 200 and first[2] == again[2]
        assert again[1]["idempotency-replayed"] == "true"
        assert [event.id for event in stream.events(1000)] == json.loads(first[2])["ids"]
    large = b'{"topic": "publish", "data": "' + b"x" * (1 << 20) + b'"}'
    assert shared_front.request("POST", PATH, large, Content_Type="application/json")[0] == 413


def test_publishes_share_connections_to_the_node(socket_node: StartSocketNode, nginx: StartNginx) -> None:
    """A hundred publishes, each on a TLS connection of its own, cost a handful of connections behind nginx."""
    node = socket_node()
    front = nginx(node)
    before = json.loads(node.get("/stats")[2])["door"]["accepted"]
    for number in range(100):
        front.publish("shared", str(number))
    accepted = json.loads(node.get("/stats")[2])["door"]["accepted"] - before
    assert accepted <= 1 + 2 * 2  # our own question, and for each worker one or two


def test_a_stream_is_read_as_the_node_wrote_it(shared_front: Nginx) -> None:
    """E-rows through nginx: the strict parser finds nothing in it that the server must not send."""
    parser = StrictParser()
    with shared_front.stream(f"{PATH}?topic=strict") as stream:
        stream.next_event()
        for data in ("plain", "two\nlines", "\ufeff é ☃ \u2028", ""):
            shared_front.publish("strict", data)
        events = stream.events(4)
        parser.feed(stream.raw)
    assert [event.data for event in parser.events[1:]] == [event.data for event in events]
    assert [event.data for event in events] == ["plain", "two\nlines", "\ufeff é ☃ \u2028", ""]


def test_a_client_that_hangs_up_is_let_go_by_the_node(socket_node: StartSocketNode, nginx: StartNginx) -> None:
    """I7: nginx closes the node's side with the client's."""
    node = socket_node()
    front = nginx(node)
    streams = [front.stream(PATH) for _ in range(5)]
    for stream in streams:
        stream.next_event()
    assert json.loads(node.get("/stats")[2])["connections"]["total"] == 5
    for stream in streams:
        stream.close()
    wait_until(lambda: json.loads(node.get("/stats")[2])["connections"]["total"] == 0, 5, "no reader left")
