"""Kept answers of `facilities`: how long, which, what ends them, and what is counted."""

from __future__ import annotations

import contextlib
import json
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from apps.facilities.handlers import FacilityHandlers
from tests.apps.facilities import ONE, SEARCH, SETTINGS, STREAM, Answer, ask, change, told
from tests.conftest import StartNode
from tests.harness.process import Node, wait_until
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream

ROUNDED = 0.001  # seconds
LONDON = "/api/facilities/search?lat=51.5&lon=-0.1&radius=15"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One node for all tests: each asks something of its own."""
    folder = tmp_path_factory.mktemp("facilities-cache")
    node = Node(folder, database=f"sqlite:{folder}/facilities.db", **SETTINGS).start()
    yield node
    node.kill()


class Ages:
    """How old answers can have been at least and at most when they were given, counted from one change: what this
    process can say of moments in another one."""

    def __init__(self) -> None:
        self._changed = (0.0, 0.0)
        self._ages: list[tuple[float, float]] = []

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._changed = (began, time.monotonic())

    @contextlib.contextmanager
    def answer(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._ages.append((began - self._changed[1], time.monotonic() - self._changed[0]))

    def means(self) -> tuple[float, float]:
        return statistics.mean(least for least, _ in self._ages), statistics.mean(most for _, most in self._ages)

    def longest(self) -> tuple[float, float]:
        return max(least for least, _ in self._ages), max(most for _, most in self._ages)


def figures(node: Node, route: str) -> dict[str, Any]:
    """What the cache says of a route."""
    facts: dict[str, Any] = json.loads(node.get("/stats")[2])["response_cache"]["routes"].get(route, {})
    return facts


def test_every_route_keeps_its_answers_as_long_as_is_documented() -> None:
    """F6."""
    nothing = cast(Any, None)
    handlers = FacilityHandlers(nothing, nothing, nothing, (), (), nothing)
    kept = {one.path: one.keep_seconds for one in handlers.endpoints() if one.keep_seconds}
    assert kept == {
        "/api/facilities/search": 300,
        "/api/facilities/{id}": 600,
        "/api/facilities/suggest": 180,
        "/api/insurance-providers": 1_800,
        "/api/procedures": 1_800,
        "/api/geocode": 3_600,
    }


def test_a_change_drops_the_facility_and_lets_searches_live(server: Node) -> None:
    """F6, F7: the seed's own example, line by line."""
    assert ask(server, SEARCH).cache == "MISS"
    hit = ask(server, SEARCH)
    assert hit.cache == "HIT"
    assert int(hit.headers["age"]) >= 0
    assert [ask(server, ONE).cache, ask(server, ONE).cache] == ["MISS", "HIT"]
    change(server, capacity_status="low")
    assert ask(server, ONE).cache == "MISS"
    assert ask(server, SEARCH).cache == "HIT"
    assert ask(server, ONE).json["capacity_status"] == "low"


@pytest.mark.parametrize("path", ["/api/insurance-providers", "/api/procedures", "/api/geocode?q=lagos"])
def test_the_catalogue_and_places_are_kept(server: Node, path: str) -> None:
    """F6."""
    assert [ask(server, path).cache for _ in range(2)] == ["MISS", "HIT"]


def test_one_question_has_one_answer_however_it_is_put(server: Node) -> None:
    """F6: the key is made of what the question means."""
    assert ask(server, "/api/facilities/search?lat=1.50&lon=2&radius=50").cache == "MISS"
    for same in ("lon=2.0&lat=1.5", "lat=1.5&lon=2&utm_source=mail&limit=50", "radius=5e1&lat=1.5&lon=%32"):
        assert ask(server, f"/api/facilities/search?{same}").cache == "HIT"
    assert ask(server, "/api/facilities/search?lat=1.5&lon=2.1").cache == "MISS"


def test_only_what_was_found_is_kept(server: Node) -> None:
    """F6."""
    for _ in range(2):
        missing = ask(server, "/api/facilities/fac_998")
        assert (missing.status, missing.cache) == (404, "")
    assert ask(server, ONE, method="HEAD").cache in ("MISS", "HIT")


def test_a_change_of_one_leaves_the_others(server: Node) -> None:
    """F7: and what is not monitored drops what is kept, too."""
    others = "/api/facilities/fac_011"
    ask(server, others)
    ask(server, "/api/facilities/fac_010")
    change(server, "fac_010", address="1 New Road")
    assert ask(server, others).cache == "HIT"
    again = ask(server, "/api/facilities/fac_010")
    assert (again.cache, again.json["address"]) == ("MISS", "1 New Road")
    assert '"event":"cache_dropped"' in server.log()
    assert "facility:fac_010" in server.log()
    assert '"took_ms":' in server.log()


def test_administrators_drop_searches_and_regions(server: Node) -> None:
    """F7: the facilities in the region, searches that reach into it, what is asked of the whole world (a facility in it
    may be there, or be missing by now), and nothing else."""
    one, london = "/api/facilities/fac_020", "/api/facilities/fac_110"
    inside = (SEARCH, one, "/api/facilities/suggest?q=lag", "/api/facilities/search?q=lagos",
              "/api/facilities/search?max_wait=0")  # fmt: skip
    ask(server, "/api/cache/searches", method="DELETE")
    for path in (*inside, LONDON, london):
        ask(server, path)
        assert ask(server, path).cache == "HIT"
    answer = ask(server, "/api/cache/region?lat=6.6&lon=3.4&radius=20", method="DELETE")
    assert answer.status == 200
    assert answer.json["dropped"] >= len(inside)
    assert [ask(server, path).cache for path in (LONDON, london)] == ["HIT", "HIT"]
    assert [ask(server, path).cache for path in inside] == ["MISS"] * len(inside)
    assert ask(server, "/api/cache/searches", method="DELETE").json["dropped"] >= 3
    assert ask(server, one).cache == "HIT"
    assert ask(server, "/api/cache/region?lat=6.6", method="DELETE").json["field"] == "lon"


