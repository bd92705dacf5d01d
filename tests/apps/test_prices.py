"""Prices end to end over real sockets: what upstream says reaches streams and charts, on either database."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from apps.prices.application import Prices
from config.settings import Settings
from server.ids import format_id
from server.serving import policy_of
from tests.apps.asking import handed_over
from tests.apps.pricing import NAMES, ROOT, SETTINGS, STREAM, Api, ask, metric, ready, updates
from tests.conftest import StartNode
from tests.harness.databases import DATABASES, new_database
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream, request_bytes
from tests.server.house import House, with_house
from tests.threats.tokens import signed

FIELDS = ["item_id", "high", "low", "high_time", "low_time", "timestamp"]
PERIODS = {"1h": 60, "24h": 300, "7d": 1_800, "30d": 7_200, "90d": 21_600, "1y": 86_400, "all": 86_400}


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """An API that all tests of `server` trade on."""
    upstream = Api()
    for item_id in NAMES:
        upstream.trade(item_id, high=1_000 + item_id, low=900 + item_id)
    yield upstream
    upstream.close()


@pytest.fixture(scope="module", params=DATABASES)
def server(request: pytest.FixtureRequest, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that looks at it, with either database."""
    folder = tmp_path_factory.mktemp("prices")
    database = new_database(request, request.param, folder)
    settings = SETTINGS | {"prices_upstream": api.url, "database": database, "heartbeat_seconds": 1}
    node = Node(folder, **settings).start()
    wait_until(lambda: knows_its_items(node), 20)
    yield node
    node.kill()


def knows_its_items(node: Node) -> bool:
    with Stream(node.port, f"{STREAM}?items=999999") as stream:
        return stream.status == 404


def now_at(node: Node, item_id: int) -> dict[str, Any]:
    current: dict[str, Any] = ask(node, f"/current/{item_id}")[1]
    return current


# --- the stream


def test_a_reader_gets_the_items_it_names_as_they_change(server: Node, api: Api) -> None:
    """P1, P2, P3: `connected`, then `price-update` in the seed's words, and `heartbeat` events."""
    with Stream(server.port, f"{STREAM}?items=2,4151,2") as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["x-accel-buffering"] == "no"
        hello = stream.next_event()
        assert hello.type == "connected"
        assert json.loads(hello.data or "")["client_id"]
        api.trade(11832, high=7_777)
        api.trade(4151, high=2_850_000)
        [whip] = updates(stream, 1)
        api.trade(2, low=171)
        [ball] = updates(stream, 1)
        beat = stream.next_event(5)
        while beat.type != "heartbeat":
            beat = stream.next_event(5)
    assert list(whip) == FIELDS
    assert (whip["item_id"], whip["high"], whip["high_time"]) == (4151, 2_850_000, api.clock - 1)
    assert whip["low"] == api.prices["4151"]["low"]
    assert (ball["item_id"], ball["low"]) == (2, 171)
    assert abs(json.loads(beat.data or "")["ts"] - time.time()) < 10


def test_without_a_filter_all_items_come(server: Node, api: Api) -> None:
    """P1: an empty filter is none."""
    with Stream(server.port, STREAM) as stream, Stream(server.port, f"{STREAM}?items=") as other:
        stream.next_event()
        other.next_event()
        for item_id in NAMES:
            api.trade(item_id, low=500 + item_id + api.clock % 100)
        for one in (stream, other):
            assert {update["item_id"] for update in updates(one, 3)} == set(NAMES)


def test_a_side_that_is_not_known_is_null(server: Node, api: Api) -> None:
    """P2: of an item that nobody has bought yet. The item is new: it is there from now on."""
    item_id = 20_000 + api.clock % 1_000
    with Stream(server.port, STREAM) as stream:
        stream.next_event()
        api.trade(item_id, low=12)
        [update] = updates(stream, 1)
    assert (update["item_id"], update["high"], update["high_time"], update["low"]) == (item_id, None, None, 12)
    assert ask(server, f"/current/{item_id}")[1]["name"] is None


def test_an_item_that_is_new_can_be_watched_as_soon_as_it_is_there(server: Node, api: Api) -> None:
    """P1: 404 would send an EventSource away for good."""
    item_id = 30_000 + api.clock % 1_000
    assert ask(server, f"/stream?items={item_id}", Accept="text/event-stream")[0] == 404
    api.trade(item_id, high=12)
    wait_until(lambda: ask(server, f"/current/{item_id}")[0] == 200)
    with Stream(server.port, f"{STREAM}?items=2,{item_id}") as stream:
        assert stream.status == 200
        assert stream.next_event().type == "connected"
        api.trade(item_id, high=13)
        while updates(stream, 1)[0]["high"] != 13:
            pass  # the first price may be told of a moment after it is there
    assert ask(server, f"/stream?items={item_id},999999", Accept="text/event-stream")[0] == 404


