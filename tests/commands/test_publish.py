"""`ringcast publish` against servers that fail in every way."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from server.commands.publish import publish
from tests.commands.conftest import Run
from tests.commands.scripted import Scripted, answer
from tests.harness.process import free_port

Start = Callable[..., Scripted]
OK = answer(200, {"ids": ["k3x9q1-0000000000001"]})


def test_an_event_is_one_json_object_and_its_id_is_printed(run: Run, scripted: Start) -> None:
    server = scripted(OK)
    options = ["--topic", "a", "--topic", "b", "--type", "news", "--private", "--id", "me", "--channel", "prices"]
    result = run(publish, "--url", server.url, *options, "--token", "t0k3n", "line 1\nline 2 é")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "k3x9q1-0000000000001\n", "")
    (request,) = server.requests
    assert request.line == "POST /channels/prices/events HTTP/1.1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer t0k3n"
    assert json.loads(request.body) == {
        "topics": ["a", "b"],
        "type": "news",
        "private": True,
        "id": "me",
        "data": "line 1\nline 2 é",
    }


def test_without_options_only_data_is_sent(run: Run, scripted: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = scripted(OK)
    monkeypatch.setenv("RINGCAST_URL", server.url)
    monkeypatch.setenv("RINGCAST_TOKEN", "from-the-environment")
    assert run(publish, "x").exit_code == 0
    (request,) = server.requests
    assert json.loads(request.body) == {"data": "x"}
    assert request.headers["authorization"] == "Bearer from-the-environment"


def test_all_tries_of_one_publish_carry_one_key_and_wait_as_long_as_asked(
    run: Run, scripted: Start, delays: list[float]
) -> None:
    answers = [None, answer(503, {"reason": "draining"}, Retry_After="3"), answer(429), answer(502), answer(504)]
    server = scripted(*answers, OK)
    result = run(publish, "--url", server.url, "x")
    assert (result.exit_code, result.stdout) == (0, "k3x9q1-0000000000001\n")
    assert delays == [0, 3, 0, 0, 0]
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
    assert len({request.body for request in server.requests}) == 1
    assert "503 Service Unavailable: draining" in result.stderr


def test_a_lost_answer_is_asked_for_again(run: Run, scripted: Start, delays: list[float]) -> None:
    cut = OK[:-3]
    server = scripted(cut, OK)
    result = run(publish, "--url", server.url, "x")
    assert (result.exit_code, result.stdout, len(delays)) == (0, "k3x9q1-0000000000001\n", 1)


def test_two_publishes_have_two_keys(run: Run, scripted: Start) -> None:
    server = scripted(OK, OK)
    for _ in range(2):
        run(publish, "--url", server.url, "x")
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 2


def test_a_key_of_ones_own_is_sent(run: Run, scripted: Start) -> None:
    server = scripted(OK)
    run(publish, "--url", server.url, "--idempotency-key", "order-7", "x")
    assert server.requests[0].headers["idempotency-key"] == "order-7"


def test_tries_are_bounded(run: Run, scripted: Start, delays: list[float]) -> None:
    server = scripted(*[answer(503)] * 3)
    result = run(publish, "--url", server.url, "--tries", "3", "x")
    assert (result.exit_code, result.stdout, len(delays)) == (5, "", 2)
    assert result.stderr.splitlines()[-1] == "not published: 503 Service Unavailable; gave up after 3 tries"


@pytest.mark.usefixtures("delays")
def test_where_nobody_listens_it_gives_up(run: Run) -> None:
    result = run(publish, "--url", f"http://127.0.0.1:{free_port()}", "--tries", "2", "x")
    assert result.exit_code == 5
    assert "Connection refused" in result.stderr


@pytest.mark.parametrize(
    ("status", "code"), [(400, 1), (401, 3), (403, 3), (404, 4), (409, 1), (413, 1), (500, 1), (302, 1)]
)
def test_a_final_refusal_is_not_tried_again(
    run: Run, scripted: Start, delays: list[float], status: int, code: int
) -> None:
    server = scripted(answer(status, {"field": "type", "reason": "is reserved"}))
    result = run(publish, "--url", server.url, "x")
    assert (result.exit_code, result.stdout, delays) == (code, "", [])
    assert result.stderr.startswith(f"not published: {status} ")
    assert result.stderr.endswith(": type: is reserved\n")


@pytest.mark.parametrize("body", [{}, [], {"ids": "x"}, None])
def test_an_answer_that_is_not_ours_is_no_success(run: Run, scripted: Start, body: object) -> None:
    result = run(publish, "--url", scripted(answer(200, body)).url, "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is this the right --url?" in result.stderr


def test_lines_of_standard_input_go_out_as_ndjson(run: Run, scripted: Start) -> None:
    server = scripted(answer(200, {"ids": ["1", "2"]}))
    lines = b'{"topic":"a"}\n\n{"data":{"x":1}}\n'
    result = run(publish, "--url", server.url, "-", input=lines)
    assert (result.exit_code, result.stdout) == (0, "1\n2\n")
    assert server.requests[0].headers["content-type"] == "application/x-ndjson"
    assert server.requests[0].body == b'{"topic":"a"}\n{"data":{"x":1}}\n'


def test_options_fill_in_lines_of_standard_input(run: Run, scripted: Start) -> None:
    server = scripted(answer(200, {"ids": ["1"]}))
    run(publish, "--url", server.url, "--topic", "a", "--private", "-", input=b'{"data":"x"}\n')
    assert json.loads(server.requests[0].body) == {"data": "x", "topics": ["a"], "private": True}


def test_no_input_is_no_publish(run: Run) -> None:
    assert run(publish, "--url", "http://127.0.0.1:1", "-", input=b"\n\n").exit_code == 0


def test_complaints_name_the_lines_of_the_input(run: Run, scripted: Start) -> None:
    errors = [{"line": 2, "field": "type", "reason": "is reserved"}, {"line": 3, "field": "", "reason": "is\nnot JSON"}]
    server = scripted(answer(400, {"code": "bad_request", "reason": "nothing was published", "errors": errors}))
    result = run(publish, "--url", server.url, "-", input=b"\n{}\n\n{}\n{}\n")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "line 4: type: is reserved",
        "line 5: is\\nnot JSON",
        "not published: 400 Bad Request: nothing was published; nothing from line 2 on",
    ]


def test_a_key_or_an_id_for_many_events_is_a_mistake(run: Run) -> None:
    for option in ("--id", "--idempotency-key"):
        assert run(publish, option, "x", "-", input=b"{}\n").exit_code == 2


@pytest.mark.parametrize("token", ["a\nb", "a b", "é", "a\0"])
def test_a_token_that_is_no_token_is_refused_and_not_shown(run: Run, token: str) -> None:
    result = run(publish, "--token", f"canary{token}", "x")
    assert result.exit_code == 2
    assert "canary" not in result.output


def test_a_password_in_the_address_is_refused_and_not_shown(run: Run) -> None:
    result = run(publish, "--url", "http://me:canary@127.0.0.1", "x")
    assert result.exit_code == 2
    assert "canary" not in result.output
