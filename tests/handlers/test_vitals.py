"""Health, readiness, statistics and metrics: what they say, and to whom."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient

from handlers.answers import Refused
from server.relay.memory import MemoryRelay
from tests.handlers.lodge import KEYED, ORIGIN, Lodge, bearer, facts, request
from tests.handlers.test_application import error_of, fetch

OPERATOR: dict[str, Any] = {"ringcast": {"operate": True}}


@pytest.mark.gen_test
async def test_health_says_that_the_process_serves(http_client: AsyncHTTPClient, base_url: str) -> None:
    answer = await fetch(http_client, f"{base_url}/health")
    assert (answer.code, answer.headers["Content-Type"]) == (200, "application/json")
    assert json.loads(answer.body)["status"] == "ok"


@pytest.mark.gen_test
async def test_a_node_that_drains_is_healthy_and_not_ready(
    http_client: AsyncHTTPClient, base_url: str, lodge: Lodge
) -> None:
    answer = await fetch(http_client, f"{base_url}/ready")
    assert (answer.code, json.loads(answer.body)) == (
        200, {"ready": True, "checks": {"relay": "ok", "accepting": "ok", "draining": False}},
    )  # fmt: skip
    lodge.node.begin_drain()
    answer = await fetch(http_client, f"{base_url}/ready")
    assert (answer.code, answer.headers["Retry-After"]) == (503, "5")
    assert json.loads(answer.body) == {"ready": False, "checks": {"relay": "ok", "accepting": "ok", "draining": True}}
    assert (await fetch(http_client, f"{base_url}/health")).code == 200


@pytest.mark.gen_test
async def test_a_relay_that_takes_nothing_is_named_with_its_reason(
    http_client: AsyncHTTPClient, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryRelay, "state", lambda self: {"ok": False, "reason": "the disk is full"})
    answer = await fetch(http_client, f"{base_url}/ready")
    assert (answer.code, json.loads(answer.body)["checks"]["relay"]) == (503, "the disk is full")


@pytest.mark.gen_test
async def test_statistics_are_json_and_metrics_are_text(
    http_client: AsyncHTTPClient, base_url: str, lodge: Lodge
) -> None:
    stats = await fetch(http_client, f"{base_url}/stats")
    assert json.loads(stats.body)["connections"]["maximum"] == 100
    metrics = await fetch(http_client, f"{base_url}/metrics")
    assert metrics.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\nringcast_connections_maximum 100.0\n" in metrics.body
    assert b"\nringcast_ready 1.0\n" in metrics.body


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
@pytest.mark.parametrize("path", ["/stats", "/metrics"])
@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Proto", "Via"])
async def test_what_a_proxy_forwards_is_not_from_this_machine(
    http_client: AsyncHTTPClient, base_url: str, own_settings: dict[str, Any], path: str, header: str
) -> None:
    assert (await fetch(http_client, base_url + path)).code == 200
    forwarded = await fetch(http_client, base_url + path, headers={header: "127.0.0.1"})
    assert forwarded.code == 404
    assert error_of(forwarded)["code"] == "not_found"
    operator = await fetch(http_client, base_url + path, headers={header: "203.0.113.1"} | bearer(**OPERATOR))
    assert operator.code == 200


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
async def test_a_page_of_an_origin_that_is_not_allowed_sees_no_statistics(
    http_client: AsyncHTTPClient, base_url: str, own_settings: dict[str, Any]
) -> None:
    assert (await fetch(http_client, f"{base_url}/stats", headers={"Origin": "https://evil.example"})).code == 403
    answer = await fetch(http_client, f"{base_url}/stats", headers={"Origin": ORIGIN})
    assert (answer.code, answer.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)


@pytest.mark.parametrize("own_settings", [KEYED])
@pytest.mark.parametrize(
    ("remote", "headers", "allowed"),
    [
        ("127.0.0.1", {}, True),
        ("127.8.7.6", {}, True),
        ("::1", {}, True),
        ("::ffff:127.0.0.1", {}, True),  # to a socket of both families
        ("::ffff:192.0.2.1", {}, False),
        ("", {}, True),  # a Unix socket
        ("192.0.2.1", {}, False),
        ("192.0.2.1", bearer(**OPERATOR), True),
        ("192.0.2.1", bearer(ringcast={"operate": False}), False),
        ("192.0.2.1", bearer(mercure={"publish": ["*"], "subscribe": ["*"]}), False),
        ("192.0.2.1", {"Authorization": "Bearer nonsense"}, False),
        ("192.0.2.1", {"Authorization": "Basic nonsense"}, False),
        ("", {"X-Forwarded-For": "127.0.0.1"}, False),
    ],
)
def test_statistics_are_for_this_machine_and_for_operators(
    lodge: Lodge, own_settings: dict[str, Any], remote: str, headers: dict[str, str], allowed: bool
) -> None:
    for path in ("/stats", "/metrics"):
        asked = request(path, remote=remote, **headers)
        if allowed:
            assert asyncio.run(lodge.vitals.answer(asked)).status == 200
        else:
            with pytest.raises(Refused) as caught:
                asyncio.run(lodge.vitals.answer(asked))
            assert caught.value.status == 404


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_health_and_readiness_are_for_everybody_and_name_nothing(lodge: Lodge, path: str) -> None:
    answer = asyncio.run(lodge.vitals.answer(request(path, remote="192.0.2.1")))
    assert answer.status == 200
    assert set(facts(answer)) <= {"status", "uptime_seconds", "ready", "checks"}


def test_in_development_mode_this_machine_may_also_ask_through_a_proxy(lodge: Lodge) -> None:
    assert asyncio.run(lodge.vitals.answer(request("/stats", x_forwarded_for="127.0.0.1"))).status == 200
