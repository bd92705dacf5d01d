"""`ringcast tail` against servers that follow a script."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from server.commands.tail import tail
from tests.commands.conftest import Run
from tests.commands.scripted import HOLD, Scripted, answer, ending, event, event_id, hello, stream

Start = Callable[..., Scripted]


def test_each_event_is_one_line_with_id_type_and_data(run: Run, scripted: Start) -> None:
    blocks = hello() + event(1, "a") + f"id: {event_id(2)}\nevent: news\ndata: b\ndata: c\n\n"
    result = run(tail, "--url", scripted(stream(blocks) + HOLD).url, "--count", "2")
    assert result.exit_code == 0
    assert result.stdout == f"{event_id(1)}  message  a\n{event_id(2)}  news  b\\nc\n"
    assert result.stderr == "# connected to channel main\n"


def test_as_json_each_line_is_an_object(run: Run, scripted: Start) -> None:
    server = scripted(stream(hello() + event(1, "é\x1b[2J")))
    result = run(tail, "--url", server.url, "--count", "1", "--json")
    assert json.loads(result.stdout) == {"id": event_id(1), "type": "message", "data": "é\x1b[2J"}
    assert result.stdout.strip().isprintable()


def test_data_cannot_steer_the_terminal(run: Run, scripted: Start) -> None:
    result = run(tail, "--url", scripted(stream(hello() + event(1, "\x1b[2J\x07\u202e"))).url, "--count", "1")
    assert result.stdout == f"{event_id(1)}  message  \\x1b[2J\\x07\\u202e\n"


def test_the_request_says_what_is_wanted(run: Run, scripted: Start) -> None:
    server = scripted(stream(hello() + event(1)))
    options = ["--topic", "a/{b}", "--topic", "c d", "--type", "x", "--last", "5", "--from", "é-1", "--token", "t0k3n"]
    run(tail, "--url", server.url, "--channel", "prices", *options, "--count", "1")
    (request,) = server.requests
    assert request.line == "GET /channels/prices/events?topic=a%2F%7Bb%7D&topic=c+d&type=x&last=5 HTTP/1.1"
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["authorization"] == "Bearer t0k3n"
    assert request.headers["last-event-id"].encode("latin-1").decode() == "é-1"


def test_without_a_cursor_none_is_sent(run: Run, scripted: Start) -> None:
    server = scripted(stream(event(1)))
    run(tail, "--url", server.url, "--count", "1")
    assert "last-event-id" not in server.requests[0].headers


@pytest.mark.parametrize("end", [True, False])
def test_after_the_end_it_comes_back_with_its_cursor_after_the_time_that_was_asked_for(
    run: Run, scripted: Start, delays: list[float], end: bool
) -> None:
    first = stream(hello(event_id(1)) + event(2) + f":\nid: {event_id(3)}\n\nid: {event_id(4)}\ndata: cut off", end=end)
    server = scripted(first, stream(hello(event_id(3)) + event(4)))
    result = run(tail, "--url", server.url, "--count", "2")
    assert [line.split()[0] for line in result.stdout.splitlines()] == [event_id(2), event_id(4)]
    assert server.requests[1].headers["last-event-id"] == event_id(3)
    assert delays == [1.5]


def test_an_answer_without_a_stream_is_tried_again(run: Run, scripted: Start, delays: list[float]) -> None:
    answers = [None, answer(503, Retry_After="9"), answer(429), answer(502), stream("", end=False)]
    result = run(tail, "--url", scripted(*answers, stream(hello() + event(1))).url, "--count", "1")
    assert (result.exit_code, delays) == (0, [1, 9, 1, 1, 1])


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (204, 0, "no more events"),
        (401, 3, "token"),
        (403, 3, "grant"),
        (404, 4, "Not Found"),
        (400, 1, "400"),
        (307, 1, "307"),
    ],
)
def test_a_final_answer_stops_it_with_a_code_and_a_word(
    run: Run, scripted: Start, delays: list[float], status: int, code: int, said: str
) -> None:
    result = run(tail, "--url", scripted(answer(status)).url)
    assert (result.exit_code, result.stdout, delays) == (code, "", [])
    assert result.stderr.startswith("# ended: ")
    assert said in result.stderr


def test_a_page_that_is_no_stream_stops_it(run: Run, scripted: Start) -> None:
    result = run(tail, "--url", scripted(answer(200, {})).url)
    assert result.exit_code == 1
    assert "this is application/json, not an event stream" in result.stderr


@pytest.mark.parametrize(("code", "status"), [("auth_expired", 3), ("forbidden", 3), ("not_found", 4), ("finished", 0)])
def test_an_ending_that_is_final_stops_it(run: Run, scripted: Start, code: str, status: int) -> None:
    result = run(tail, "--url", scripted(stream(hello() + event(1) + ending(code, reconnect=False))).url)
    assert result.exit_code == status
    assert result.stdout.startswith(event_id(1))
    assert "# ended: " in result.stderr


@pytest.mark.parametrize("before", [hello(), ""])
def test_an_ending_that_is_not_final_brings_it_back_when_the_server_says(
    run: Run, scripted: Start, delays: list[float], before: str
) -> None:
    server = scripted(stream(before + ending("draining", reconnect=True)), stream(hello() + event(1)))
    result = run(tail, "--url", server.url, "--count", "1")
    assert (result.exit_code, delays) == (0, [0.7])
    assert "the server ended the stream: this node is shutting down; coming back" in result.stderr


def test_a_published_event_with_an_endings_name_is_only_an_event(run: Run, scripted: Start) -> None:
    blocks = hello() + f"id: {event_id(1)}\nevent: not_found\ndata: {{}}\n\n" + event(2)
    result = run(tail, "--url", scripted(stream(blocks)).url, "--count", "2")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 2)


def test_a_gap_is_told_and_heartbeats_are_not(run: Run, scripted: Start) -> None:
    gap = {"reason": "lag", "from": event_id(1), "to": event_id(9)}
    beat = 'event: heartbeat\ndata: {"ts": 1}\n\n'
    blocks = f"{hello()}{beat}event: gap\ndata: {json.dumps(gap)}\n\n{event(10)}"
    result = run(tail, "--url", scripted(stream(blocks)).url, "--count", "1")
    assert result.stdout == f"{event_id(10)}  message  x\n"
    assert f"# gap (lag): events after {event_id(1)} and up to {event_id(9)} may be missing\n" in result.stderr


def test_a_hello_by_another_name_is_a_hello(run: Run, scripted: Start) -> None:
    blocks = hello().replace("event: hello", "event: connected") + event(1)
    assert run(tail, "--url", scripted(stream(blocks)).url, "--count", "1").stdout.startswith(event_id(1))


def test_a_stream_of_another_server_is_read_as_it_is(run: Run, scripted: Start) -> None:
    result = run(tail, "--url", scripted(stream("data: a\n\nevent: x\nid: 1\ndata: b\n\n")).url, "--count", "2")
    assert result.stdout == "  message  a\n1  x  b\n"


def test_silence_beyond_the_promised_heartbeats_is_a_lost_connection(
    run: Run, scripted: Start, delays: list[float]
) -> None:
    server = scripted(stream(hello(heartbeat_seconds=0.02), end=False) + HOLD, stream(hello() + event(1)))
    result = run(tail, "--url", server.url, "--count", "1")
    assert (result.exit_code, delays) == (0, [1.5])
    assert "it took too long" in result.stderr


def test_a_cursor_with_control_characters_is_a_mistake(run: Run) -> None:
    assert run(tail, "--from", "a\r\nX: y").exit_code == 2
