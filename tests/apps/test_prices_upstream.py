"""Prices when upstream misbehaves, and where there is none: the simulated market."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.prices.source import Upstream
from apps.prices.store import PriceStore
from apps.prices.sync import Sync
from bridges.database import Database
from bridges.leases import Turn
from tests.apps.audience import Audience
from tests.apps.pricing import NAMES, SETTINGS, STREAM, Api, ask, metric, ready, updates
from tests.conftest import StartNode
from tests.harness.postgres import PostgresServer
from tests.harness.process import Node, wait_until
from tests.harness.stream import Block, Stream

MIB = 1024 * 1024
Key = tuple[str, int]  # when what is paid changed, and to what


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    upstream = Api()
    for item_id in NAMES:
        upstream.trade(item_id, high=100 + item_id, low=90 + item_id)
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def server(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that waits half a second for an answer."""
    settings = SETTINGS | {"prices_upstream": api.url, "prices_upstream_seconds": 0.5}
    node = Node(tmp_path_factory.mktemp("prices"), **settings).start()
    wait_until(lambda: metric(node, "looks_total") > 1)
    yield node
    node.kill()


@pytest.fixture(autouse=True)
def _well_again(api: Api) -> Iterator[None]:
    yield
    api.answer, api.headers = None, {}


def outcome(node: Node, kind: str) -> float:
    return metric(node, f'looks_total{{outcome="{kind}"}}')


def test_upstream_is_asked_as_it_wants_to_be(server: Node, api: Api) -> None:
    """P3: who asks and how to reach them, packed, one request for all items; names once."""
    asked = len(api.asked)
    wait_until(lambda: len(api.asked) > asked + 3)
    for headers in api.asked:
        assert headers["user-agent"] == "Ringcast (prices@ringcast.example)"
        assert "gzip" in headers["accept-encoding"]
    assert api.asked_names == 1
    assert ask(server, "/current/4151")[1]["name"] == "Abyssal whip"


@pytest.mark.parametrize(
    ("instead", "kind", "said"),
    [
        (503, "status", "HTTP status 503"),
        (302, "status", "HTTP status 302"),
        (1.5, "timeout", "no answer within 0.5 s"),
        (b"<html>", "unreadable", "not JSON"),
        (b"\xff\xfe", "unreadable", "not JSON"),
        (b"[" * 200_000, "unreadable", "not JSON"),
        (b"[1, 2]", "unreadable", "not of the form"),
        (b'{"data": {"2": 7, "x": {}}}', "unreadable", "no entry"),
        (gzip.compress(b'{"data": {}}')[:-9], "unreadable", ""),
        (gzip.compress(b" " * (64 * MIB)), "unreadable", "too large"),
        (b" " * (9 * MIB), "unreadable", "too large"),
    ],
    ids=["503", "302", "slow", "html", "bytes", "deep", "list", "junk", "half", "bomb", "huge"],
)
def test_a_failure_is_seen_and_got_over(server: Node, api: Api, instead: Any, kind: str, said: str) -> None:
    """P3: in the metrics and at /ready; streams stay, prices stay, and it goes on when upstream does."""
    with Stream(server.port, f"{STREAM}?items=2") as stream:
        stream.next_event()
        before = outcome(server, kind)
        api.answer = instead
        wait_until(lambda: outcome(server, kind) > before, 20)
        # One look in between may have found something else: that the answer took too long.
        wait_until(lambda: re.match(f"no prices from upstream: .*{re.escape(said)}", ready(server)), 20, said)
        assert server.get("/ready")[0] == 200
        assert ask(server, "/current/2")[0] == 200
        api.answer = None
        api.trade(2, high=api.clock)
        assert updates(stream, 1)[0]["high"] == api.clock - 1
        wait_until(lambda: ready(server) == "ok")


