"""Facilities over real sockets: the two streams, changes, search and catalogue, on SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.facilities import replies
from tests.apps.asking import headers_of
from tests.apps.facilities import LAGOS, ONE, OPERATOR, SEARCH, SETTINGS, STREAM, ask, change, told
from tests.conftest import StartNode
from tests.faults.witnesses import Attempt
from tests.harness.databases import DATABASES, new_database
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream

REGION = "/api/stream/facilities/region"
WAIYEVO, MATEI = "fac_304", "fac_306"  # on the two sides of the date line, 18 km apart
LONGYEARBYEN = "fac_320"


@pytest.fixture(scope="module", params=DATABASES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One node for all tests of a database: each changes facilities of its own."""
    folder = tmp_path_factory.mktemp("facilities")
    database = new_database(request, request.param, folder)
    node = Node(folder, database=database, heartbeat_seconds=0.5, **SETTINGS).start()
    yield node
    node.kill()


@contextlib.contextmanager
def watching(node: Node, path: str) -> Iterator[Stream]:
    """A stream that has begun."""
    with Attempt(node.port, path) as stream:
        assert stream.status == 200, stream.body()
        assert stream.next_event(10).type == "hello"
        yield stream


def found(node: Node, query: str) -> list[Any]:
    answer = ask(node, f"/api/facilities/search?cache=skip&{query}")
    assert answer.status == 200, answer.json
    return list(answer.json["facilities"])


# --- streams


def test_a_change_reaches_who_watches_the_facility(server: Node) -> None:
    """F1, F3, F4, F10: the seed's own example."""
    with watching(server, STREAM) as stream:
        changed = change(server, capacity_status="high", avg_wait_minutes=15)
        capacity, wait = told(stream, 2)
    assert (changed["capacity_status"], changed["avg_wait_minutes"], changed["simulated"]) == ("high", 15, False)
    assert (capacity["event_type"], wait["event_type"]) == ("capacity_update", "wait_time_update")
    assert capacity["changed_fields"] == wait["changed_fields"] == {"capacity_status": "high", "avg_wait_minutes": 15}
    assert list(capacity) == ["id", "facility_id", "event_type", "timestamp", "location", "changed_fields"]
    assert capacity["location"] == {"latitude": 6.5244, "longitude": 3.3792}
    assert capacity["timestamp"] == changed["updated_at"]
    assert ask(server, f"{ONE}?cache=skip").json == changed


def test_every_kind_of_change_has_its_event_and_there_are_heartbeats(server: Node) -> None:
    """F1."""
    with watching(server, "/api/stream/facilities/fac_002") as stream:
        change(server, "fac_002", service_health="degraded", urgent_care_available=False)
        assert [body["event_type"] for body in told(stream, 2)] == ["urgent_care_update", "service_health_update"]
        while (block := stream.next_event(10)).type != "heartbeat":
            pass
        assert '"ts":' in (block.data or "")


def test_what_did_not_really_change_is_no_event(server: Node) -> None:
    """F4: neither is what is not monitored, nor what is refused."""
    with watching(server, "/api/stream/facilities/fac_003") as stream:
        before = change(server, "fac_003", avg_wait_minutes=5, capacity_status="full")
        told(stream, 2)
        assert change(server, "fac_003", avg_wait_minutes=5, capacity_status="full") == before
        assert change(server, "fac_003") == before
        change(server, "fac_003", name="Renamed", phone="")
        refused = ask(server, "/api/facilities/fac_003", {"avg_wait_minutes": 6, "insurance_providers": ["none_such"]})
        assert (refused.status, refused.json["field"]) == (422, "insurance_providers")
        change(server, "fac_003", avg_wait_minutes=7)
        [body] = told(stream, 1)
    assert body["changed_fields"] == {"avg_wait_minutes": 7}


