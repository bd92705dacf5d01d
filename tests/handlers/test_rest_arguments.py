"""Endpoints whose path has arguments, asked in every way a browser asks, and bodies that hold anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.web import Application

from handlers.application import Parts, make_application
from handlers.endpoints import Body, Endpoint
from handlers.response_cache import ResponseCache
from handlers.rest import endpoint_routes
from tests.handlers.lodge import JSON, KEYED, ORIGIN, Lodge
from tests.handlers.test_application import error_of, fetch
from tests.handlers.test_rest import ENDPOINTS, echo


class Loose(Body):
    extra: dict[str, Any]


@pytest.fixture
def app(lodge: Lodge) -> Application:
    parts = Parts(lodge.surface, lodge.vitals, lodge.connections)
    loose = Endpoint("PATCH", "/api/loose/{id}", echo, "Anything.", body=Loose)
    routes = endpoint_routes([*ENDPOINTS, loose], parts, lodge.rooms, ResponseCache())
    return make_application(parts, lodge.revoker, lodge.node.opener, routes, console=False)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "path", ["/api/things/%ff", "/api/things/%C3", "/api/things/1/parts/%ED%A0%80", "/api/things/a%00"]
)
async def test_a_path_that_names_nothing_that_can_be_is_not_found(
    http_client: AsyncHTTPClient, base_url: str, path: str
) -> None:
    for method in ("GET", "HEAD"):
        answer = await fetch(http_client, base_url + path, method)
        assert answer.code == 404
    answer = await fetch(http_client, base_url + path)
    assert error_of(answer)["code"] == "not_found"


@pytest.mark.gen_test
@pytest.mark.parametrize("method", ["QUERY", "TRACE", "BREW"])
async def test_a_method_of_nobody_is_refused_on_a_path_with_arguments_too(
    http_client: AsyncHTTPClient, base_url: str, method: str
) -> None:
    answer = await fetch(http_client, f"{base_url}/api/things/1", method)
    assert (answer.code, answer.headers["Allow"]) == (405, "GET, PATCH, DELETE, HEAD, OPTIONS")


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
@pytest.mark.parametrize(
    ("path", "methods"),
    [("/api/things/1", "GET, PATCH, DELETE, HEAD"), ("/api/things", "POST"), ("/api/mine", "GET, PUT, HEAD")],
)
async def test_a_preflight_says_which_methods_this_path_has(
    http_client: AsyncHTTPClient, base_url: str, own_settings: dict[str, Any], path: str, methods: str
) -> None:
    answer = await fetch(http_client, base_url + path, "OPTIONS", headers={"Origin": ORIGIN})
    assert (answer.code, answer.headers["Allow"]) == (204, f"{methods}, OPTIONS")
    assert answer.headers["Access-Control-Allow-Methods"] == methods
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN


@pytest.mark.gen_test
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", '"\\ud800"', '{"\\ud800": 1}'])
async def test_what_cannot_be_written_as_json_is_not_read_as_json(
    http_client: AsyncHTTPClient, base_url: str, number: str
) -> None:
    body = f'{{"extra": {{"x": {number}}}}}'
    answer = await fetch(http_client, f"{base_url}/api/loose/1", "PATCH", body=body, headers=JSON)
    assert (answer.code, json.loads(answer.body)["reason"]) == (400, "the body must be JSON")


@pytest.mark.gen_test
@pytest.mark.parametrize("body", ["[]", "null", '"x"'])
async def test_a_reason_names_no_class_of_ours(http_client: AsyncHTTPClient, base_url: str, body: str) -> None:
    answer = await fetch(http_client, f"{base_url}/api/loose/1", "PATCH", body=body, headers=JSON)
    assert (answer.code, error_of(answer)["reason"]) == (422, "must be an object")


@pytest.mark.gen_test
async def test_a_nul_reaches_no_endpoint(http_client: AsyncHTTPClient, base_url: str) -> None:
    """PostgreSQL takes none in a text."""
    answer = await fetch(http_client, f"{base_url}/api/things/1?name=a%00b")
    assert (answer.code, error_of(answer)["field"]) == (400, "name")
    body = '{"extra": {"name": ["a%su0000b"]}}'
    for slashes, status in ((1, 422), (2, 200), (3, 422)):
        sent = body % ("\\" * slashes)
        answer = await fetch(http_client, f"{base_url}/api/loose/1", "PATCH", body=sent, headers=JSON)
        assert answer.code == status, sent