def test_entries_that_can_not_be_read_are_left_out(server: Node, api: Api) -> None:
    """P3: item by item, and counted."""
    good = api.prices
    junk: dict[str, Any] = {
        "x": {},
        "-1": {},
        "3": {"high": "12"},
        "5": {"high": -1},
        "6": {"high": True},
        "7": {"high": 10**15},
        "8": [],
        "9": {"high": 1, "highTime": 4_102_444_800},
    }
    before = metric(server, "unusable_total")
    api.prices = good | junk
    wait_until(lambda: metric(server, "unusable_total") >= before + len(junk))
    wait_until(lambda: ready(server) == "ok", what="a look that was well")
    assert [ask(server, f"/current/{item_id}")[0] for item_id in (3, 5, 6, 7, 8, 9)] == [404] * 6
    api.prices = good


def test_nobody_waits_for_a_slow_upstream(server: Node, api: Api) -> None:
    """P3: while an answer is waited for everything else is answered."""
    api.answer = 0.4
    asked = len(api.asked)
    wait_until(lambda: len(api.asked) > asked)
    began = time.monotonic()
    for _ in range(25):
        assert ask(server, "/current/2")[0] == 200
    assert time.monotonic() - began < 5  # waiting each time it were ten


def test_failures_are_asked_for_again_ever_later(node: StartNode) -> None:
    """P3: with jitter, so many looks that fail are few."""
    own = Api()
    try:
        own.answer = 500
        node(**SETTINGS | {"prices_upstream": own.url, "prices_sync_seconds": 0.1})
        # The sixth is 1.6 to 3.2 s after the fifth, where it were a tenth at the usual pace.
        wait_until(lambda: len(own.asked_at) > 5, 20)
        assert own.asked_at[5] - own.asked_at[4] > 1.0
    finally:
        own.close()


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [("1200", 1_200, 1_200), ("999999999", 3_600, 3_600), ("-5", 60, 120), ("Wed, 21 Oct 2026 07:28:00 GMT", 60, 120)],
)
def test_who_is_told_when_to_come_back_comes_no_earlier(
    api: Api, tmp_path: Path, header: str, least: float, most: float
) -> None:
    """P3: by `Retry-After`, within reason."""
    api.answer, api.headers = 429, {"Retry-After": header}

    async def look() -> float:
        database = Database(f"sqlite:{tmp_path}/prices.db")
        await database.start()
        upstream = Upstream(api.url, "", seconds=60, answer_seconds=5)
        store = PriceStore(database, None, "prices")  # type: ignore[arg-type]
        try:
            return await Sync(upstream, store, Turn(database, "prices", "node"))._look(1)
        finally:
            upstream.close()
            await database.stop()

    assert least <= asyncio.run(look()) <= most


def test_an_upstream_that_is_not_there_is_asked_again(node: StartNode) -> None:
    """P3: from the first look on; the node serves all the same."""
    own = Api()
    own.close()
    started = node(**SETTINGS | {"prices_upstream": own.url})
    wait_until(lambda: outcome(started, "unreachable") >= 2)
    assert ready(started) == "no prices from upstream: there is no connection"
    with Stream(started.port, f"{STREAM}?items=4151") as stream:  # which items there are is not known yet
        assert stream.next_event().type == "connected"


def told(block: Block) -> Key | None:
    """What a change tells, as the history has it."""
    if block.type != "price-update":
        return None
    facts = json.loads(block.data or "")
    return facts["timestamp"], facts["high"]


def points(node: Node, item: int) -> list[Key]:
    """The history of an item, the oldest first."""
    found = ask(node, f"/history/{item}?period=1h&cache=skip")[1]["data"]
    return [(point["timestamp"], point["high"]) for point in found]