def test_a_region_has_its_facilities_and_no_others(server: Node) -> None:
    """F2: by great-circle distance, 50 km unless the client says otherwise."""
    lagos = [one for one in found(server, "lat=6.5244&lon=3.3792&radius=60&limit=500") if one["city"] == "Lagos"]
    near, far = lagos[1]["id"], next(one["id"] for one in lagos if one["distance_km"] > 12)
    with (
        watching(server, f"{REGION}?lat=6.5244&lon=3.3792") as wide,
        watching(server, f"{REGION}?lat=6.5244&lon=3.3792&radius=12") as narrow,
    ):
        for number, facility in enumerate((far, near, "fac_120", near)):
            change(server, facility, avg_wait_minutes=100 + number)
        assert [body["facility_id"] for body in told(wide, 3)] == [far, near, near]
        assert [body["facility_id"] for body in told(narrow, 2)] == [near, near]


def test_regions_reach_over_the_date_line_and_the_poles(server: Node) -> None:
    """F2: on the stream and in a search alike."""
    for where in ("lat=-16.75&lon=179.99&radius=40", "lat=-16.75&lon=-179.99&radius=40", "lat=-16.7&lon=180&radius=40"):
        assert {WAIYEVO, MATEI} <= {one["id"] for one in found(server, where)}
        with watching(server, f"{REGION}?{where}") as stream:
            for facility in (WAIYEVO, MATEI):
                wait = ask(server, f"/api/facilities/{facility}?cache=skip").json["avg_wait_minutes"]
                change(server, facility, avg_wait_minutes=wait + 1)
            assert [body["facility_id"] for body in told(stream, 2)] == [WAIYEVO, MATEI]
    pole = "lat=90&lon=-100&radius=1400"
    assert {one["id"] for one in found(server, pole)} == {LONGYEARBYEN, "fac_321"}
    with watching(server, f"{REGION}?{pole}") as stream:
        change(server, "fac_314", avg_wait_minutes=77)  # Tromsø, 2,260 km from the pole
        change(server, LONGYEARBYEN, avg_wait_minutes=77)
        assert told(stream, 1)[0]["facility_id"] == LONGYEARBYEN


def test_a_reader_that_was_away_gets_what_it_missed(server: Node) -> None:
    """F1: at the next node or the same, with the last id."""
    path = "/api/stream/facilities/fac_004"
    with watching(server, path) as stream:
        change(server, "fac_004", avg_wait_minutes=61)
        told(stream, 1)
    ids = [line.removeprefix(b"id: ").decode() for line in stream.raw.split(b"\n") if line.startswith(b"id: ")]
    change(server, "fac_004", avg_wait_minutes=62)
    with Attempt(server.port, path, Last_Event_ID=ids[-1]) as again:
        assert told(again, 1)[0]["changed_fields"] == {"avg_wait_minutes": 62}


def test_types_and_history_are_selected_as_on_the_general_endpoint(server: Node) -> None:
    """F1, F2, E8: of one facility and of a region; a type may be given again."""
    one, place = "/api/stream/facilities/fac_006?", ask(server, "/api/facilities/fac_006").json["location"]
    region = f"{REGION}?lat={place['latitude']}&lon={place['longitude']}&radius=0.001&"
    with watching(server, one) as every:
        for wait, status in ((71, "low"), (72, "high"), (73, "full")):
            change(server, "fac_006", avg_wait_minutes=wait, capacity_status=status)
        change(server, "fac_006", service_health="down")
        while told(every, 1)[0]["event_type"] != "service_health_update":
            pass
    for path in (one, region):
        with watching(server, f"{path}type=capacity_update&type=service_health_update&last=3") as stream:
            assert [list(body["changed_fields"].values()) for body in told(stream, 3)] == [
                ["high", 72], ["full", 73], ["down"],
            ]  # fmt: skip
    with (
        watching(server, f"{one}type=wait_time_update") as here,
        watching(server, f"{region}type=wait_time_update") as there,
    ):
        change(server, "fac_006", capacity_status="medium", service_health="operational")
        change(server, "fac_006", capacity_status="low", avg_wait_minutes=74)
        [first] = told(here, 1)
        assert (first["event_type"], first["changed_fields"]["avg_wait_minutes"]) == ("wait_time_update", 74)
        assert told(there, 1) == [first]


