"""What the pages of all applications share: its files, and how it follows a stream, against answers made to measure."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urljoin

import pytest

from apps.pages import page_endpoints, shared_endpoints
from config.applications import APPLICATIONS
from handlers.endpoints import Call, Endpoint
from server.rights import ANONYMOUS
from tests.apps.tabs import Tabs
from tests.browser.chromium import Page
from tests.browser.reading import check_reading
from tests.conftest import StartNode

HELLO = 'retry: 1\nid: c1\nevent: hello\ndata: {"heartbeat_seconds":30}\n\n'
FULL = 'retry: 1\nevent: overloaded\ndata: {"code":"overloaded","reason":"this node is full","reconnect":true}\n\n'
_FOLLOW = """
import("/stream.js").then(({ Stream }) => {
  window.heard = [];
  window.said = [];
  window.refusals = [];
  window.insists = false;
  window.stream = new Stream({
    hear(type, data) {
      heard.push([type, data]);
      if (data === "poison") throw new Error("poison");
    },
    say: (state, text) => said.push([state, text]),
    refused(status, reason) {
      refusals.push([status, reason]);
      return insists;
    },
  });
})
"""


class Answers:
    """A server that gives `/events` one answer after the other, the last one again and again: (status, body, whether
    it stays open). `asked` are the headers and paths of those requests."""

    def __init__(self) -> None:
        self.script: list[tuple[int, str, bool]] = []
        self.asked: list[dict[str, str]] = []
        self._over = threading.Event()
        self._files = {f"/{one.path.rpartition('/')[2]}": body_of(one) for one in shared_endpoints()}
        answers = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/events":
                    answers.asked.append(
                        {"path": self.path, **{key.lower(): value for key, value in self.headers.items()}}
                    )
                    number = min(len(answers.asked), len(answers.script)) - 1
                    self._answer(*answers.script[number], "text/event-stream")
                else:
                    self._answer(
                        200,
                        answers._files.get(path, b"").decode(),
                        False,
                        "text/javascript" if ".js" in path else "text/html",
                    )

            def _answer(self, status: int, body: str, stays: bool, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(body.encode())
                self.wfile.flush()
                if stays:
                    answers._over.wait(30)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05])
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def answers() -> Iterator[Answers]:
    server = Answers()
    yield server
    server.close()


@pytest.fixture
def follower(answers: Answers, tabs: Tabs) -> Page:
    """A page with `stream`, which follows nothing yet, and what it has `heard`, `said` and met as `refusals`."""
    page = tabs.open(f"{answers.url}/")
    page.run(_FOLLOW)
    return page


def body_of(endpoint: Endpoint) -> bytes:
    made: Any = endpoint.run(Call(None, {}, None, None, ANONYMOUS))  # type: ignore[arg-type]
    try:
        made.send(None)
    except StopIteration as end:
        return bytes(end.value.response().body)
    raise AssertionError("a file is there at once")


def follow(page: Page, options: str = "{}") -> None:
    page.run(f"void stream.follow('/events', {options})")


def states(page: Page) -> list[str]:
    return [state for state, _ in page.run("said")]


# --- the files


def test_every_file_is_served_once_and_what_a_page_names_is_there() -> None:
    endpoints = [*shared_endpoints(), *(one for name in APPLICATIONS for one in page_endpoints(f"apps.{name}", name))]
    paths = [one.path for one in endpoints]
    assert len(paths) == len(set(paths))
    for endpoint in endpoints:
        text = body_of(endpoint).decode()
        for named in re.findall(r'(?:href|src|from|import)[= (]"((?!data:|https:|#)[^"]+)"', text):
            assert urljoin(endpoint.path, named) in paths, (endpoint.path, named)


def test_one_application_alone_has_what_all_share(node: StartNode) -> None:
    server = node(apps="jobs", simulate=False)
    for name, kind in (("board.css", "text/css"), ("stream.js", "text/javascript"), ("pill.js", "text/javascript")):
        status, headers, _ = server.get(f"/apps/{name}")
        assert (status, headers["content-type"].partition(";")[0]) == (200, kind)
        assert "script-src 'self';" in headers["content-security-policy"]
    assert "/apps/board.css" not in json.loads(server.get("/openapi.json")[2])["paths"]


def test_without_an_application_there_is_none_of_it(node: StartNode) -> None:
    assert node(apps="none").get("/apps/board.css")[0] == 404


# --- the stream


@pytest.mark.parametrize("step", [1, 2, 3, 1_000_000])
def test_the_corpus_reads_as_the_standard_says(follower: Page, step: int) -> None:
    check_reading(follower, "/stream.js", step)


def test_it_comes_back_with_its_cursor_and_its_token(answers: Answers, follower: Page) -> None:
    """Neither is in the address."""
    answers.script = [(200, HELLO + "id: c7\nevent: news\ndata: 1\n\n", False), (200, HELLO + "data: 2\n\n", True)]
    follow(follower, "{ token: 'secret' }")
    follower.wait("heard.length === 4")
    assert follower.run("heard.map(([type]) => type)") == ["hello", "news", "hello", "message"]
    first, second = answers.asked
    assert (first["authorization"], first.get("last-event-id")) == ("Bearer secret", None)
    assert (second["authorization"], second["last-event-id"]) == ("Bearer secret", "c7")
    assert first["path"] == "/events"
    assert states(follower) == ["connecting", "live", "waiting", "connecting", "live"]


def test_who_is_refused_is_told_why_and_does_not_come_back(answers: Answers, follower: Page) -> None:
    answers.script = [(403, '{"code":"forbidden","reason":"not for you"}', False)]
    follow(follower)
    follower.wait("stream.state === 'ended'")
    assert follower.run("said.at(-1)") == ["ended", "not for you"]
    assert follower.run("refusals") == [[403, "not for you"]]
    assert follower.run("stream.due") == 0


def test_a_page_can_insist(answers: Answers, follower: Page) -> None:
    """It is offline meanwhile, which a lost connection is not."""
    answers.script = [(404, "nothing here", False), (200, HELLO, True)]
    follower.run("insists = true")
    follow(follower)
    follower.wait("stream.state === 'live'")
    assert states(follower) == ["connecting", "offline", "connecting", "live"]


@pytest.mark.parametrize(
    "answer", [(503, "<h1>Bad gateway</h1>"), (429, "{}"), (200, FULL)], ids=["503", "429", "full"]
)
def test_a_server_that_cannot_just_now_is_asked_again(
    answers: Answers, follower: Page, answer: tuple[int, str]
) -> None:
    """And is not live for a moment in between."""
    answers.script = [(*answer, False), (200, HELLO, True)]
    follow(follower)
    follower.wait("stream.state === 'live'")
    assert states(follower) == ["connecting", "waiting", "connecting", "live"]
    assert follower.run("refusals") == []


def test_it_waits_as_long_as_the_server_asks(answers: Answers, follower: Page) -> None:
    answers.script = [(200, FULL.replace("retry: 1\n", "retry: 60000\n"), False)]
    follow(follower)
    follower.wait("stream.state === 'waiting'")
    assert 50_000 < follower.run("stream.due - Date.now()") <= 60_000


def test_silence_for_longer_than_the_heartbeat_is_a_lost_connection(answers: Answers, follower: Page) -> None:
    answers.script = [(200, HELLO.replace(":30}", ":0.1}"), True), (200, HELLO, True)]
    follow(follower)
    follower.wait("said.filter(([state]) => state === 'live').length === 2")
    assert states(follower) == ["connecting", "live", "waiting", "connecting", "live"]


def test_an_event_that_the_page_cannot_take_is_reported_and_the_stream_goes_on(
    answers: Answers, follower: Page
) -> None:
    answers.script = [(200, HELLO + "data: poison\n\ndata: fine\n\n", True)]
    follow(follower)
    follower.wait("heard.length === 3")
    assert follower.run("complaints.splice(0)") == ["Uncaught Error: poison"]
    assert states(follower) == ["connecting", "live"]


def test_nothing_of_another_stream_arrives_any_more(answers: Answers, follower: Page) -> None:
    """Also when both are in one piece, or the other one is stopped."""
    answers.script = [(200, HELLO + "id: c9\ndata: old\n\n" * 50, True), (200, HELLO + "data: new\n\n", True)]
    follower.run("""
      const hear = heard.push.bind(heard);
      heard.push = (event) => {
        if (event[1] === "old") stream.follow("/events?other");
        return hear(event);
      };
    """)
    follow(follower)
    follower.wait("heard.at(-1)?.[1] === 'new'")
    assert follower.run("heard.map(([, data]) => data).filter((data) => data === 'old').length") == 1
    assert "last-event-id" not in answers.asked[1]
    follower.run("stream.stop()")
    assert follower.run("[stream.state, stream.cursor, said.at(-1)[0]]") == ["off", "", "off"]
