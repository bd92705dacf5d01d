"""Routes, methods and the one shape of errors, over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import structlog
from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from handlers.publish import Publisher
from tests.handlers.lodge import FORM, JSON, KEYED, MERCURE, ORIGIN, Lodge, bearer, token

NEVER_CACHED = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


async def fetch(client: AsyncHTTPClient, url: str, method: str = "GET", **options: Any) -> HTTPResponse:
    """One request, whatever the answer."""
    return await client.fetch(url, method=method, raise_error=False, allow_nonstandard_methods=True, **options)


def error_of(answer: HTTPResponse) -> dict[str, Any]:
    """The error in an answer, after a look at what every error has."""
    assert answer.headers["Content-Type"] == "application/json"
    assert {name: answer.headers[name] for name in NEVER_CACHED} == NEVER_CACHED
    assert answer.headers["Vary"] == "Origin, Authorization, Cookie"
    facts = json.loads(answer.body)
    assert facts["code"]
    assert facts["reason"]
    assert isinstance(facts, dict)
    return facts


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "path",
    ["/nothing", "/channels", "/channels/main", "/channels/main/events/", "/channels/Main/events", "/health/", "//",
     "/.well-known/mercure/", "/.well-known", "/console/", "/console/index.html", "/console/../setup.py",
     "/console/__init__.py", "/favicon.ico", "/stats.json", "/%68ealth"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_any_other_path_is_not_found_whatever_the_method(
    http_client: AsyncHTTPClient, base_url: str, path: str, method: str
) -> None:
    answer = await fetch(http_client, base_url + path, method, body=b"" if method in ("POST", "PUT") else None)
    assert answer.code == 404
    assert error_of(answer)["code"] == "not_found"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        (MERCURE, "PUT", "GET, HEAD, POST, OPTIONS"),
        (MERCURE, "DELETE", "GET, HEAD, POST, OPTIONS"),
        ("/channels/main/events", "PATCH", "GET, HEAD, POST, OPTIONS"),
        ("/health", "POST", "GET, HEAD, OPTIONS"),
        ("/stats", "DELETE", "GET, HEAD, OPTIONS"),
        ("/", "POST", "GET, HEAD, OPTIONS"),
        ("/console/console.js", "PUT", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_method_that_a_path_does_not_have_is_refused_with_those_it_has(
    http_client: AsyncHTTPClient, base_url: str, path: str, method: str, allowed: str
) -> None:
    answer = await fetch(http_client, base_url + path, method, body=None if method == "DELETE" else b"")
    assert (answer.code, answer.headers["Allow"]) == (405, allowed)
    assert error_of(answer)["code"] == "method_not_allowed"


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/health", "/ready", "/stats", "/metrics", "/", "/console/console.js"])
async def test_head_answers_what_get_would_without_the_body(
    http_client: AsyncHTTPClient, base_url: str, path: str
) -> None:
    get, head = await fetch(http_client, base_url + path), await fetch(http_client, base_url + path, "HEAD")
    assert (get.code, head.code, head.body) == (200, 200, b"")
    assert get.headers["Content-Type"] == head.headers["Content-Type"]


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/health", "/nothing", MERCURE, "/", "/console/console.css"])
async def test_no_answer_says_what_it_is_made_with_or_may_be_kept(
    http_client: AsyncHTTPClient, base_url: str, path: str
) -> None:
    answer = await fetch(http_client, base_url + path)
    assert "Server" not in answer.headers
    assert "Etag" not in answer.headers
    assert answer.headers["Cache-Control"].startswith("no-store")


# --- other origins


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
@pytest.mark.parametrize("path", [MERCURE, "/channels/new/events", "/health", "/"])
async def test_a_preflight_of_an_allowed_origin_needs_no_token(
    http_client: AsyncHTTPClient, base_url: str, own_settings: dict[str, Any], path: str
) -> None:
    answer = await fetch(http_client, base_url + path, "OPTIONS", headers={"Origin": ORIGIN})
    assert (answer.code, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD, POST"
    assert "Idempotency-Key" in answer.headers["Access-Control-Allow-Headers"]
    assert answer.headers["Access-Control-Max-Age"] == "600"
    assert "Content-Type" not in answer.headers


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://app.example.evil", "HTTPS://APP.EXAMPLE"])
async def test_a_preflight_of_any_other_origin_is_refused_and_names_none(
    http_client: AsyncHTTPClient, base_url: str, own_settings: dict[str, Any], origin: str
) -> None:
    answer = await fetch(http_client, base_url + MERCURE, "OPTIONS", headers={"Origin": origin})
    assert answer.code == 403
    assert error_of(answer)["field"] == "Origin"
    assert not [name for name in answer.headers if name.startswith("Access-Control")]


@pytest.mark.gen_test
async def test_options_without_an_origin_says_what_is_allowed(http_client: AsyncHTTPClient, base_url: str) -> None:
    answer = await fetch(http_client, base_url + MERCURE, "OPTIONS")
    assert (answer.code, answer.headers["Allow"]) == (204, "GET, HEAD, POST, OPTIONS")
    assert "Access-Control-Allow-Methods" not in answer.headers


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
async def test_errors_carry_the_headers_that_a_success_would(
    http_client: AsyncHTTPClient, base_url: str, own_settings: dict[str, Any]
) -> None:
    for path, method in (("/nothing", "GET"), (MERCURE, "PUT"), (MERCURE, "POST")):
        body = None if method == "GET" else b""
        answer = await fetch(http_client, base_url + path, method, body=body, headers={"Origin": ORIGIN})
        assert answer.code >= 400
        assert answer.headers.get_list("Access-Control-Allow-Origin") == [ORIGIN]
        assert answer.headers.get_list("Vary") == ["Origin, Authorization, Cookie"]


# --- publishing


@pytest.mark.gen_test
async def test_a_form_is_published_and_answered_with_its_id(
    http_client: AsyncHTTPClient, base_url: str, lodge: Lodge
) -> None:
    answer = await fetch(
        http_client, base_url + MERCURE, "POST", body="topic=a&data=x%0Ay&type=t&retry=5", headers=FORM
    )
    assert (answer.code, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    [event] = lodge.events
    assert (event.topics, event.data, event.type, event.retry_ms) == (("a",), "x\ny", "t", 5)
    assert answer.body.decode() == lodge.node.hub.channels["main"].log.after(0, 1)[0].id


@pytest.mark.gen_test
async def test_a_chunked_body_is_published_too(http_client: AsyncHTTPClient, base_url: str, lodge: Lodge) -> None:
    async def produce(write: Any) -> None:
        for piece in (b"topic=a&", b"data=", b"x" * 100_000):
            await write(piece)

    answer = await fetch(http_client, base_url + MERCURE, "POST", body_producer=produce, headers=FORM)
    assert answer.code == 200
    assert lodge.events[0].data == "x" * 100_000


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [{"max_body_bytes": 1000}])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_too_large_however_it_comes(
    http_client: AsyncHTTPClient, base_url: str, own_settings: dict[str, Any], lodge: Lodge, chunked: bool
) -> None:
    data = b"topic=a&data=" + b"x" * 5000

    async def produce(write: Any) -> None:
        await write(data)

    body = {"body_producer": produce} if chunked else {"body": data}
    answer = await fetch(http_client, base_url + MERCURE, "POST", headers=FORM, **body)
    assert answer.code == 413
    assert error_of(answer)["code"] == "too_large"
    assert lodge.events == []


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [{"max_body_bytes": 1000}])
async def test_a_body_that_grows_too_large_ends_the_connection_and_the_answer_says_so(
    http_server: object, http_port: int, own_settings: dict[str, Any]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", http_port)
    head = f"POST {MERCURE} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    writer.write(head + b"3e9\r\n" + b"x" * 1001)
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nConnection: close\r\n" in answer


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED | {"max_body_bytes": 100}])
async def test_a_bad_token_comes_before_a_body_that_is_too_large(
    http_client: AsyncHTTPClient, base_url: str, own_settings: dict[str, Any]
) -> None:
    for headers, code in (({}, 401), ({"Authorization": "Bearer x"}, 401), (bearer(mercure={"publish": ["*"]}), 413)):
        answer = await fetch(http_client, base_url + MERCURE, "POST", body=b"x" * 101, headers=FORM | headers)
        assert answer.code == code


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/nothing"), ("POST", "/health"), ("OPTIONS", MERCURE), ("PUT", MERCURE), ("PUT", "/")],
)
async def test_a_body_that_nobody_has_a_use_for_is_dropped_and_the_connection_goes_on(
    http_server: object, http_port: int, lodge: Lodge, method: str, path: str
) -> None:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", http_port)
    writer.write(head + b"x" * 500_000 + b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answers = await reader.read()
    writer.close()
    assert answers.count(b"HTTP/1.1 ") == 2
    assert b'"status":"ok"' in answers


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/health", MERCURE, "/nothing"])
async def test_a_method_that_nobody_knows_ends_the_connection(
    http_client: AsyncHTTPClient, base_url: str, path: str
) -> None:
    answer = await fetch(http_client, base_url + path, "BREW")
    assert (answer.code, answer.headers["Connection"]) == (405, "close")
    assert error_of(answer)["code"] == "method_not_allowed"


@pytest.mark.gen_test
async def test_a_new_channel_comes_into_being_with_its_first_event(
    http_client: AsyncHTTPClient, base_url: str, lodge: Lodge
) -> None:
    url = f"{base_url}/channels/prices/events"
    answer = await fetch(http_client, url, "POST", body='{"topic": "a", "data": {"b": 1}}', headers=JSON)
    assert answer.code == 200
    [event_id] = json.loads(answer.body)["ids"]
    channel = lodge.node.hub.channels["prices"]
    assert event_id.startswith(channel.epoch)
    assert channel.log.after(0, 1)[0].event.data == '{"b":1}'


# --- what goes wrong inside


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
async def test_an_error_of_ours_is_a_500_without_details_and_a_log_line_without_the_query(
    http_client: AsyncHTTPClient, base_url: str, own_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Publisher, "publish", broken)
    secret = token(mercure={"publish": ["*"]})
    with structlog.testing.capture_logs() as lines:
        answer = await fetch(http_client, f"{base_url}{MERCURE}?authorization={secret}", "POST", body=b"", headers=FORM)
    assert answer.code == 500
    assert error_of(answer) == {"code": "internal", "reason": "an error of the server"}
    assert [line["event"] for line in lines] == ["handler_failed"]
    assert secret not in str(lines)


@pytest.mark.gen_test
async def test_an_error_outside_the_surface_is_answered_in_the_same_form(
    http_client: AsyncHTTPClient, base_url: str, lodge: Lodge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_request: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(lodge.vitals, "answer", broken)
    with structlog.testing.capture_logs() as lines:
        answer = await fetch(http_client, f"{base_url}/health?secret=1")
    assert answer.code == 500
    assert error_of(answer)["code"] == "internal"
    assert [(line["event"], line["path"]) for line in lines] == [("handler_failed", "/health")]