def test_a_facility_that_something_else_has_written_is_streamed_at_once(node: StartNode, tmp_path: Path) -> None:
    """F1: 404 would send an EventSource away for good."""
    server = node(**SETTINGS | {"database": f"sqlite:{tmp_path}/facilities.db"})
    assert ask(server, "/api/stream/facilities/fac_900").status == 404
    with contextlib.closing(sqlite3.connect(tmp_path / "facilities.db")) as database, database:
        database.execute("CREATE TEMP TABLE copy AS SELECT * FROM facilities WHERE id = 'fac_001'")
        database.execute("UPDATE copy SET id = 'fac_900'")
        database.execute("INSERT INTO facilities SELECT * FROM copy")
    with watching(server, "/api/stream/facilities/fac_900?type=wait_time_update") as stream:
        change(server, "fac_900", avg_wait_minutes=5)
        assert told(stream, 1)[0]["facility_id"] == "fac_900"


# --- what is asked


def test_a_search_gives_the_nearest_first_in_pages(server: Node) -> None:
    """F5."""
    where = "lat=6.5244&lon=3.3792&radius=20"
    every = ask(server, f"/api/facilities/search?cache=skip&limit=500&{where}").json
    distances = [one["distance_km"] for one in every["facilities"]]
    assert distances == sorted(distances)
    assert distances[0] == 0.0
    assert distances[-1] <= 20
    assert every["total"] == len(distances) > 20
    pages = [one["id"] for offset in (0, 10, 20) for one in found(server, f"{where}&limit=10&offset={offset}")]
    assert pages == [one["id"] for one in every["facilities"]][:30]
    assert found(server, "lat=0&lon=-30&radius=50") == []
    assert [one["name"] for one in found(server, "limit=3")] == sorted(
        (one["name"] for one in found(server, "limit=3")), key=str.casefold
    )


def test_a_search_asks_for_more_than_a_place(server: Node) -> None:
    """F5."""
    change(server, "fac_050", capacity_status="full", avg_wait_minutes=3, urgent_care_available=True)
    assert "fac_050" in {one["id"] for one in found(server, "capacity_status=full&max_wait=3&urgent_care=true")}
    assert "fac_050" not in {one["id"] for one in found(server, "capacity_status=low&limit=500")}
    for one in found(server, "q=yab+hosp"):
        assert "Yaba" in one["name"] + one["address"]
        assert one["facility_type"] == "hospital"
    insured = found(server, "insurance=nhia&limit=500")
    assert {one["country"] for one in insured} == {"NG"}
    priced = found(server, "procedure=proc_mri_knee&facility_type=diagnostic_center")
    assert all(one["price"] > 0 and one["currency"] for one in priced)
    assert priced


def test_the_search_index_changes_with_the_facility(server: Node) -> None:
    """F4: in the same transaction."""
    change(server, "fac_051", name="Zebra Crossing Surgery", insurance_providers=["acc"], prices={"proc_ecg": 12})

    def suggested(text: str) -> list[str]:
        return [one["id"] for one in ask(server, f"/api/facilities/suggest?cache=skip&q={text}").json["suggestions"]]

    assert suggested("zebra") == suggested("surg%20zeb") == ["fac_051"]
    assert found(server, "q=zebra&insurance=acc&procedure=proc_ecg")[0]["price"] == 12
    assert found(server, "q=zebra&insurance=nhia") == []
    change(server, "fac_051", name="Lion's Gate")
    assert suggested("zebra") == []
    assert suggested("gate%20lion") == ["fac_051"]


def test_suggestions_come_by_prefix_and_by_word(server: Node) -> None:
    """F5: first those whose name begins so."""
    change(server, "fac_052", name="Quokka Ward")
    change(server, "fac_053", name="The Quokka")
    answer = ask(server, "/api/facilities/suggest?q=QUOK&limit=5").json["suggestions"]
    assert [one["name"] for one in answer] == ["Quokka Ward", "The Quokka"]
    assert list(answer[0]) == ["id", "name", "facility_type", "city", "country"]
    assert ask(server, "/api/facilities/suggest?q=%3F%21").json["suggestions"] == []


