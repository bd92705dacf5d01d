"""The response cache over HTTP: what a client sees of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.ioloop import IOLoop
from tornado.web import Application

from handlers.application import Parts, make_application
from handlers.cache_making import make_response_cache
from handlers.endpoints import Body, Call, Endpoint, Reply, not_found
from handlers.response_cache import ResponseCache
from handlers.rest import endpoint_routes
from tests.handlers.cache_bench import Search
from tests.handlers.lodge import JSON, KEYED, ORIGIN, Lodge, bearer
from tests.handlers.test_application import fetch

OTHER_ORIGIN = "https://other.example"
TWO_ORIGINS = KEYED | {"allowed_origins": [ORIGIN, OTHER_ORIGIN]}
DETAIL, SEARCH = "/api/facilities/{id}", "/api/facilities/search"


class Change(Body):
    status: str


class Facilities:
    """A few of them, and the endpoints that an application would have."""

    def __init__(self, cache: ResponseCache) -> None:
        self.cache = cache
        self.status = {"fac_001": "low", "fac_002": "low"}
        self.reads = 0
        self.gate: asyncio.Event | None = None

    async def detail(self, call: Call) -> Reply:
        self.reads += 1
        name = call.arguments["id"]
        if name not in self.status:
            raise not_found("id", "there is no such facility")
        status = self.status[name]
        if self.gate is not None:
            await self.gate.wait()
        return Reply({"id": name, "status": status}, tags=[f"facility:{name}"])

    async def search(self, call: Call) -> Reply:
        self.reads += 1
        found = [{"id": name, "status": status} for name, status in self.status.items()]
        tags = [f"facility:{name}" for name in self.status]
        return Reply(found, tags=tags, area=(call.query.lat, call.query.lon, call.query.radius))

    async def change(self, call: Call) -> Reply:
        self.status[call.arguments["id"]] = call.body.status
        self.cache.drop_now([f"facility:{call.arguments['id']}"])
        return Reply({"id": call.arguments["id"]})

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("GET", DETAIL, self.detail, "One.", keep_seconds=600),
            Endpoint("PATCH", DETAIL, self.change, "Change it.", body=Change),
            Endpoint("GET", SEARCH, self.search, "Some.", Search, keep_seconds=300, drop_on_change=False),
            Endpoint("GET", "/api/procedures", self.search, "All.", Search, keep_seconds=1800, shared=True),
            Endpoint("GET", "/api/now", self.search, "Never kept.", Search),
        ]


@pytest.fixture
def facilities(lodge: Lodge, io_loop: IOLoop) -> Iterator[Facilities]:
    cache = make_response_cache(lodge.settings)
    lodge.node.more_metrics.append(cache.metrics)
    lodge.node.more_stats["response_cache"] = cache.facts
    yield Facilities(cache)
    io_loop.run_sync(cache.stop)


@pytest.fixture
def app(lodge: Lodge, facilities: Facilities) -> Application:
    parts = Parts(lodge.surface, lodge.vitals, lodge.connections)
    routes = endpoint_routes(facilities.endpoints(), parts, lodge.rooms, facilities.cache)
    return make_application(parts, lodge.revoker, lodge.node.opener, routes, console=False)


class Client:
    """Asks, and tells what the cache did."""

    def __init__(self, client: AsyncHTTPClient, base_url: str) -> None:
        self._client = client
        self._base_url = base_url

    async def get(self, path: str, method: str = "GET", **headers: str) -> HTTPResponse:
        return await fetch(self._client, self._base_url + path, method, headers=headers)

    async def mark(self, path: str, **headers: str) -> str | None:
        answer = await self.get(path, **headers)
        assert len(answer.headers.get_list("X-Cache")) <= 1
        return answer.headers.get("X-Cache")

    async def change(self, name: str, status: str) -> None:
        url = f"{self._base_url}/api/facilities/{name}"
        answer = await fetch(self._client, url, "PATCH", body=json.dumps({"status": status}), headers=JSON)
        assert answer.code == 200
        assert "X-Cache" not in answer.headers


@pytest.fixture
def client(http_client: AsyncHTTPClient, base_url: str) -> Client:
    return Client(http_client, base_url)


@pytest.mark.gen_test
async def test_the_seeds_own_example(client: Client) -> None:
    """F6 and F7, word for word: search twice, change a facility, look again."""
    search = "/api/facilities/search?lat=6.5244&lon=3.3792&radius=10"
    assert await client.mark(search) == "MISS"
    assert await client.mark(search) == "HIT"
    assert await client.mark("/api/facilities/fac_001") == "MISS"
    assert await client.mark("/api/facilities/fac_002") == "MISS"
    await client.change("fac_001", "high")
    changed = await client.get("/api/facilities/fac_001")
    assert (changed.headers["X-Cache"], json.loads(changed.body)["status"]) == ("MISS", "high")
    assert await client.mark("/api/facilities/fac_002") == "HIT"
    assert await client.mark(search) == "HIT"


@pytest.mark.gen_test
async def test_a_hit_is_the_same_answer_with_its_age(client: Client) -> None:
    began = time.monotonic()
    first = await client.get("/api/facilities/search?lat=6.50&lon=3")
    second = await client.get("/api/facilities/search?utm=x&lon=3.0&lat=6.5")
    assert (second.body, second.code) == (first.body, first.code)
    assert "Age" not in first.headers
    assert 0 <= int(second.headers["Age"]) <= time.monotonic() - began
    told = {"X-Cache", "Age", "Date"}
    assert {name: value for name, value in first.headers.get_all() if name not in told} == {
        name: value for name, value in second.headers.get_all() if name not in told
    }
    assert second.headers["Cache-Control"] == "no-store"


@pytest.mark.gen_test
async def test_head_and_get_share_their_answers(client: Client) -> None:
    head = await client.get("/api/facilities/fac_001", "HEAD")
    assert (head.code, head.body, head.headers["X-Cache"]) == (200, b"", "MISS")
    get = await client.get("/api/facilities/fac_001")
    assert (get.headers["X-Cache"], get.headers["Content-Length"]) == ("HIT", head.headers["Content-Length"])


@pytest.mark.gen_test
async def test_refusals_and_endpoints_that_keep_nothing_say_nothing_of_a_cache(client: Client) -> None:
    for path, status in (("/api/facilities/none", 404), ("/api/facilities/search?lat=x", 400), ("/api/now", 200)):
        for _ in range(2):
            answer = await client.get(path)
            assert (answer.code, "X-Cache" in answer.headers) == (status, False)


@pytest.mark.gen_test
@pytest.mark.parametrize("parameter", ["cache=skip", "bypass_cache=true"])
async def test_a_fresh_answer_is_there_for_the_next_one_too(
    client: Client, facilities: Facilities, parameter: str
) -> None:
    """P5."""
    await client.get("/api/facilities/search")
    facilities.status["fac_003"] = "new"
    fresh = await client.get(f"/api/facilities/search?{parameter}")
    assert (fresh.headers["X-Cache"], len(json.loads(fresh.body))) == ("SKIP", 3)
    after = await client.get("/api/facilities/search")
    assert (after.headers["X-Cache"], len(json.loads(after.body))) == ("HIT", 3)


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [KEYED])
async def test_answers_to_tokens_and_cookies_are_not_shared(client: Client, own_settings: dict[str, Any]) -> None:
    """S44."""
    path = "/api/facilities/fac_001"
    assert await client.mark(path) == "MISS"
    assert await client.mark(path, **bearer(sub="shop")) == "BYPASS"
    assert await client.mark(path, Cookie="theme=dark") == "BYPASS"
    assert await client.mark(path) == "HIT"
    assert await client.mark("/api/procedures", **bearer(sub="shop")) == "MISS"
    assert await client.mark("/api/procedures", Cookie="theme=dark") == "HIT"
    assert (await client.get("/api/procedures", Authorization="Bearer nonsense")).code == 401


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [TWO_ORIGINS])
async def test_a_kept_answer_names_the_origin_that_asks_and_no_other(
    client: Client, own_settings: dict[str, Any]
) -> None:
    """X02."""
    for origin, mark in ((ORIGIN, "MISS"), (OTHER_ORIGIN, "HIT"), (ORIGIN, "HIT")):
        answer = await client.get("/api/facilities/fac_001", Origin=origin)
        assert answer.headers["X-Cache"] == mark
        assert answer.headers.get_list("Access-Control-Allow-Origin") == [origin]
        assert answer.headers.get_list("Vary") == ["Origin, Authorization, Cookie"]
    plain = await client.get("/api/facilities/fac_001")
    assert (plain.headers["X-Cache"], "Access-Control-Allow-Origin" in plain.headers) == ("HIT", False)
    assert (await client.get("/api/facilities/fac_001", Origin="https://evil.example")).code == 403


@pytest.mark.gen_test
async def test_a_crowd_costs_one_computation_though_the_first_of_it_hangs_up(
    client: Client, facilities: Facilities, http_port: int
) -> None:
    """F8: one computation per key, and those who wait are not stuck."""
    facilities.gate = asyncio.Event()
    _, writer = await asyncio.open_connection("127.0.0.1", http_port)
    writer.write(b"GET /api/facilities/fac_001 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(10):
        while not facilities.reads:  # noqa: ASYNC110 - counted in the endpoint
            await asyncio.sleep(0.005)
    crowd = [asyncio.ensure_future(client.get("/api/facilities/fac_001")) for _ in range(8)]
    writer.close()
    await writer.wait_closed()
    # Those whose request has come by now wait for it; the others find it kept.
    assert (await client.get("/api/facilities/search")).code == 200
    facilities.gate.set()
    answers = await asyncio.gather(*crowd)
    assert facilities.reads == 2  # with the search
    assert {answer.body for answer in answers} == {b'{"id":"fac_001","status":"low"}'}
    assert await client.mark("/api/facilities/fac_001") == "HIT"


@pytest.mark.gen_test
async def test_statistics_and_metrics_tell_of_each_route(client: Client) -> None:
    """F9."""
    for name in ("fac_001", "fac_001", "fac_002"):
        await client.get(f"/api/facilities/{name}")
    await client.change("fac_001", "high")
    facts = json.loads((await client.get("/stats")).body)["response_cache"]["routes"][DETAIL]
    assert (facts["hits"], facts["misses"], facts["entries"], facts["dropped"]) == (1, 2, 1, {"change": 1})
    assert (facts["hit_rate"], facts["computations"]) == (0.3333, 2)
    metrics = (await client.get("/metrics")).body.decode()
    assert f'ringcast_response_cache_requests_total{{outcome="hit",route="{DETAIL}",strategy=""}} 1.0\n' in metrics
    assert f'ringcast_response_cache_entries{{route="{DETAIL}"}} 1.0\n' in metrics
    assert "fac_001" not in metrics


@pytest.mark.gen_test
@pytest.mark.parametrize("own_settings", [{"response_cache_trial_routes": [SEARCH]}])
async def test_a_trial_names_the_strategy_of_each_answer(client: Client, own_settings: dict[str, Any]) -> None:
    """F9: A/B."""
    seen = set()
    for number in range(30):
        answer = await client.get(f"/api/facilities/search?q={number}")
        seen.add(answer.headers["X-Cache-Strategy"])
    assert seen == {"A", "B"}
    assert "X-Cache-Strategy" not in (await client.get("/api/facilities/fac_001")).headers