def test_only_what_has_changed_is_published(server: Node, api: Api) -> None:
    """P3: many looks, one change, one event; an answer that is older than what is known is none, also one from before
    the first trade of a side."""
    with Stream(server.port, f"{STREAM}?items=4151") as stream:
        stream.next_event()
        before = api.prices
        api.trade(4151, high=1_500_000)
        updates(stream, 1)
        newest = api.prices
        for nothing in ({}, {"low": None, "lowTime": None}, {"high": None, "highTime": None}):
            api.prices = before | {"4151": before["4151"] | nothing}
            asked = len(api.asked)
            wait_until(lambda: len(api.asked) > asked + 5)  # noqa: B023 - called at once
        api.prices = newest
        api.trade(4151, high=1_500_001)
        [update] = updates(stream, 1)
        assert (update["high"], update["low"]) == (1_500_001, newest["4151"]["low"])


def test_who_comes_back_gets_what_was_missed(server: Node, api: Api) -> None:
    """P1: by the cursor of its last event, with the filter in place."""
    with Stream(server.port, f"{STREAM}?items=2") as stream:
        stream.next_event()
        api.trade(2, high=301)
        updates(stream, 1)
        cursor = [line[4:] for line in stream.raw.decode().splitlines() if line.startswith("id: ")][-1]
    api.trade(4151, high=302)
    api.trade(2, high=303)
    wait_until(lambda: now_at(server, 2)["high"] == 303)
    api.trade(2, high=304)
    with Stream(server.port, f"{STREAM}?items=2", Last_Event_ID=cursor) as stream:
        assert [update["high"] for update in updates(stream, 2)] == [303, 304]
    with Stream(server.port, f"{STREAM}?items=2&lastEventId={cursor}") as stream:
        assert updates(stream, 1)[0]["high"] == 303


@pytest.mark.parametrize(
    ("items", "status"),
    [
        ("2,x", 400),
        ("2,", 400),
        ("-1", 400),
        ("2.5", 400),
        ("99999999999", 400),
        ("1000000000", 400),
        ("%ff", 400),
        ("%D9%A2", 400),
        (",".join(map(str, range(101))), 400),
        ("2%0A", 400),
        ("2,999999", 404),
    ],
)
def test_a_filter_that_is_none_is_refused_by_name(server: Node, items: str, status: int) -> None:
    """P1: and an item that is not there is 404, on streams too."""
    found, answer, _ = ask(server, f"/stream?items={items}", Accept="text/event-stream")
    assert (found, answer["field"]) == (status, "items")


# --- REST


def test_how_items_stand_is_listed_by_number_and_found_by_name(server: Node) -> None:
    """P4."""
    status, answer, _ = ask(server, "/current?items=4151,2&limit=1&offset=1")
    assert (status, answer["total"], answer["limit"], answer["offset"]) == (200, 2, 1, 1)
    assert [(one["item_id"], one["name"]) for one in answer["items"]] == [(4151, "Abyssal whip")]
    assert list(answer["items"][0]) == ["item_id", "name", *FIELDS[1:]]
    assert [one["item_id"] for one in ask(server, "/current?search=BANDOS")[1]["items"]] == [11832]


@pytest.mark.parametrize(
    ("path", "status", "field"),
    [
        ("/current/x", 404, "id"),
        ("/current/999999", 404, "id"),
        ("/current?limit=0", 400, "limit"),
        ("/current?items=2,x", 400, "items"),
        ("/history/x?period=7d", 404, "id"),
        ("/history/%D9%A2?period=7d", 404, "id"),
        ("/history/99999999999", 404, "id"),
        ("/history/999999?period=7d", 404, "id"),
        ("/history/2?period=2h", 400, "period"),
        ("/history/2?sample=maybe", 400, "sample"),
        ("/history/2?cache=skpi", 400, "cache"),
    ],
)
def test_bad_input_names_the_field(server: Node, path: str, status: int, field: str) -> None:
    """P4."""
    found, answer, _ = ask(server, path)
    assert (found, answer["field"]) == (status, field)
    assert answer["code"] and answer["reason"]


