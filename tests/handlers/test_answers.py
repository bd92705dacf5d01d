"""Answers: one shape for every refusal, and a way back for clients that should come back."""

from __future__ import annotations

import json

import pytest

from handlers.answers import (
    Refused,
    bad,
    dumps,
    json_response,
    missing_grant,
    missing_token,
    refusal_response,
    wants_event_stream,
)
from server.endings import BAD_REQUEST, ENDINGS, FINISHED, FORBIDDEN, Ending
from tests.handlers.lodge import facts, request

BROWSER = {"accept": "text/event-stream"}
COME_BACK = [ending for ending in ENDINGS.values() if ending.reconnect]
FINAL = [ending for ending in ENDINGS.values() if not ending.reconnect]


@pytest.mark.parametrize("ending", COME_BACK, ids=lambda ending: ending.code)
def test_an_event_source_that_should_come_back_gets_a_stream_that_says_when(ending: Ending) -> None:
    answer = refusal_response(Refused(ending), request("/", **BROWSER), stream=True)
    assert (answer.status, answer.content_type) == (200, "text/event-stream")
    assert answer.body.startswith(b"retry: ")
    assert f"\nevent: {ending.code}\n".encode() in answer.body
    assert ("Cache-Control", "no-store, no-transform") in answer.headers
    assert ("X-Accel-Buffering", "no") in answer.headers


@pytest.mark.parametrize("ending", COME_BACK, ids=lambda ending: ending.code)
@pytest.mark.parametrize(("accept", "stream"), [("*/*", True), ("text/event-stream", False), ("", True)])
def test_others_who_should_come_back_get_the_status_and_when(ending: Ending, accept: str, stream: bool) -> None:
    answer = refusal_response(Refused(ending), request("/", accept=accept), stream=stream)
    assert (answer.status, facts(answer)["code"]) == (ending.status, ending.code)
    seconds = int(dict(answer.headers)["Retry-After"])
    assert max(1, ending.retry_ms[0] // 1000) <= seconds <= max(1, ending.retry_ms[1] / 1000)


@pytest.mark.parametrize("ending", [one for one in FINAL if one is not FINISHED], ids=lambda ending: ending.code)
def test_who_should_not_come_back_gets_the_status_even_as_an_event_source(ending: Ending) -> None:
    answer = refusal_response(Refused(ending), request("/", **BROWSER), stream=True)
    assert (answer.status, facts(answer)) == (ending.status, {"code": ending.code, "reason": ending.reason})
    assert "Retry-After" not in dict(answer.headers)


def test_what_is_finished_has_no_content() -> None:
    answer = refusal_response(Refused(FINISHED), request("/", **BROWSER), stream=True)
    assert (answer.status, answer.body) == (204, b"")


def test_the_fields_of_an_application_s_own_form_stand_beside_the_server_s() -> None:
    answer = refusal_response(Refused(FORBIDDEN, beside={"error": "Forbidden"}), request("/"), stream=False)
    assert facts(answer) == {"code": "forbidden", "reason": FORBIDDEN.reason, "error": "Forbidden"}


def test_a_field_and_a_reason_are_named() -> None:
    answer = refusal_response(bad("retry", "must be ASCII digits"), request("/"), stream=False)
    assert answer.status == 400
    assert list(facts(answer).items()) == [
        ("code", "bad_request"), ("field", "retry"), ("reason", "must be ASCII digits")
    ]  # fmt: skip


def test_a_size_limit_is_its_own_status_and_code() -> None:
    answer = refusal_response(bad("data", "too long", too_large=True), request("/"), stream=False)
    assert (answer.status, facts(answer)["code"]) == (413, "too_large")


def test_a_status_and_a_code_can_differ_from_the_endings() -> None:
    refused = Refused(BAD_REQUEST, "Idempotency-Key", "was used", status=409, code="conflict")
    answer = refusal_response(refused, request("/"), stream=False)
    assert (answer.status, facts(answer)["code"]) == (409, "conflict")


def test_errors_of_several_lines_are_listed() -> None:
    errors = [{"line": 3, "field": "type", "reason": "is reserved"}]
    answer = refusal_response(Refused(BAD_REQUEST, reason="nothing", more=errors), request("/"), stream=False)
    assert facts(answer) == {"code": "bad_request", "reason": "nothing", "errors": errors}


@pytest.mark.parametrize(
    ("refused", "status", "challenge"),
    [
        (missing_token(), 401, "Bearer"),
        (missing_grant("no"), 403, 'Bearer error="insufficient_scope"'),
        (bad("a", "b"), 400, None),
    ],
)
def test_a_challenge_comes_with_what_a_token_could_change(refused: Refused, status: int, challenge: str | None) -> None:
    answer = refusal_response(refused, request("/"), stream=False)
    assert (answer.status, dict(answer.headers).get("WWW-Authenticate")) == (status, challenge)


@pytest.mark.parametrize(
    ("accept", "wants"),
    [
        ("text/event-stream", True),
        ("TEXT/EVENT-STREAM", True),
        ("application/json, text/event-stream;q=0.5", True),
        ("*/*", False),
        ("text/*", False),
        ("", False),
    ],
)
def test_an_event_source_is_told_by_what_it_accepts(accept: str, wants: bool) -> None:
    assert wants_event_stream(request("/", accept=accept)) is wants
    assert not wants_event_stream(request("/"))


def test_json_is_written_as_it_is_read() -> None:
    value = {"a": ["/", "é", "\u2028", 1, 1.5, True, None]}
    assert json.loads(dumps(value)) == value
    assert dumps("/é") == '"/é"'.encode()
    with pytest.raises(UnicodeEncodeError):
        dumps("\ud800")


def test_answers_share_no_list_of_headers() -> None:
    one, other = json_response({}), json_response({})
    one.headers.append(("X", "1"))
    assert ("X", "1") not in other.headers
