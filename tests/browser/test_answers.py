"""Each answer of ours, as a native EventSource takes it: which close it for good, and which bring it back (H01)."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator

import jwt
import pytest

from server.endings import ENDINGS, Ending
from tests.browser.conftest import OpenPage, OpenSource
from tests.browser.listener import CLOSED, Source
from tests.conftest import StartNode
from tests.harness.process import TOKEN_SECRET, Node
from tests.harness.stream import Stream

HUB = "/.well-known/mercure?topic=a"
QUICK = {"retry_min_ms": 100, "retry_max_ms": 200}


@pytest.fixture(scope="module")
def keyed_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    server = Node(
        tmp_path_factory.mktemp("keyed"), jwt_secret=TOKEN_SECRET, allowed_origins="https://app.example", **QUICK
    ).start()
    yield server
    server.kill()


def assert_closed_for_good(listener: Source) -> None:
    """One error, the state CLOSED, nothing else ever: no timer of the browser is running that could bring it back."""
    listener.wait_state(CLOSED)
    assert listener.kinds == ["(closed)"]


@pytest.mark.parametrize(
    "path",
    [
        HUB,
        HUB + "&authorization=forged",
        HUB + "&authorization=" + jwt.encode({"exp": 1, "mercure": {"subscribe": ["*"]}}, TOKEN_SECRET, "HS256"),
        "/nowhere",
        "/channels/NOT-A-NAME/events",
        "/.well-known/mercure?matchX=a",
        "/channels/wire/events?last=0",
        "/ready",
        "/health",
    ],
    ids=[
        "401",
        "401-forged",
        "401-expired",
        "404",
        "404-name",
        "400",
        "400-last",
        "not-a-stream-ready",
        "not-a-stream-health",
    ],
)
def test_an_answer_for_clients_that_must_not_come_back_closes_it(
    keyed_node: Node, source: OpenSource, path: str
) -> None:
    """H01, H04: 400, 401, 404, and whatever is no event stream."""
    assert_closed_for_good(source(keyed_node, path))


def test_a_page_of_a_foreign_origin_is_closed_out(keyed_node: Node, shared_node: Node, page: OpenPage) -> None:
    """H01, X01: 403, and no CORS headers either."""
    token = jwt.encode({"mercure": {"subscribe": ["*"]}}, TOKEN_SECRET, "HS256")
    assert_closed_for_good(Source(page(shared_node), f"{keyed_node.url}{HUB}&authorization={token}"))


@pytest.mark.parametrize("with_credentials", [False, True])
def test_a_page_of_a_listed_origin_reads_across_origins(
    node: StartNode, shared_node: Node, page: OpenPage, with_credentials: bool
) -> None:
    """X01, X03, X05: the stream opens, and a reconnect with a cursor needs no preflight and stays complete."""
    server = node(allowed_origins=shared_node.url, max_age_seconds=1, **QUICK)
    listener = Source(page(shared_node), f"{server.url}{HUB}", "gap", with_credentials=with_credentials)
    hellos = listener.wait_for("hello", 2)
    assert [json.loads(hello)["complete"] for _, hello, _ in hellos] == [True, True]
    assert "gap" not in listener.kinds


@pytest.mark.parametrize(
    ("code", "settings"),
    [
        ("overloaded", {"max_connections": 1}),
        ("too_many", {"max_connections_per_address": 1}),
        ("rate_limited", {"opens_per_second": 0.01, "opens_burst": 1}),
    ],
)
def test_a_refusal_at_a_limit_leaves_it_waiting_to_come_back(
    node: StartNode, source: OpenSource, code: str, settings: dict[str, int]
) -> None:
    """H01, H05: it opens, hears why and for how long, and reconnects by itself."""
    server = node(**settings)
    with Stream(server.port, HUB) as held:
        held.next_event()
        listener = source(server, HUB, code)
        listener.wait_for("(reconnecting)")
        assert listener.kinds[:3] == ["(open)", code, "(reconnecting)"]


@pytest.mark.parametrize(("code", "settings"), [("max_age", {"max_age_seconds": 0.5}), ("idle", {"idle_seconds": 0.5})])
def test_a_stream_that_ran_its_time_comes_back_by_itself(
    node: StartNode, source: OpenSource, code: str, settings: dict[str, float]
) -> None:
    """H06: with its cursor, so the new stream is complete."""
    listener = source(node(**settings, **QUICK), HUB, code, "gap")
    hellos = listener.wait_for("hello", 2)
    assert json.loads(hellos[1][1])["complete"] is True
    assert listener.kinds[:5] == ["(open)", "hello", code, "(reconnecting)", "(open)"]
    assert "gap" not in listener.kinds


def test_an_expired_token_is_told_and_then_ends_it(keyed_node: Node, source: OpenSource, page: OpenPage) -> None:
    """H04: the event first, then one reconnect that meets 401."""
    tab = page(keyed_node)
    now = tab.run("Date.now() / 1000")
    token = jwt.encode({"exp": now + 4, "mercure": {"subscribe": ["*"]}}, TOKEN_SECRET, "HS256")
    listener = Source(tab, f"{HUB}&authorization={token}", "auth_expired")
    listener.wait_for("auth_expired")
    listener.wait_state(CLOSED)
    assert listener.kinds == ["(open)", "hello", "auth_expired", "(reconnecting)", "(closed)"]


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=lambda ending: ending.code)
def test_the_status_of_every_ending_closes_it_so_those_that_come_back_need_200(
    shared_node: Node, page: OpenPage, one_answer: Callable[[bytes], str], ending: Ending
) -> None:
    """H01, H03, H05: all (204 among them) are final to a browser, which is why it gets its refusals as a stream."""
    fields = ["Content-Type: text/event-stream", "Access-Control-Allow-Origin: *", "Connection: close"]
    head = "\r\n".join([f"HTTP/1.1 {ending.status} X", *fields, "", ""])
    assert_closed_for_good(Source(page(shared_node), one_answer(head.encode())))


@pytest.fixture
def one_answer() -> Iterator[Callable[[bytes], str]]:
    """Serves the same bytes to everybody: `one_answer(bytes)` gives the address."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(answer: bytes) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    threads: list[threading.Thread] = []

    def start(answer: bytes) -> str:
        threads.append(threading.Thread(target=serve, args=[answer]))
        threads[0].start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/"

    yield start
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    for thread in threads:
        thread.join(10)
