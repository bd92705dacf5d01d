"""Endpoints over HTTP: from the method and the path to the endpoint, and back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import structlog
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.web import Application

from handlers.application import Parts, make_application
from handlers.endpoints import Body, Call, Endpoint, Query, Reply, conflict, not_found, operators, signed_in
from handlers.response_cache import ResponseCache
from handlers.rest import endpoint_routes
from tests.handlers.lodge import JSON, KEYED, ORIGIN, Lodge, bearer, token
from tests.handlers.test_application import error_of, fetch

MAX_BYTES = 200


class Thing(Body):
    name: str


class Find(Query):
    n: int = 1


async def echo(call: Call) -> Reply:
    body = call.body.model_dump() if call.body is not None else None
    told = {"arguments": dict(call.arguments), "query": call.query.model_dump(), "body": body}
    return Reply(told | {"subject": call.principal.subject})


async def created(call: Call) -> Reply:
    return Reply({"name": call.body.name}, 201, [("Location", f"/api/things/{call.body.name}")])


async def searched(_: Call) -> Reply:
    return Reply({"found": []})


async def gone(_: Call) -> Reply:
    return Reply()


async def broken(_: Call) -> Reply:
    raise RuntimeError("a defect")


async def refusing(call: Call) -> Reply:
    raise conflict("name", "is taken") if call.arguments["id"] == "taken" else not_found("id", "there is none")


ENDPOINTS = [
    Endpoint("GET", "/api/things/{id}", echo, "A thing.", Find),
    Endpoint("PATCH", "/api/things/{id}", echo, "Change it.", body=Thing, max_body_bytes=MAX_BYTES),
    Endpoint("DELETE", "/api/things/{id}", gone, "Remove it."),
    Endpoint("GET", "/api/things/search", searched, "Search."),
    Endpoint("GET", "/api/things/{id}/parts/{part}", echo, "A part."),
    Endpoint("GET", "/api/things/first/parts/{part}", searched, "A part of the first."),
    Endpoint("POST", "/api/things", created, "Make one.", body=Thing, status=201, max_body_bytes=MAX_BYTES),
    Endpoint("GET", "/api/refusing/{id}", refusing, "Refuses."),
    Endpoint("GET", "/api/broken", broken, "Breaks."),
    Endpoint("GET", "/api/mine", echo, "For those with a token.", access=signed_in),
    Endpoint("PUT", "/api/mine", echo, "For those with a token.", access=signed_in),
    Endpoint("GET", "/api/operate", echo, "For operators.", access=operators),
]


@pytest.fixture
def app(lodge: Lodge) -> Application:
    parts = Parts(lodge.surface, lodge.vitals, lodge.connections)
    routes = endpoint_routes(ENDPOINTS, parts, lodge.rooms, ResponseCache())
    return make_application(parts, lodge.revoker, lodge.node.opener, routes, console=False)


def told(answer: HTTPResponse) -> Any:
    assert answer.code == 200, answer.body
    assert answer.headers["Content-Type"] == "application/json"
    return json.loads(answer.body)


# --- which endpoint


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("/api/things/1", {"id": "1"}),
        ("/api/things/a%20b", {"id": "a b"}),
        ("/api/things/a%2Fb", {"id": "a/b"}),
        ("/api/things/a+b", {"id": "a+b"}),
        ("/api/things/%C3%A9", {"id": "é"}),
        ("/api/things/1/parts/x%25", {"id": "1", "part": "x%"}),
        ("/api/things/%73earch", {"id": "search"}),  # fixed parts are spelled as they are
    ],
)
async def test_arguments_come_decoded(
    http_client: AsyncHTTPClient, base_url: str, path: str, arguments: dict[str, str]
) -> None:
    assert told(await fetch(http_client, base_url + path))["arguments"] == arguments


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/api/things/search", "/api/things/first/parts/x", "/api/things/search?n=1"])
async def test_a_more_specific_path_comes_before_one_with_an_argument(
    http_client: AsyncHTTPClient, base_url: str, path: str
) -> None:
    assert told(await fetch(http_client, base_url + path)) == {"found": []}


@pytest.mark.gen_test
@pytest.mark.parametrize("path", ["/api/things/", "/api/things/1/", "/api/things/1/parts", "/api", "/api/Things/1"])
async def test_any_other_path_is_not_found(http_client: AsyncHTTPClient, base_url: str, path: str) -> None:
    answer = await fetch(http_client, base_url + path)
    assert (answer.code, error_of(answer)["code"]) == (404, "not_found")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/api/things/1", "GET, PATCH, DELETE, HEAD, OPTIONS"),
        ("PUT", "/api/things/1", "GET, PATCH, DELETE, HEAD, OPTIONS"),
        ("PATCH", "/api/things/search", "GET, HEAD, OPTIONS"),
        ("GET", "/api/things", "POST, OPTIONS"),
        ("HEAD", "/api/things", "POST, OPTIONS"),
        ("TRACE", "/api/things", "POST, OPTIONS"),
        ("BREW", "/api/things", "POST, OPTIONS"),
    ],
)
async def test_a_method_that_a_path_does_not_have_is_refused_with_those_it_has(
    http_client: AsyncHTTPClient, base_url: str, method: str, path: str, allowed: str
) -> None:
    answer = await fetch(
        http_client, base_url + path, method, body=b"{}" if method in ("POST", "PATCH", "PUT") else None
    )
    assert (answer.code, answer.headers["Allow"]) == (405, allowed)
    if method != "HEAD":
        assert error_of(answer)["code"] == "method_not_allowed"


@pytest.mark.gen_test
async def test_head_answers_what_get_would_without_the_body(http_client: AsyncHTTPClient, base_url: str) -> None:
    for path in ("/api/things/1", "/api/things/search", "/api/things/1?n=x", "/api/refusing/1"):
        get, head = await fetch(http_client, base_url + path), await fetch(http_client, base_url + path, "HEAD")
        assert (head.code, head.body) == (get.code, b"")
        assert head.headers["Content-Length"] == get.headers["Content-Length"]


# --- what comes in


@pytest.mark.gen_test
async def test_a_body_and_parameters_reach_the_endpoint(http_client: AsyncHTTPClient, base_url: str) -> None:
    assert told(await fetch(http_client, f"{base_url}/api/things/1?n=5&x=y"))["query"] == {"n": 5}
    answer = await fetch(http_client, f"{base_url}/api/things/1", "PATCH", body='{"name": "é"}', headers=JSON)
    assert told(answer)["body"] == {"name": "é"}


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("body", "headers", "status", "code", "field"),
    [
        (b'{"name": 5}', JSON, 422, "invalid", "name"),
        (b'{"nmae": "x"}', JSON, 422, "invalid", "name"),
        (b"{", JSON, 400, "bad_request", None),
        (b"", JSON, 400, "bad_request", None),
        (b'{"name": "x"}', {"Content-Type": "text/plain"}, 415, "unsupported_type", "Content-Type"),
        (b'{"name": "' + b"x" * MAX_BYTES + b'"}', JSON, 413, "too_large", None),
    ],
)
async def test_a_body_that_is_not_good_is_refused_with_its_field(
    http_client: AsyncHTTPClient,
    base_url: str,
    body: bytes,
    headers: dict[str, str],
    status: int,
    code: str,
    field: str | None,
) -> None:
    for path, method in (("/api/things/1", "PATCH"), ("/api/things", "POST")):
        answer = await fetch(http_client, base_url + path, method, body=body, headers=headers)
        error = error_of(answer)
        assert (answer.code, error["code"], error.get("field")) == (status, code, field)


@pytest.mark.gen_test
@pytest.mark.parametrize(("query", "field"), [("n=x", "n"), ("n=%ff", "n"), ("n=1.5", "n"), ("%ff=1", None)])
async def test_a_parameter_that_is_not_good_is_refused_with_its_name(
    http_client: AsyncHTTPClient, base_url: str, query: str, field: str | None
) -> None:
    answer = await fetch(http_client, f"{base_url}/api/things/1?{query}")
    error = error_of(answer)
    assert (answer.code, error["code"], error.get("field")) == (400, "bad_request", field)


@pytest.mark.gen_test
async def test_a_body_of_just_the_limit_is_taken_however_it_comes(http_client: AsyncHTTPClient, base_url: str) -> None:
    body = b'{"name": "' + b"x" * (MAX_BYTES - 12) + b'"}'

    async def produce(write: Any) -> None:
        for start in range(0, MAX_BYTES, 7):
            await write(body[start : start + 7])

    for way in ({"body": body}, {"body_producer": produce}):
        assert len(body) == MAX_BYTES
        told(await fetch(http_client, f"{base_url}/api/things/1", "PATCH", headers=JSON, **way))


@pytest.mark.gen_test
async def test_a_body_that_grows_too_large_ends_the_connection_and_the_answer_says_so(
    http_server: object, http_port: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", http_port)
    head = b"PATCH /api/things/1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head + b"64\r\n" + b"x" * 100 + b"\r\n65\r\n" + b"x" * 101)
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.gen_test
async def test_a_body_that_nobody_asked_for_is_dropped_and_the_connection_goes_on(
    http_server: object, http_port: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", http_port)
    for first in (b"POST /api/things/1", b"PUT /api/things/search"):
        writer.write(first + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50_000)
    writer.write(b"GET /api/things/1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answers = await reader.read()
    writer.close()
    assert answers.count(b"HTTP/1.1 405 ") == 2
    assert answers.count(b"HTTP/1.1 200 ") == 1


# --- what goes out


@pytest.mark.gen_test
async def test_an_answer_has_the_status_and_headers_of_the_reply(http_client: AsyncHTTPClient, base_url: str) -> None:
    answer = await fetch(http_client, f"{base_url}/api/things", "POST", body='{"name": "x"}', headers=JSON)
    assert (answer.code, answer.headers["Location"], answer.body) == (201, "/api/things/x", b'{"name":"x"}')
    assert (answer.headers["Cache-Control"], answer.headers["Vary"]) == ("no-store", "Origin, Authorization, Cookie")
    assert "Server" not in answer.headers
    assert "X-Cache" not in answer.headers
    answer = await fetch(http_client, f"{base_url}/api/things/1", "DELETE")
    assert (answer.code, answer.body) == (204, b"")
    assert "Content-Type" not in answer.headers


@pytest.mark.gen_test
@pytest.mark.parametrize(("name", "status", "code"), [("x", 404, "not_found"), ("taken", 409, "conflict")])
async def test_a_refusal_of_the_endpoint_is_json_with_its_field(
    http_client: AsyncHTTPClient, base_url: str, name: str, status: int, code: str
) -> None:
    answer = await fetch(http_client, f"{base_url}/api/refusing/{name}")
    assert (answer.code, error_of(answer)["code"]) == (status, code)
    assert "field" in error_of(answer)


@pytest.mark.gen_test
async def test_an_endpoint_that_fails_is_a_500_without_details_and_a_log_line_without_the_query(
    http_client: AsyncHTTPClient, base_url: str
) -> None:
    with structlog.testing.capture_logs() as lines:
        answer = await fetch(http_client, f"{base_url}/api/broken?secret=1")
    assert answer.code == 500
    assert error_of(answer) == {"code": "internal", "reason": "an error of the server"}
    assert [(line["event"], line["path"]) for line in lines] == [("handler_failed", "/api/broken")]
    assert "secret" not in str(lines)


# --- who may


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
async def test_tokens_open_what_they_grant(
    http_client: AsyncHTTPClient, base_url: str, own_settings: dict[str, Any]
) -> None:
    async def status(path: str, **headers: str) -> tuple[int, str | None]:
        answer = await fetch(http_client, base_url + path, headers=headers)
        if answer.code != 200:
            error_of(answer)
        return answer.code, answer.headers.get("WWW-Authenticate")

    shop, boss = bearer(sub="shop"), bearer(sub="boss", ringcast={"operate": True})
    assert await status("/api/things/1") == (200, None)
    assert await status("/api/mine") == (401, "Bearer")
    assert await status("/api/mine", **shop) == (200, None)
    assert await status(f"/api/mine?authorization={token(sub='shop')}") == (200, None)
    assert await status("/api/mine", Cookie=f"mercureAuthorization={token(sub='shop')}") == (200, None)
    assert await status("/api/operate") == (401, "Bearer")
    assert await status("/api/operate", **shop) == (403, 'Bearer error="insufficient_scope"')
    assert await status("/api/operate", **boss) == (200, None)
    for path in ("/api/things/1", "/api/mine"):  # a bad token is not as none
        assert await status(path, Authorization="Bearer nonsense") == (401, 'Bearer error="invalid_token"')
    told_to = told(await fetch(http_client, f"{base_url}/api/mine", headers=shop))
    assert told_to["subject"] == "shop"


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
async def test_a_cookie_changes_nothing_from_a_page_that_is_not_allowed(
    http_client: AsyncHTTPClient, base_url: str, own_settings: dict[str, Any]
) -> None:
    cookie = {"Cookie": f"mercureAuthorization={token(sub='shop')}"}
    for headers, expected in (({}, 403), ({"Referer": f"{ORIGIN}/page"}, 200), ({"Origin": ORIGIN}, 200)):
        answer = await fetch(http_client, f"{base_url}/api/mine", "PUT", body=b"", headers=cookie | headers)
        assert answer.code == expected


# --- other origins


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
async def test_pages_of_allowed_origins_may_read_answers_and_errors(
    http_client: AsyncHTTPClient, base_url: str, own_settings: dict[str, Any]
) -> None:
    for path in ("/api/things/1", "/api/things/1?n=x", "/api/refusing/1", "/api/mine"):
        answer = await fetch(http_client, base_url + path, headers={"Origin": ORIGIN})
        assert answer.headers.get_list("Access-Control-Allow-Origin") == [ORIGIN]
        assert answer.headers.get_list("Vary") == ["Origin, Authorization, Cookie"]
        answer = await fetch(http_client, base_url + path, headers={"Origin": "https://evil.example"})
        assert (answer.code, error_of(answer)["field"]) == (403, "Origin")
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
async def test_a_preflight_needs_no_token_and_says_what_is_allowed(
    http_client: AsyncHTTPClient, base_url: str, own_settings: dict[str, Any]
) -> None:
    answer = await fetch(http_client, f"{base_url}/api/things", "OPTIONS", headers={"Origin": ORIGIN})
    assert (answer.code, answer.body, answer.headers["Allow"]) == (204, b"", "POST, OPTIONS")
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    answer = await fetch(http_client, f"{base_url}/api/things", "OPTIONS", headers={"Origin": "https://evil.example"})
    assert answer.code == 403
