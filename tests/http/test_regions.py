"""E8, F2: streams of a region over real sockets: live, replayed, after a restart, over the date line and the poles."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.conftest import StartNode
from tests.harness.process import Node
from tests.harness.stream import Stream
from tests.http.endpoint import hello_of

LAGOS, IKEJA, IBADAN = (6.5244, 3.3792), (6.6018, 3.3515), (7.3775, 3.9470)
Place = tuple[float, float]
_numbers = itertools.count(1)


class Channel:
    """A channel of one test's own on a node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.path = f"/channels/places-{next(_numbers)}/events"

    def publish(self, data: str, place: Place | None, **fields: object) -> tuple[int, dict[str, Any]]:
        location = {} if place is None else {"location": {"latitude": place[0], "longitude": place[1]}}
        body = json.dumps({"data": data, **location, **fields})
        status, _, answer = self.node.request("POST", self.path, body, Content_Type="application/json")
        return status, json.loads(answer)

    def stream(self, place: Place, radius: float | None = None, **parameters: object) -> Stream:
        """A stream of the region, behind its hello."""
        query: dict[str, object] = {"lat": place[0], "lon": place[1], **parameters}
        query |= {} if radius is None else {"radius": radius}
        opened = Stream(self.node.port, f"{self.path}?{urlencode(query)}")
        assert opened.status == 200
        hello_of(opened)
        return opened


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server with everything as it is by default."""
    server = Node(tmp_path_factory.mktemp("regions")).start()
    yield server
    server.kill()


@pytest.fixture
def channel(common: Node) -> Channel:
    return Channel(common)


def data(opened: Stream, count: int) -> list[str | None]:
    return [block.data for block in opened.events(count)]


def test_a_region_gets_what_happens_in_it_and_nothing_else(channel: Channel) -> None:
    with channel.stream(LAGOS, 25) as city, channel.stream(LAGOS, 200) as land, channel.stream(IBADAN) as other:
        for text, place in (("ikeja", IKEJA), ("nowhere", None), ("ibadan", IBADAN), ("lagos", LAGOS)):
            assert channel.publish(text, place)[0] == 200
        assert data(city, 2) == ["ikeja", "lagos"]
        assert data(land, 3) == ["ikeja", "ibadan", "lagos"]
        channel.publish("again", IBADAN)
        assert data(other, 2) == ["ibadan", "again"]  # 50 km if nothing is said


def test_the_location_itself_is_not_sent(channel: Channel) -> None:
    with channel.stream(LAGOS) as opened:
        channel.publish("x", LAGOS)
        [block] = opened.events(1)
    assert [name for name, _ in block.fields] == ["id", "data"]


def test_topics_and_types_narrow_a_region(channel: Channel) -> None:
    with channel.stream(LAGOS, 25, topic="f/{id}", type="capacity") as opened:
        channel.publish("other type", IKEJA, topic="f/1")
        channel.publish("other topic", IKEJA, topic="g", type="capacity")
        channel.publish("other place", IBADAN, topic="f/1", type="capacity")
        channel.publish("this", IKEJA, topic="f/1", type="capacity")
        assert data(opened, 1) == ["this"]


@pytest.mark.parametrize(
    ("centre", "near", "far"),
    [
        ((0, 179.9), (0.0, -179.9), (0.0, -179.0)),
        ((-17, -180), (-17.1, 179.95), (-17.1, 179.0)),
        ((89.9, 0), (89.9, 180.0), (89.0, 180.0)),
        ((-90, 12), (-89.8, -77.0), (-89.0, 12.0)),
    ],
)
def test_the_date_line_and_the_poles_are_no_borders(channel: Channel, centre: Place, near: Place, far: Place) -> None:
    with channel.stream(centre, 30) as opened:
        channel.publish("far", far)
        channel.publish("near", near)
        assert data(opened, 1) == ["near"]


@pytest.mark.parametrize("relay", ["memory", "sqlite"])
def test_what_is_replayed_is_of_the_region_too(channel: Channel, node: StartNode, relay: str) -> None:
    if relay == "sqlite":
        channel.node = node(relay=f"sqlite:{channel.path.split('/')[2]}.db")
    happened = (("1", LAGOS), ("2", IBADAN), ("3", IKEJA), ("4", None), ("5", LAGOS))
    ids = [channel.publish(text, place)[1]["ids"][0] for text, place in happened]
    if relay == "sqlite":
        channel.node.kill()
        channel.node.start()
    with channel.stream(LAGOS, 25, last_event_id=ids[0]) as resumed:
        assert data(resumed, 2) == ["3", "5"]
    with channel.stream(LAGOS, 25, last=2) as newest:
        assert data(newest, 2) == ["3", "5"]
    with channel.stream(IBADAN, 25, last_event_id="earliest") as everything:
        assert data(everything, 1) == ["2"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("lat=91&lon=0", "lat"),
        ("lat=0&lon=181", "lon"),
        ("lat=0&lon=0&radius=0", "radius"),
        ("lat=0&lon=0&radius=20039", "radius"),
        ("lat=0&lon=0&radius=many", "radius"),
        ("lat=0", "lon"),
        ("radius=5", "lat"),
        ("lat=0&lat=1&lon=0", "lat"),
    ],
)
def test_a_bad_region_is_refused_with_its_parameter(channel: Channel, query: str, field: str) -> None:
    with Stream(channel.node.port, f"{channel.path}?{query}") as answer:
        assert answer.status == 400
        found = json.loads(answer.body())
    assert (found["code"], found["field"]) == ("bad_request", field)
    assert found["reason"]


def test_a_bad_location_is_refused_with_its_field(channel: Channel) -> None:
    for place, field in (((91, 0), "latitude"), ((0, 200), "longitude")):
        status, answer = channel.publish("x", place)
        assert (status, answer["field"]) == (400, f"location.{field}")
