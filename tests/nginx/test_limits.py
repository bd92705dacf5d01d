"""Limits per address, as nginx keeps them: an EventSource over one is asked back later, others get 429."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
from concurrent.futures import ThreadPoolExecutor

from tests.harness.process import wait_until
from tests.nginx.conftest import StartNginx, StartSocketNode
from tests.nginx.http2 import Http2Stream
from tests.nginx.proxy import Nginx
from tests.nginx.test_outages import EVENT_STREAM, check_told_to_come_back

PATH = "/channels/main/events?topic=a"
NO_RATE = {"rate=50r/s": "rate=10000r/s"}


def few(streams: int) -> dict[str, str]:
    """Lower the limit of streams, and none of requests."""
    return NO_RATE | {"limit_conn        ringcast_streams 200;": f"limit_conn ringcast_streams {streams};"}


def test_an_address_gets_its_streams_and_not_one_more(socket_node: StartSocketNode, nginx: StartNginx) -> None:
    """S06: over any protocol and connection; the node never hears of those beyond; a place that is left is free."""
    node = socket_node()
    front = nginx(node, changes=few(10))
    streams = [front.stream(PATH) for _ in range(10)]
    assert all(stream.next_event().type == "hello" for stream in streams)
    for _ in range(5):
        retry_ms = check_told_to_come_back(*front.get(PATH, Accept=EVENT_STREAM), code="too_many")
        assert 12_000 <= retry_ms <= 19_900
    with Http2Stream(front, PATH) as over:
        assert [event.type for event in over.wait_end()] == ["too_many"]
    status, headers, body = front.get(PATH, Accept="*/*")
    assert (status, json.loads(body)["code"]) == (429, "too_many")
    assert 12 <= int(headers["retry-after"]) <= 19
    assert json.loads(node.get("/stats")[2])["totals"]["opened"] == 10
    streams.pop().close()
    wait_until(lambda: _admitted(front), 5, "the free place taken")
    for stream in streams:
        stream.close()


def _admitted(front: Nginx) -> bool:
    with front.stream(PATH) as stream:
        return stream.next_event().type == "hello"


def test_publishes_and_pages_take_no_stream_s_place(socket_node: StartSocketNode, nginx: StartNginx) -> None:
    """Only GETs are counted, and only while they last."""
    front = nginx(socket_node(), changes=few(1))
    with front.stream(PATH) as stream:
        stream.next_event()
        for number in range(20):
            front.publish("a", str(number))
            assert front.get("/health")[0] == 200
        assert [event.data for event in stream.events(20)] == [str(number) for number in range(20)]


def test_requests_of_an_address_beyond_burst_and_rate_are_refused(
    socket_node: StartSocketNode, nginx: StartNginx
) -> None:
    """S06: the shipped numbers: 200 at once pass, then 50 a second. Refused publishes are not in the log."""
    node = socket_node()
    front = nginx(node)
    body = '{"topic": "a", "data": "x"}'

    def publish(count: int) -> list[int]:
        """The statuses of so many, one after the other on one connection: the rate has to be reached."""
        statuses = []
        connection = http.client.HTTPSConnection("127.0.0.1", front.port, timeout=15, context=front.context)
        with contextlib.closing(connection):
            for _ in range(count):
                connection.request("POST", PATH, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
        return statuses

    with ThreadPoolExecutor(8) as pool:
        statuses = list(itertools.chain(*pool.map(publish, [50] * 8)))
    passed = statuses.count(200)
    assert passed + statuses.count(429) == 400
    assert 200 <= passed < 400
    assert json.loads(node.get("/stats")[2])["totals"]["published"] == passed
    wait_until(lambda: publish(1) == [200], 10, "a publish at the rate")


def test_an_event_source_beyond_the_rate_is_asked_back(socket_node: StartSocketNode, nginx: StartNginx) -> None:
    """H05: 429 would be final for it."""
    front = nginx(socket_node(), changes={"rate=50r/s": "rate=1r/m"})
    for _ in range(201):
        assert front.get("/health")[0] == 200
    check_told_to_come_back(*front.get(PATH, Accept=EVENT_STREAM), code="too_many")
    assert front.get(PATH)[0] == front.get("/health")[0] == 429


def test_addresses_inside_are_not_limited(socket_node: StartSocketNode, nginx: StartNginx) -> None:
    """The file for one's own publishers does what it says."""
    changes = few(1) | {"rate=50r/s": "rate=1r/m", "#127.0.0.1 1;": "127.0.0.1 1;"}
    front = nginx(socket_node(), changes=changes)
    for number in range(250):
        front.publish("a", str(number))
    streams = [front.stream(PATH) for _ in range(3)]
    assert [stream.next_event().type for stream in streams] == ["hello"] * 3
    for stream in streams:
        stream.close()