def test_a_change_is_in_the_history_of_every_period(server: Node, api: Api) -> None:
    """P4: averaged over the period's steps, or as single changes."""
    api.trade(2, high=4_242, low=4_141)
    wait_until(lambda: now_at(server, 2)["high"] == 4_242)
    current = now_at(server, 2)
    for period, step_seconds in PERIODS.items():
        status, answer, _ = ask(server, f"/history/2?period={period}&sample=true&cache=skip")
        assert (status, answer["period"], answer["sample"]) == (200, period, True)
        assert (answer["item_id"], answer["name"], answer["step_seconds"]) == (2, "Cannonball", step_seconds)
        assert (answer["truncated"], answer["simulated"]) == (False, False)
        moments = [point["timestamp"] for point in answer["data"]]
        assert moments and moments == sorted(set(moments))
        assert all(_seconds(moment) % step_seconds == 0 for moment in moments)
        [last] = ask(server, f"/history/2?period={period}&cache=skip")[1]["data"][-1:]
        assert last == {name: current[name] for name in ("timestamp", "high", "low")}


def _seconds(moment: str) -> int:
    assert moment.endswith(".000Z")
    return round(time.mktime(time.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone)


@pytest.mark.parametrize("word", ["cache=skip", "bypass_cache=true"])
@pytest.mark.parametrize("period", PERIODS)
def test_a_request_that_skips_the_cache_warms_it(server: Node, api: Api, period: str, word: str) -> None:
    """P5: not read, but written, for every period."""
    path = f"/history/4151?period={period}"

    def last(extra: str = "") -> tuple[str, int]:
        _, answer, headers = ask(server, path + extra)
        return headers["x-cache"], answer["data"][-1]["high"]

    last(f"&{word}")
    mark, old = last()
    assert mark == "HIT"
    api.trade(4151, high=old + 1)
    wait_until(lambda: now_at(server, 4151)["high"] == old + 1)
    assert last() == ("HIT", old)
    assert last(f"&{word}") == ("SKIP", old + 1)
    assert last() == ("HIT", old + 1)


def test_what_is_offered_is_described(server: Node) -> None:
    """P1, P4, P5."""
    paths = json.loads(server.get("/openapi.json")[2])["paths"]
    assert {f"{ROOT}/stream", f"{ROOT}/current", f"{ROOT}/current/{{id}}", f"{ROOT}/history/{{id}}"} <= paths.keys()
    parameters = {one["name"] for one in paths[f"{ROOT}/history/{{id}}"]["get"]["parameters"]}
    assert parameters == {"id", "period", "sample", "cache", "bypass_cache"}


def test_the_page_s_files_allow_no_script_but_their_own(server: Node) -> None:
    """P1."""
    files = {
        "": "text/html",
        "prices.js": "text/javascript",
        "chart.js": "text/javascript",
        "live.js": "text/javascript",
    }
    for name, kind in (files | {"prices.css": "text/css"}).items():
        status, headers, body = server.get(f"/apps/prices/{name}")
        assert (status, headers["content-type"].partition(";")[0]) == (200, kind)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy
        assert b"style=" not in body and b"onclick" not in body and b"<script>" not in body


# --- the settings


def test_a_stream_lasts_half_an_hour_and_beats_every_half_minute(node: StartNode) -> None:
    """P7: by the channel's policy, which an operator may change."""
    started = node(**SETTINGS | {"channels": json.dumps({"prices": {"max_age_seconds": 1}})})
    with Stream(started.port, STREAM) as stream:
        assert json.loads(stream.next_event().data or "")["heartbeat_seconds"] == 30
        assert [block.type for block in stream.wait_end(5) if block.type != "heartbeat"] == ["max_age"]
    # Nobody makes prices up here, and nobody has them: it says so.
    assert ready(started).startswith("there is no source of prices")
    assert ask(started, "/current")[1]["total"] == 0


def test_unless_told_otherwise_a_stream_lasts_half_an_hour_less_some_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: clients that came together do not leave together: from 24 to 30 minutes."""
    settings = Settings()
    policy = policy_of(settings, "prices", Prices.policy)
    assert (policy.max_age_seconds, policy.heartbeat_seconds, settings.max_age_jitter) == (1_800, 30, 0.2)

    async def check(house: House) -> None:
        ages = []
        for drawn in (0.0, 0.5, 1.0):
            monkeypatch.setattr("server.opening.random.random", lambda drawn=drawn: drawn)
            house.open()
            ages.append(house.readers[-1].deadline - house.readers[-1].opened)
        assert ages == pytest.approx([1_800, 1_620, 1_440])

    own = {one.name: getattr(policy, one.name) for one in fields(policy)}
    with_house(check, limits={"max_age_jitter": settings.max_age_jitter}, **own)


def test_there_are_at_most_so_many_clients(node: StartNode) -> None:
    """P7: one too many is told to come back later; a client that is no EventSource gets a status."""
    started = node(**SETTINGS | {"prices_max_clients": 2})
    with Stream(started.port, STREAM) as one, Stream(started.port, STREAM) as two:
        one.next_event()
        two.next_event()
        with Stream(started.port, STREAM) as third:
            assert third.next_event().type == "too_many"
            assert b"retry: " in third.raw
        assert ask(started, "/stream")[0] == 429
        assert metric(started, "streams_refused_total") == 2
    wait_until(lambda: metric(started, "streams") == 0)
    with Stream(started.port, STREAM) as again:
        assert again.next_event().type == "connected"


def test_a_crowd_that_comes_back_does_not_get_past_the_limit(node: StartNode, tmp_path: Path) -> None:
    """P7: with cursors of another log, for which Redis has to be asked while others come."""
    redis = RedisServer(tmp_path).start()
    with contextlib.ExitStack() as ends:
        ends.callback(redis.stop)
        ends.callback(redis.signal, signal.SIGCONT)
        started = node(**SETTINGS | {"prices_max_clients": 2, "relay": redis.url})
        request = request_bytes(STREAM, Host=f"127.0.0.1:{started.port}", Last_Event_ID=format_id("zzzzzz", 5))
        redis.signal(signal.SIGSTOP)
        before, asked = handed_over(started), itertools.count(1)
        crowd = [ends.enter_context(socket.create_connection(("127.0.0.1", started.port), 10)) for _ in range(12)]
        for one in crowd:
            one.sendall(request)
        wait_until(lambda: handed_over(started) - next(asked) >= before + len(crowd))
        redis.signal(signal.SIGCONT)
        streams = [Stream(started.port, STREAM, connection=one, request=b"") for one in crowd]
        assert sorted(stream.next_event().type for stream in streams) == ["connected"] * 2 + ["too_many"] * 10
        assert metric(started, "streams") == 2
        assert metric(started, "streams_refused_total") == 10


def test_a_channel_that_is_not_for_everybody_is_closed_here_too(node: StartNode) -> None:
    """P1: without a token 401; with one that does not grant it 404; live, in lists and in the history."""
    channels = json.dumps({"prices": {"anonymous": False}})
    started = node(**SETTINGS | {"channels": channels, "jwt_secret": TOKEN_SECRET})
    reader: dict[str, Any] = {
        "Authorization": f"Bearer {signed({'sub': 'a', 'ringcast': {'prices': {'subscribe': ['*']}}})}"
    }
    other = {"Authorization": f"Bearer {signed({'sub': 'b'})}"}
    for path in ("/stream", "/current", "/history/2"):
        assert ask(started, path)[0] == 401
        assert ask(started, path, **other)[0] == 404
    with Stream(started.port, STREAM, **reader) as stream:
        assert stream.next_event().type == "connected"
    assert ask(started, "/current", **reader)[0] == 200


# --- several nodes


def test_two_nodes_ask_upstream_as_one_and_both_tell(
    request: pytest.FixtureRequest, api: Api, node: StartNode, tmp_path: Path
) -> None:
    """P3, P5: one looks, readers of both hear; a history that one computed warms the other's cache; when it stops the
    other goes on."""
    redis = RedisServer(tmp_path).start()
    database = new_database(request, "postgresql", tmp_path)
    settings = SETTINGS | {"relay": redis.url, "database": database, "prices_upstream": api.url}
    settings["response_cache"] = "redis"
    try:
        first = node(**settings)
        wait_until(lambda: metric(first, "looks_total") > 2)
        second = node(**settings)
        with Stream(first.port, f"{STREAM}?items=2") as here, Stream(second.port, f"{STREAM}?items=2") as there:
            here.next_event()
            there.next_event()
            api.trade(2, high=api.clock)
            assert updates(here, 1) == updates(there, 1)
            assert metric(second, "looks_total") == 0

            def warmed(asked: tuple[str, str]) -> bool:
                path = "/history/2?period={}&sample={}".format(*asked)
                assert ask(first, f"{path}&cache=skip")[2]["x-cache"] == "SKIP"
                return bool(ask(second, path)[2]["x-cache"] == "HIT")

            answers = itertools.product(PERIODS, ("true", "false"))
            assert any(map(warmed, answers))  # nobody waits long for Redis: on a busy machine it need not be the first
            assert ready(second) == "ok"
            first.stop()
            wait_until(lambda: metric(second, "looks_total") > 0)
            api.trade(2, high=api.clock)
            assert updates(there, 1)[0]["high"] == api.clock - 1
    finally:
        redis.stop()