def test_the_catalogue_and_places_are_listed(server: Node) -> None:
    """F5."""
    providers = ask(server, "/api/insurance-providers?limit=2&offset=1").json
    assert [one["id"] for one in providers["insurance_providers"]] == ["hygeia", "reliance"]
    assert providers["total"] == 30
    procedures = ask(server, "/api/procedures").json["procedures"]
    assert {"id": "proc_ecg", "name": "Electrocardiogram", "category": "cardiology"} in procedures
    place = ask(server, "/api/geocode?q=S%C3%A3o%20Paulo&limit=1").json["places"][0]
    assert (place["name"], place["country"]) == ("São Paulo", "BR")
    assert place["location"]["latitude"] == pytest.approx(-23.5, abs=0.1)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/facilities/search?lat=6.5", "lon"),
        ("/api/facilities/search?lon=6.5", "lat"),
        ("/api/facilities/search?lat=91&lon=0", "lat"),
        ("/api/facilities/search?lat=nan&lon=0", "lat"),
        ("/api/facilities/search?lat=1&lon=0&radius=0", "radius"),
        ("/api/facilities/search?limit=501", "limit"),
        ("/api/facilities/search?procedure=%00", "procedure"),
        ("/api/facilities/search?facility_type=zoo", "facility_type"),
        ("/api/facilities/suggest", "q"),
        ("/api/facilities/suggest?q=a&limit=51", "limit"),
        ("/api/geocode?q=a", "q"),
        ("/api/procedures?offset=-1", "offset"),
        (REGION, "lat"),
        (f"{REGION}?lat=1", "lon"),
        (f"{REGION}?lat=1&lon=181", "lon"),
        (f"{REGION}?lat=1&lon=1&radius=-1", "radius"),
        (f"{REGION}?lat=one&lon=1", "lat"),
        (f"{REGION}?lat=1&lon=1&last=0", "last"),
        (f"{REGION}?lat=1&lon=1&type=%ff", "type"),
        (f"{STREAM}?last=1001", "last"),
        (f"{STREAM}?{'&'.join(['type=a'] * 101)}", "type"),
    ],
)
def test_a_question_that_is_none_names_the_parameter(server: Node, path: str, field: str) -> None:
    """F2, F5."""
    answer = ask(server, path)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "bad_request", field)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"capacity_status": "packed"}, "capacity_status"),
        ({"capacity_status": None}, "capacity_status"),
        ({"avg_wait_minutes": -1}, "avg_wait_minutes"),
        ({"avg_wait_minutes": "15"}, "avg_wait_minutes"),
        ({"urgent_care_available": "yes"}, "urgent_care_available"),
        ({"name": ""}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"latitude": 1}, "latitude"),
        ({"prices": {"proc_none": 1}}, "prices"),
        ({"prices": {"proc_ecg": -1}}, "prices.proc_ecg"),
    ],
)
def test_a_change_that_is_none_names_the_field(server: Node, body: dict[str, object], field: str) -> None:
    """F4."""
    answer = ask(server, "/api/facilities/fac_005", body)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (422, "invalid", field)


@pytest.mark.parametrize("name", ["fac_999", "%00", "x" * 300, "%F0%9F%8F%A5"])
def test_what_is_not_there_is_404_on_streams_too(server: Node, name: str) -> None:
    """F1, F4, F5."""
    assert ask(server, f"/api/facilities/{name}").status == 404
    assert ask(server, f"/api/facilities/{name}", {"avg_wait_minutes": 1}).status == 404
    assert ask(server, f"/api/stream/facilities/{name}").status == 404


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/api/facilities/search?lat=6.5&lon=3.4&procedure=proc_ecg", replies.Results),
        ("/api/facilities/search", replies.Results),
        (ONE, replies.Whole),
        ("/api/facilities/suggest?q=yaba", replies.Suggestions),
        ("/api/insurance-providers", replies.Providers),
        ("/api/procedures", replies.Procedures),
        ("/api/geocode?q=lagos", replies.Cities),
    ],
)
def test_answers_are_as_they_are_described(server: Node, path: str, form: type[replies.Answer]) -> None:
    """F5."""
    described = ask(server, "/openapi.json").json["paths"]
    assert "get" in described[path.partition("?")[0].replace("fac_001", "{id}")]
    form.model_validate(ask(server, path).json, strict=True)