@pytest.mark.fault
def test_a_database_that_goes_and_comes_back_costs_nothing_but_time(node: StartNode, seed: int) -> None:
    """P3: what was traded meanwhile is told once, with its point in the history; streams stay.

    A price that was followed by another before anybody looked is no change, so what is acknowledged is the history."""
    rng = random.Random(seed)
    own, database = Api(), PostgresServer().start()
    prices = iter(range(10, 1_000))

    def trade(most: int) -> None:
        for _ in range(rng.randrange(1, most)):
            own.trade(rng.choice((2, 2, 2, 4151)), high=next(prices))
            time.sleep(rng.uniform(0, 0.1))

    try:
        for item in (2, 4151):
            own.trade(item, high=next(prices), low=1)
        started = node(**SETTINGS | {"prices_upstream": own.url, "database": database.url("prices")})
        wait_until(lambda: ask(started, "/current")[1]["total"] == 2)
        paths = f"{STREAM}?items=2", f"{STREAM}?items=4151"
        with Audience([started.port], told, *paths, seed=seed) as audience:
            trade(30)
            database.kill()
            trade(20)
            wait_until(lambda: outcome(started, "database") > 0, 20)
            assert ask(started, "/current/2")[0] == 503
            database.start()
            trade(20)
            for item in (2, 4151):
                own.trade(item, high=next(prices))
            wait_until(lambda: all(points(started, item)[-1][1] == own.high(item) for item in (2, 4151)), 20)
            # The first changes are stored before anybody reads, and may be told before or after.
            [first, *own_points], [other_first, *others] = (points(started, item) for item in (2, 4151))
            history = audience.judged(own_points, others, doubtful=[first, other_first])
        assert history.problems() == []
        assert [reader.connections for reader in audience.readers[:2]] == [1, 1]
        wait_until(lambda: ready(started) == "ok")
    finally:
        database.stop()
        own.close()


# --- no upstream


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that a simulated market has filled."""
    folder = tmp_path_factory.mktemp("simulated")
    node = Node(folder, **SETTINGS | {"simulate": True, "database": f"sqlite:{folder}/past.db"}).start()
    try:
        wait_until(lambda: ask(node, "/current")[1]["total"] >= 40, 30)
        node.stop()
    finally:
        node.kill()
    return folder / "past.db"


@pytest.fixture
def simulating(past: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings of a node that goes on from there."""
    shutil.copy(past, tmp_path / "prices.db")
    database = f"sqlite:{tmp_path}/prices.db"
    return SETTINGS | {"simulate": True, "prices_simulated_seconds": 0.05, "database": database}


def test_a_simulated_market_is_there_from_the_beginning_and_marked(node: StartNode, simulating: dict[str, Any]) -> None:
    """P1, P4: with a past for charts of every period, in events, lists and history said to be made up."""
    started = node(**simulating)
    with Stream(started.port, f"{STREAM}?items=2,4151,11832") as stream:
        assert all(update["simulated"] is True for update in updates(stream, 3))
    listed = ask(started, "/current?items=4151")[1]["items"]
    assert [(one["name"], one["simulated"]) for one in listed] == [("Abyssal whip", True)]
    for period, points in {"1h": 50, "24h": 200, "7d": 300, "30d": 80, "90d": 300, "1y": 350, "all": 390}.items():
        answer = ask(started, f"/history/4151?period={period}&sample=true")[1]
        assert answer["simulated"] is True
        assert len(answer["data"]) >= points, period
        assert (answer["before"] is None) == (period == "all")
    assert metric(started, "simulated") == 1
    assert ready(started) == "ok"


def test_old_points_are_averaged_while_it_runs(node: StartNode, simulating: dict[str, Any]) -> None:
    """P4: single changes are kept as long as the setting says."""
    started = node(**simulating, prices_keep_points_seconds=3_600)
    wait_until(lambda: metric(started, "rolled_up_total") > 1_000, 20)
    assert len(ask(started, "/history/4151?period=24h&sample=true")[1]["data"]) >= 200


def test_real_and_simulated_prices_are_never_mixed(node: StartNode, api: Api, simulating: dict[str, Any]) -> None:
    """P3: what was made up goes when upstream comes; and where prices are real none are made up."""
    real = node(**simulating | {"prices_upstream": api.url})
    wait_until(lambda: ask(real, "/current?search=bow")[1]["total"] == 0 and ask(real, "/current/2")[0] == 200, 20)
    wait_until(lambda: "simulated" not in ask(real, "/current/2")[1])
    assert ask(real, "/history/2?period=all")[1]["simulated"] is False
    real.stop()
    after = node(**simulating)
    wait_until(lambda: "holds real prices" in ready(after))
    assert json.loads(after.get("/ready")[2])["ready"] is True
    assert ask(after, "/current?search=bow")[1]["total"] == 0