def test_a_crowd_that_asks_the_same_makes_one_computation(server: Node) -> None:
    """F8."""
    route = "/api/facilities/search"
    before = figures(server, route)
    answers: list[Answer] = []
    crowd = [
        threading.Thread(target=lambda: answers.append(ask(server, f"{route}?lat=35.68&lon=139.7&radius=77")))
        for _ in range(30)
    ]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert len({json.dumps(answer.json) for answer in answers}) == 1
    after = figures(server, route)
    assert after["computations"] - before.get("computations", 0) == 1


def test_the_cache_is_counted_by_route(server: Node) -> None:
    """F9."""
    route = "/api/facilities/{id}"
    before = figures(server, route)
    ask(server, "/api/facilities/fac_030")
    ask(server, "/api/facilities/fac_030")
    change(server, "fac_030", avg_wait_minutes=9)
    after = figures(server, route)
    for name in ("hits", "misses"):
        assert after[name] - before.get(name, 0) == 1
    assert after["dropped"]["change"] > before.get("dropped", {}).get("change", 0)
    metrics = server.get("/metrics")[2].decode()
    for name in ("requests_total", "dropped_total", "entries", "bytes"):
        assert f"ringcast_response_cache_{name}{{" in metrics
    assert f'route="{route}"' in metrics


def test_two_ways_of_keeping_searches_are_compared_on_live_traffic(node: StartNode, tmp_path: Path) -> None:
    """F9: hits, hit rate, and how old what was given was, apart for A and B: of four rounds of the same questions, with
    a change after the second."""
    route = "/api/facilities/search"
    trial: dict[str, Any] = {"response_cache_trial_routes": route, "response_cache_trial_drop": True}
    server = node(database=f"sqlite:{tmp_path}/facilities.db", **SETTINGS, **trial)
    questions = [f"{route}?lat=6.5244&lon=3.3792&radius={radius}" for radius in range(20, 40)]
    strategies = {path: ask(server, path).headers["x-cache-strategy"] for path in questions}
    a = [path for path in questions if strategies[path] == "A"]
    b = [path for path in questions if strategies[path] == "B"]
    assert sorted(a + b) == questions and a and b
    assert {ask(server, path).cache for path in questions} == {"HIT"}

    ages = Ages()
    with Stream(server.port, STREAM) as stream:
        stream.next_event()
        with ages.change():
            change(server, avg_wait_minutes=12)
        told(stream, 1)  # what a change drops is dropped again when its event comes
    for wanted in ({"A": "HIT", "B": "MISS"}, {"A": "HIT", "B": "HIT"}):
        for path in questions:
            with ages.answer() if strategies[path] == "A" else contextlib.nullcontext():
                assert ask(server, path).cache == wanted[strategies[path]]

    facts = figures(server, route)
    common = {"stale": 0, "skips": 0, "bypasses": 0, "coalesced": 0, "unkept": 0}
    seconds = {name: facts["A"].pop(f"changed_seconds_{name}") for name in ("mean", "max")}
    asked = {"hits": 3 * len(a), "misses": len(a), "hit_rate": 0.75, "computations": len(a)}
    assert facts["A"] == common | asked | {"changed_hits": 2 * len(a)}
    asked = {"hits": 2 * len(b), "misses": 2 * len(b), "hit_rate": 0.5, "computations": 2 * len(b)}
    nothing = {"changed_hits": 0, "changed_seconds_mean": 0.0, "changed_seconds_max": 0.0}
    assert facts["B"] == common | asked | nothing
    assert (facts["entries"], facts["dropped"]) == (len(questions), {"change": len(b)})
    for said, (least, most) in ((seconds["mean"], ages.means()), (seconds["max"], ages.longest())):
        assert least - ROUNDED <= said <= most + ROUNDED

    metrics = server.get("/metrics")[2].decode().splitlines()
    for name, outcome, number in (
        ("A", "hit", 3 * len(a)),
        ("A", "miss", len(a)),
        ("B", "hit", 2 * len(b)),
        ("B", "miss", 2 * len(b)),
    ):
        labels = f'outcome="{outcome}",route="{route}",strategy="{name}"'
        assert f"ringcast_response_cache_requests_total{{{labels}}} {number}.0" in metrics
    for name, number in (("A", 2 * len(a)), ("B", 0)):
        labels = f'route="{route}",strategy="{name}"'
        assert f"ringcast_response_cache_changed_hits_total{{{labels}}} {number}.0" in metrics


def test_answers_can_be_kept_in_redis(node: StartNode, tmp_path: Path) -> None:
    """F6, F7: with the same rules. Nobody waits long for Redis, so on a busy machine a hit may take a second try."""
    redis = RedisServer(tmp_path).start()
    try:
        settings = SETTINGS | {"response_cache": "redis", "response_cache_redis": redis.url}
        server = node(database=f"sqlite:{tmp_path}/facilities.db", **settings)
        wait_until(lambda: ask(server, ONE).cache == "HIT")
        wait_until(lambda: ask(server, SEARCH).cache == "HIT")
        change(server, avg_wait_minutes=44)
        assert ask(server, ONE).json["avg_wait_minutes"] == 44
        wait_until(lambda: ask(server, SEARCH).cache == "HIT")
        assert ask(server, "/api/cache/region?lat=6.6&lon=3.4&radius=20", method="DELETE").status == 200
        assert ask(server, SEARCH).json["facilities"][0]["avg_wait_minutes"] == 44
    finally:
        redis.stop()