# --- who may


def test_everybody_reads_and_operators_change(node: StartNode) -> None:
    """F4, F6, F7: where there is a key. The nodes' own events are nobody's to read."""
    server = node(jwt_secret=TOKEN_SECRET, **SETTINGS)
    body = {"avg_wait_minutes": 3}
    assert ask(server, ONE, body).status == 401
    assert ask(server, ONE, body, claims={"sub": "visitor"}).status == 403
    for path in ("/api/cache/searches", "/api/cache/region?lat=1&lon=1"):
        assert ask(server, path, method="DELETE").status == 401
        assert ask(server, path, method="DELETE", claims={"sub": "visitor"}).status == 403
        assert ask(server, path, method="DELETE", claims=OPERATOR).status == 200
    with watching(server, LAGOS) as region, watching(server, "/channels/facilities/events") as general:
        assert ask(server, ONE, {"name": "Another"}, claims=OPERATOR).status == 200
        assert ask(server, "/api/cache/searches", method="DELETE", claims=OPERATOR).status == 200
        assert ask(server, ONE, body, claims=OPERATOR).status == 200
        assert told(region, 1) == told(general, 1)
    assert ask(server, ONE).json["avg_wait_minutes"] == 3
    # What is the same for everybody is kept for everybody.
    assert [ask(server, SEARCH, claims=OPERATOR).cache, ask(server, SEARCH).cache] == ["MISS", "HIT"]


READER = {"sub": "reader", "ringcast": {"facilities": {"subscribe": ["*"]}}}
READ = (STREAM, LAGOS, "/channels/facilities/events", ONE, SEARCH, "/api/facilities/suggest?q=yaba", "/api/procedures",
        "/api/insurance-providers", "/api/geocode?q=lagos")  # fmt: skip


def test_a_channel_that_is_not_for_everybody_is_closed_on_every_path(node: StartNode) -> None:
    """F1, F2, F5: without a token 401; with one that does not grant it 404, of what is there and what is not."""
    channels = '{"facilities": {"anonymous": false}}'
    server = node(**SETTINGS | {"jwt_secret": TOKEN_SECRET, "channels": channels})
    for path in (*READ, "/api/stream/facilities/fac_999", f"{REGION}?lat=none"):
        assert ask(server, path).status == 401, path
        assert ask(server, path, claims={"sub": "visitor"}).status == 404, path
    for path in (STREAM, LAGOS):
        with Attempt(server.port, path, **headers_of(READER)) as stream:
            assert stream.next_event().type == "hello"
    for path in READ[3:]:
        assert ask(server, path, claims=READER).status == 200
    # What is kept for those who may is not given to others.
    assert ask(server, ONE, claims=READER).cache == "HIT"
    assert ask(server, ONE).status == 401


# --- several nodes


@pytest.fixture
def start(request: pytest.FixtureRequest, node: StartNode, tmp_path: Path) -> Callable[..., Node]:
    """Starts nodes over one database, which takes PostgreSQL."""
    database = new_database(request, "postgresql", tmp_path)
    return lambda **settings: node(**SETTINGS | {"database": database} | settings)


def test_two_nodes_that_start_at_once_load_the_facilities_once(start: Callable[..., Node]) -> None:
    """F10: and what was changed is there after a restart."""
    nodes: list[Node] = []
    starts = [threading.Thread(target=lambda: nodes.append(start())) for _ in range(2)]
    for thread in starts:
        thread.start()
    for thread in starts:
        thread.join()
    totals = [ask(one, "/api/facilities/search").json["total"] for one in nodes]
    assert totals == [321, 321]
    assert sum(one.log().count("facilities_loaded") for one in nodes) == 1
    change(nodes[0], avg_wait_minutes=88)
    nodes[0].kill()
    nodes[0].start()
    assert ask(nodes[0], ONE).json["avg_wait_minutes"] == 88


