"""Publishing: the order of the checks, and what an acknowledgement says."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from server.exchange import Response
from server.ids import format_id
from server.relay.memory import MemoryRelay
from server.relay.protocol import RelayUnavailable
from tests.handlers.lodge import FORM, JSON, KEYED, MERCURE, ORIGIN, Lodge, bearer, facts, request

EVENTS = "/channels/main/events"
NDJSON = {"Content-Type": "application/x-ndjson"}
PUBLISHER: dict[str, Any] = {"sub": "shop", "mercure": {"publish": ["a", "b/{id}"]}}


def posted(lodge: Lodge, path: str, body: bytes, **headers: str) -> Response:
    """The answer to a publish that needs no waiting."""
    answer = lodge.surface.publish(request(path, body, method="POST", **headers))
    assert isinstance(answer, Response)
    return answer


def form(lodge: Lodge, body: bytes = b"topic=a&data=x", **headers: str) -> Response:
    return posted(lodge, MERCURE, body, **FORM | headers)


def json(lodge: Lodge, body: bytes = b'{"topic": "a"}', **headers: str) -> Response:
    return posted(lodge, EVENTS, body, **JSON | headers)


# --- acknowledgements


def test_a_form_is_acknowledged_with_the_bare_id(lodge: Lodge) -> None:
    answer = form(lodge)
    assert (answer.status, answer.content_type) == (200, "text/plain; charset=utf-8")
    assert answer.body.decode() == lodge.node.hub.channels["main"].log.after(0, 1)[0].id
    assert ("Cache-Control", "no-store") in answer.headers


def test_json_is_acknowledged_with_a_list_of_ids_in_order(lodge: Lodge) -> None:
    body = b'{"data": "1"}\n{"data": "2", "id": "mine"}\n{"data": "3"}\n'
    answer = posted(lodge, EVENTS, body, **NDJSON)
    ids = facts(answer)["ids"]
    assert ids == [entry.id for entry in lodge.node.hub.channels["main"].log.after(0, 9)]
    assert ids[1] == "mine"


def test_a_media_type_may_have_parameters_and_any_case(lodge: Lodge) -> None:
    for kind in ("application/x-www-form-urlencoded; charset=UTF-8", "Application/X-WWW-Form-Urlencoded"):
        assert form(lodge, **{"Content-Type": kind}).status == 200
    assert json(lodge, **{"Content-Type": "application/json;charset=utf-8"}).status == 200


def test_all_lines_are_published_or_none(lodge: Lodge) -> None:
    answer = posted(lodge, EVENTS, b'{"data": "1"}\n{"type": ""}\n', **NDJSON)
    assert (answer.status, facts(answer)["errors"]) == (
        400, [{"line": 2, "field": "type", "reason": "must not be empty"}],
    )  # fmt: skip
    assert lodge.events == []


# --- the order of the checks


@pytest.mark.parametrize("own_settings", [KEYED | {"max_body_bytes": 60}])
def test_the_checks_have_an_order(lodge: Lodge, own_settings: dict[str, Any]) -> None:
    wrong = b"topic=&topic=z&retry=x&type=gap" + b"&" * 60

    def outcome(body: bytes, **headers: str) -> tuple[int, str]:
        answer = form(lodge, body, **headers)
        return answer.status, facts(answer).get("field", facts(answer)["code"])

    good = bearer(**PUBLISHER)
    assert outcome(wrong, origin="https://evil.example", authorization="Basic x") == (403, "Origin")
    assert outcome(wrong, authorization="Basic x") == (400, "Authorization")
    assert outcome(wrong, authorization="Bearer x") == (401, "unauthorized")
    assert outcome(wrong) == (401, "unauthorized")
    assert outcome(wrong, **good) == (413, "too_large")
    assert outcome(b"topic=&retry=x", **good) == (400, "topic")
    assert outcome(b"topic=z&retry=x", **good) == (400, "retry")
    assert outcome(b"topic=z&type=gap", **good) == (403, "forbidden")
    assert outcome(b"topic=a&type=gap&id=%23", **good) == (400, "type")
    assert outcome(b"topic=a&id=%23", **good) == (400, "id")
    assert lodge.events == []
    assert form(lodge, b"topic=a&topic=b/1", **good, origin=ORIGIN).status == 200


@pytest.mark.parametrize("own_settings", [KEYED])
@pytest.mark.parametrize(
    ("topics", "status"),
    [("a", 200), ("b/1", 200), ("a&topic=b/2", 200), ("a&topic=c", 403), ("c", 403), ("b/1/2", 403)],
)
def test_every_topic_needs_a_grant(lodge: Lodge, own_settings: dict[str, Any], topics: str, status: int) -> None:
    answer = form(lodge, b"topic=" + topics.encode(), **bearer(**PUBLISHER))
    assert answer.status == status
    if status == 403:
        assert ("WWW-Authenticate", 'Bearer error="insufficient_scope"') in answer.headers


@pytest.mark.parametrize("own_settings", [KEYED])
def test_an_event_without_topics_needs_a_grant_for_everything(lodge: Lodge, own_settings: dict[str, Any]) -> None:
    assert json(lodge, b"{}", **bearer(**PUBLISHER)).status == 403
    assert json(lodge, b"{}", **bearer(mercure={"publish": ["*"]})).status == 200


@pytest.mark.parametrize("own_settings", [KEYED])
def test_rights_on_one_channel_are_none_on_another(lodge: Lodge, io_loop: IOLoop, own_settings: dict[str, Any]) -> None:
    io_loop.run_sync(lambda: lodge.rooms.open("prices"))
    there = "/channels/prices/events"
    assert posted(lodge, there, b'{"topic": "a"}', **JSON, **bearer(**PUBLISHER)).status in (403, 404)
    granted = bearer(ringcast={"prices": {"publish": ["a"]}})
    assert posted(lodge, there, b'{"topic": "a"}', **JSON, **granted).status == 200
    assert json(lodge, **granted).status == 403


@pytest.mark.parametrize("own_settings", [KEYED | {"anonymous": True}])
def test_nobody_publishes_without_a_token(lodge: Lodge, own_settings: dict[str, Any]) -> None:
    answer = form(lodge)
    assert (answer.status, dict(answer.headers)["WWW-Authenticate"]) == (401, "Bearer")


def test_only_this_machine_publishes_where_there_is_no_key(lodge: Lodge) -> None:
    asked = request(MERCURE, b"topic=a", remote="192.0.2.1", **FORM)
    answer = lodge.surface.publish(asked)
    assert isinstance(answer, Response)
    assert answer.status == 401


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (MERCURE, "application/json"),
        (MERCURE, ""),
        (MERCURE, "multipart/form-data"),
        (EVENTS, "text/plain"),
        (EVENTS, ""),
    ],
)
def test_each_endpoint_has_its_media_types(lodge: Lodge, path: str, kind: str) -> None:
    answer = posted(lodge, path, b"topic=a", **{"Content-Type": kind})
    assert (answer.status, facts(answer)["field"]) == (400, "Content-Type")


def test_the_rules_of_main_hold_whichever_way_an_event_comes(lodge: Lodge, io_loop: IOLoop) -> None:
    for body in (b'{"topic": "/.well-known/mercure/x"}', b'{"topic": "a", "type": "mercure"}'):
        assert json(lodge, body).status == 400
        io_loop.run_sync(lambda: lodge.rooms.open("prices"))
        assert posted(lodge, "/channels/prices/events", body, **JSON).status == 200


def test_an_id_that_looks_like_the_servers_own_is_refused_in_this_epoch_alone(lodge: Lodge) -> None:
    epoch = lodge.node.hub.channels["main"].epoch
    assert form(lodge, b"topic=a&id=" + format_id(epoch, 1).encode()).status == 400
    assert form(lodge, b"topic=a&id=" + format_id("zzzzzz", 1).encode()).status == 200
    batch = b'{"data": "1"}\n{"id": "' + format_id(epoch, 1).encode() + b'"}'
    assert posted(lodge, EVENTS, batch, **NDJSON).status == 400
    assert len(lodge.events) == 1


@pytest.mark.parametrize("own_settings", [{"max_frame_bytes": 1000}])
def test_an_event_too_large_on_the_wire_is_refused(lodge: Lodge, own_settings: dict[str, Any]) -> None:
    answer = form(lodge, b"topic=a&data=" + b"%0A" * 500)
    assert (answer.status, facts(answer)["code"], facts(answer)["field"]) == (413, "too_large", "data")


@pytest.mark.parametrize("name", ["\\ud800", "x" * 5000])
def test_whatever_a_publisher_calls_a_field_it_gets_an_answer(lodge: Lodge, name: str) -> None:
    assert json(lodge, f'{{"{name}": 1}}'.encode()).status == 400


# --- the same request again


def test_the_same_key_and_request_give_the_same_ids_and_no_new_event(lodge: Lodge) -> None:
    first = form(lodge, **{"Idempotency-Key": "k"})
    again = form(lodge, **{"Idempotency-Key": "k"})
    assert first.body == again.body
    assert "Idempotency-Replayed" not in dict(first.headers)
    assert dict(again.headers)["Idempotency-Replayed"] == "true"
    assert len(lodge.events) == 1


def test_the_same_key_with_another_request_is_a_conflict(lodge: Lodge) -> None:
    form(lodge, **{"Idempotency-Key": "k"})
    for answer in (form(lodge, b"topic=b", **{"Idempotency-Key": "k"}), json(lodge, **{"Idempotency-Key": "k"})):
        assert (answer.status, facts(answer)["code"]) == (409, "conflict")
    assert len(lodge.events) == 1


@pytest.mark.parametrize("own_settings", [KEYED])
def test_two_publishers_may_use_one_key(lodge: Lodge, own_settings: dict[str, Any]) -> None:
    for subject in ("shop", "other"):
        headers = bearer(**PUBLISHER | {"sub": subject}) | {"Idempotency-Key": "k"}
        assert "Idempotency-Replayed" not in dict(form(lodge, **headers).headers)
    assert len(lodge.events) == 2


@pytest.mark.parametrize("own_settings", [KEYED])
def test_tokens_without_a_subject_are_publishers_of_their_own(lodge: Lodge, own_settings: dict[str, Any]) -> None:
    first, second = (bearer(exp=4_000_000_000 + age, mercure={"publish": ["a"]}) for age in (1, 2))
    for headers, replayed in ((first, False), (second, False), (first, True)):
        answer = form(lodge, **headers, **{"Idempotency-Key": "k"})
        assert ("Idempotency-Replayed" in dict(answer.headers)) == replayed
    assert form(lodge, b"topic=a&data=other", **second, **{"Idempotency-Key": "k"}).status == 409
    assert len(lodge.events) == 2


@pytest.mark.parametrize("own_settings", [KEYED])
def test_a_subject_is_one_publisher_whichever_token_it_brings(lodge: Lodge, own_settings: dict[str, Any]) -> None:
    for age in (1, 2):
        headers = bearer(**PUBLISHER, exp=4_000_000_000 + age)
        assert form(lodge, **headers, **{"Idempotency-Key": "k"}).status == 200
    assert len(lodge.events) == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 256, "a\x7f"])
def test_a_key_is_visible_ascii(lodge: Lodge, key: str) -> None:
    assert facts(form(lodge, **{"Idempotency-Key": key}))["field"] == "Idempotency-Key"
    assert form(lodge, **{"Idempotency-Key": "x" * 255}).status == 200


# --- a log that takes nothing


def refusing(*_: object) -> Any:
    raise RelayUnavailable("the disk is full")


def test_a_log_that_takes_no_events_is_told_and_may_be_tried_again(
    lodge: Lodge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lodge.node.hub, "_append_now", refusing)
    answer = form(lodge)
    assert (answer.status, facts(answer)) == (503, {"code": "unavailable", "reason": "the disk is full"})
    assert int(dict(answer.headers)["Retry-After"]) > 0


async def answered(answer: Response | Awaitable[Response]) -> Response:
    assert inspect.isawaitable(answer)
    return await answer


@pytest.mark.gen_test
async def test_so_is_a_log_that_takes_time_and_then_no_events(lodge: Lodge, monkeypatch: pytest.MonkeyPatch) -> None:
    async def append(*_: object) -> Any:
        raise RelayUnavailable("the disk is full")

    monkeypatch.setattr(lodge.node.hub, "_append_now", None)
    monkeypatch.setattr(MemoryRelay, "append", append)
    answer = await answered(lodge.surface.publish(request(MERCURE, b"topic=a", **FORM)))
    assert (answer.status, facts(answer)["code"]) == (503, "unavailable")


@pytest.mark.gen_test
async def test_a_new_channel_that_cannot_be_opened_is_told(lodge: Lodge, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> Any:
        raise RelayUnavailable("the disk is full")

    monkeypatch.setattr(MemoryRelay, "open", refuse)
    answer = await answered(lodge.surface.publish(request("/channels/new/events", b"{}", **JSON)))
    assert (answer.status, facts(answer)["code"]) == (503, "unavailable")


@pytest.mark.gen_test
async def test_a_new_channel_is_opened_and_published_to(lodge: Lodge) -> None:
    answer = await answered(lodge.surface.publish(request("/channels/new/events", b"{}", **JSON)))
    assert answer.status == 200
    assert len(lodge.node.hub.channels["new"].log) == 1


@pytest.mark.parametrize("own_settings", [{"open_channels": False}])
def test_where_channels_are_closed_a_new_one_is_not_found(lodge: Lodge, own_settings: dict[str, Any]) -> None:
    answer = posted(lodge, "/channels/new/events", b"{}", **JSON)
    assert (answer.status, facts(answer)["code"]) == (404, "not_found")