def test_two_nodes_over_one_redis_and_one_database_are_one(start: Callable[..., Node], tmp_path: Path) -> None:
    """F1, F2, F7: changed here, seen there, live and in answers that were kept."""
    redis = RedisServer(tmp_path).start()
    try:
        first, second = start(relay=redis.url), start(relay=redis.url)
        assert [ask(second, ONE).cache for _ in range(2)] == ["MISS", "HIT"]
        with watching(first, LAGOS) as here, watching(second, STREAM) as there:
            change(first, avg_wait_minutes=33, capacity_status="low")
            assert told(here, 2) == told(there, 2)
        after = ask(second, ONE)
        assert (after.cache, after.json["avg_wait_minutes"]) == ("MISS", 33)
        # What is not monitored, and an order, reach the other node too.
        change(first, phone="+234 1 555 0000")
        wait_until(lambda: ask(second, ONE).json["phone"] == "+234 1 555 0000")
        assert ask(second, "/api/facilities/search").cache == "MISS"
        assert ask(second, "/api/facilities/search").cache == "HIT"
        assert ask(first, "/api/cache/searches", method="DELETE").status == 200
        wait_until(lambda: "cache_dropped" in second.log() and '"reason":"route"' in second.log())
        assert ask(second, "/api/facilities/search").cache == "MISS"
    finally:
        redis.stop()


def test_what_a_lost_log_would_have_told_is_kept_nowhere(start: Callable[..., Node], tmp_path: Path) -> None:
    """F7: a node stands still while a change and the log with it go by; answers of searches go too, for an order may
    have been lost."""
    redis = RedisServer(tmp_path).start()
    try:
        first, second = start(relay=redis.url), start(relay=redis.url)
        with watching(first, LAGOS) as here, watching(second, STREAM) as there:
            change(first, avg_wait_minutes=111)
            told(here, 1), told(there, 1)
            for path in (ONE, SEARCH):
                wait_until(lambda path=path: ask(second, path).cache == "HIT")
            os.kill(second.pid, signal.SIGSTOP)
            try:
                # The first one comes into a read that is under way, the second one is in the log alone.
                for facility in ("fac_002", "fac_001"):
                    change(first, facility, avg_wait_minutes=222)
                    told(here, 1)
                redis.kill()
                redis.start()
            finally:
                os.kill(second.pid, signal.SIGCONT)
        wait_until(lambda: ask(second, ONE).json["avg_wait_minutes"] == 222, 30)
        assert ask(second, SEARCH).json["facilities"][0]["avg_wait_minutes"] == 222
        assert '"reason":"missed"' in second.log()
    finally:
        redis.stop()


# --- the simulation


def test_one_node_simulates_and_says_so(start: Callable[..., Node]) -> None:
    """F3, F10: another goes on when it ends, and what somebody has reported on is left alone."""
    settings = {"simulate": True, "facilities_change_seconds": 0.02}
    first, second = start(**settings), start(**settings)
    wait_until(lambda: simulated(first) or simulated(second), 20)
    here, other = (first, second) if simulated(first) else (second, first)
    with watching(here, f"{REGION}?lat=0&lon=0&radius=20038") as stream:
        for body in told(stream, 5):
            assert body["simulated"] is True
            assert body["changed_fields"]
    assert simulated(other) == 0
    change(other, avg_wait_minutes=1_000)
    here.stop()
    wait_until(lambda: simulated(other), 20)
    assert ask(other, f"{ONE}?cache=skip").json["avg_wait_minutes"] == 1_000


def simulated(node: Node) -> float:
    """How many events a node has made of its own accord."""
    lines = node.get("/metrics")[2].decode().splitlines()
    return sum(float(line.split()[1]) for line in lines if 'source="simulation"' in line)
