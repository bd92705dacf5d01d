"""Too many connections: in all, per address, per token subject, per second; and addresses that are made up."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.stream import Stream
from tests.threats.conftest import Start
from tests.threats.crowd import Crowd
from tests.threats.neighbours import Neighbours
from tests.threats.process_facts import descriptors
from tests.threats.tokens import EVERYTHING, bearer, signed
from tests.threats.wire import WAYS, answered, ask, request, wire

PATH = "/channels/main/events?topic=limits"
joined: list[Stream] = []


@pytest.fixture(autouse=True)
def everybody_leaves() -> Iterator[None]:
    """Streams are closed however a test ends."""
    yield
    close(joined)
    joined.clear()


def join(node: Node, **headers: str) -> Stream:
    """One more stream."""
    joined.append(Stream(node.port, PATH, **headers))
    return joined[-1]


def opened(node: Node, count: int, **headers: str) -> tuple[list[Stream], list[Stream]]:
    """Ask for `count` streams: those that live, and those that were refused as an EventSource is (all of their blocks
    are read).
    """
    live, refused = [], []
    for _ in range(count):
        stream = join(node, **headers)
        assert stream.status == 200
        block = stream.next_event()
        if block.type == "hello":
            live.append(stream)
        else:
            assert stream.next_block() is None
            refused.append(stream)
    return live, refused


def check_refused(stream: Stream, code: str) -> None:
    """200, a jittered retry, the code, the end."""
    text = stream.raw.decode()
    assert stream.clean_end and f"event: {code}\n" in text and '"reconnect":true' in text
    assert any(line.startswith("retry: ") for line in text.split("\n"))
    stream.close()


def close(streams: list[Stream]) -> None:
    for stream in streams:
        stream.close()


def test_an_address_gets_its_share_and_not_one_more(start: Start) -> None:
    """S06: of 70 from one address exactly 20 live, 50 are told so fast, another address is unaffected, and all can come
    back 20 times.
    """
    node = start(max_connections_per_address=20)
    begin = time.monotonic()
    live, refused = opened(node, 70)
    assert (len(live), len(refused)) == (20, 50)
    assert (time.monotonic() - begin) / 70 < 0.05
    for stream in refused:
        check_refused(stream, "too_many")
    assert len({stream.raw.split(b"retry: ")[1].split(b"\n")[0] for stream in refused}) > 10
    api = answered(node.port, request("GET", PATH), source="127.0.0.1")
    assert api.status == 429 and api.header("Retry-After")
    other = ask(node.port, request("GET", PATH, Accept="text/event-stream"), source="127.0.0.2")
    assert other is not None and other.status == 200
    close(live)
    for _ in range(20):
        wait_until(lambda: _come_back(node, 20), 10, "20 places free again")


def _come_back(node: Node, count: int) -> bool:
    live, refused = opened(node, count + 1)
    close(live + refused)
    return len(live) == count


@pytest.mark.parametrize("way", WAYS)
def test_both_ways_in_count_towards_the_same_limit(start: Start, way: str) -> None:
    """S06: a stream that comes later on a kept-alive connection takes a place, and finds none in a full house."""
    node = start(max_connections=6, max_connections_per_address=5)
    with wire(node.port, way) as connection:
        connection.send(request("GET", PATH, Accept="text/event-stream"))
        connection.until(b"event: hello")
        live, refused = opened(node, 6)
        assert (len(live), len(refused)) == (4, 2)
        with wire(node.port, way) as late:
            late.send(request("GET", PATH, Accept="text/event-stream"))
            late.until(b"event: too_many")
            late.rest()
        close(live)


def test_a_full_node_refuses_newcomers_and_keeps_those_it_has(start: Start) -> None:
    """S06: reject, don't evict: beyond max_connections `overloaded`, 503 for API clients; the rest goes on."""
    node = start(max_connections=13)
    with Neighbours(node.port, readers=3) as neighbours:
        live, refused = opened(node, 60)
        assert (len(live), len(refused)) == (10, 50)
        for stream in refused:
            check_refused(stream, "overloaded")
        api = answered(node.port, request("GET", PATH))
        assert api.status == 503 and api.header("Retry-After")
        assert answered(node.port, request("GET", "/health")).status == 200
        neighbours.wait_for(5)
        close(live)


HEALTH = request("GET", "/health")
STAYING = (HEALTH, HEALTH + b"GET /health HTTP/1.1\r\nX-Slow: ", request("GET", "/nowhere"), request("PUT", "/x", b"x"))


def test_connections_that_only_stay_hold_few_descriptors(start: Start) -> None:
    """S06, S08: of 700 that had an answer and stay, or begin another request and don't end it, the 400 latest are kept.
    A publisher that was there before goes on, and so do streams.
    """
    node = start(max_http_connections=400)
    with Neighbours(node.port, every=0.05, page_first=True) as neighbours:
        before = len(descriptors(node.pid))
        with Crowd(node.port, 700, lambda i: STAYING[i % 4]) as crowd:
            crowd.wait(lambda: len(crowd.open) < 400, 10, "301 let go")
            assert len(descriptors(node.pid)) - before <= 400
            neighbours.wait_for(5)
            facts = json.loads(answered(node.port, request("GET", "/stats")).body)["connections"]
            assert facts["total"] == 3


def test_where_all_are_at_work_a_newcomer_is_asked_to_come_back(start: Start) -> None:
    """S06: an EventSource in its own way, another client by 503; who is at work is not closed for them."""
    node = start(max_http_connections=10)
    uploading = request(
        "POST", "/channels/main/events", Content_Type="application/json", Expect="100-continue"
    ).replace(b"Content-Length: 0", b"Content-Length: 100000")
    with Crowd(node.port, 10, uploading) as crowd:
        # To ask whether they are there would take a place, and one of them might find none.
        crowd.wait(lambda: all(b" 100 " in one.received for one in crowd.members), 5, "ten at work")
        assert answered(node.port, HEALTH).status == 503
        assert (answered(node.port, HEALTH).header("Retry-After") or "0") > "0"
        stream = Stream(node.port, "/channels/new/events")
        assert stream.next_event().type == "overloaded"
        assert stream.next_block() is None
        joined.append(stream)
        crowd.send_each(b'{"topic": "limits"}'.ljust(100_000))
        crowd.step(0.1)
        wait_until(lambda: crowd.step() or all(b"200 OK" in one.received for one in crowd.members), 5, "ten answers")
        assert len(crowd.open) == 10


def test_a_token_subject_gets_its_share_wherever_it_comes_from(start: Start) -> None:
    """S06: the limit per subject spans addresses and does not touch other subjects."""
    node = start(jwt_secret=TOKEN_SECRET, max_connections_per_subject=4)
    mine, other = (bearer(signed(EVERYTHING | {"sub": name})) for name in ("shop-7", "shop-8"))
    live, refused = opened(node, 10, Authorization=mine)
    assert (len(live), len(refused)) == (4, 6)
    for stream in refused:
        check_refused(stream, "too_many")
    elsewhere = answered(node.port, request("GET", PATH, Authorization=mine), source="127.0.0.3")
    assert elsewhere.status == 429
    theirs, none = opened(node, 4, Authorization=other)
    assert not none
    close(live + theirs)


def test_opening_too_fast_is_answered_with_a_later_date(start: Start) -> None:
    """S06: beyond the burst new streams are `rate_limited`, 429 for API clients, and let in again at the rate."""
    node = start(opens_per_second=5, opens_burst=10)
    begin = time.monotonic()
    live, refused = opened(node, 40)
    assert 10 <= len(live) <= 10 + 5 * (time.monotonic() - begin) + 1
    for stream in refused:
        check_refused(stream, "rate_limited")
    # Several: at any moment one more may be due.
    answers = [answered(node.port, request("GET", PATH)) for _ in range(20)]
    assert all(api.header("Retry-After") for api in answers if api.status == 429)
    assert 429 in {api.status for api in answers}
    wait_until(lambda: answered(node.port, request("GET", PATH)).status == 200, 10, "a place at the rate")
    close(live)


def forged(number: int) -> str:
    return f"203.0.113.{number % 256}, 10.{number % 7}.0.{number % 256}"


CLAIMS = ["X-Forwarded-For", "X-Real-Ip", "Forwarded", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP"]


def test_a_forged_address_opens_no_place(start: Start) -> None:
    """S07: without a trusted proxy the peer's own address counts, whatever it claims."""
    node = start(max_connections_per_address=5)
    live, _ = opened(node, 5)
    for number, header in enumerate(CLAIMS * 5):
        for way in WAYS:
            raw = request("GET", PATH, **{header: forged(number)})
            assert answered(node.port, raw, way).status == 429, (header, way)
    close(live)


@pytest.mark.parametrize("way", WAYS)
def test_behind_a_trusted_proxy_only_what_the_proxy_says_counts(start: Start, way: str) -> None:
    """S07: of a list of addresses the last that is not a trusted proxy counts; what a client put in front of it does
    not.
    """
    node = start(max_connections_per_address=3, trusted_proxies="127.0.0.0/8,10.0.0.0/8")
    live, refused = [], []
    for number in range(8):
        stream = join(node, X_Forwarded_For=f"192.0.2.{number}, 203.0.113.9, 10.0.0.{number}")
        (live if stream.next_event().type == "hello" else refused).append(stream)
    assert (len(live), len(refused)) == (3, 5)
    for value in ("203.0.113.9", "198.51.100.1, 203.0.113.9", "garbage, 203.0.113.9", " 203.0.113.9 "):
        assert answered(node.port, request("GET", PATH, X_Forwarded_For=value), way).status == 429, value
    for value in ("203.0.113.10", "203.0.113.9, 203.0.113.11"):
        assert answered(node.port, request("GET", PATH, X_Forwarded_For=value), way).status == 200, value
    close(live + refused)


def test_addresses_of_one_ipv6_network_count_as_one(start: Start) -> None:
    """S07: a /64 is one client, however many addresses it makes up."""
    node = start(max_connections_per_address=3, trusted_proxies="127.0.0.1")
    live, refused = [], []
    for number in range(8):
        stream = join(node, X_Forwarded_For=f"2001:db8:1:2::{number + 1:x}")
        (live if stream.next_event().type == "hello" else refused).append(stream)
    assert (len(live), len(refused)) == (3, 5)
    assert answered(node.port, request("GET", PATH, X_Forwarded_For="2001:db8:1:3::1")).status == 200
    close(live + refused)


NONSENSE = [
    "",
    ",",
    "unknown",
    "1.2.3.4:80",
    "[::1]:1",
    "\x00",
    "x" * 5000,
    "::ffff:1.2.3.4, , ,",
    "1.2.3.4\t",
    "fe80::1%eth0",
]


def test_a_proxy_that_talks_nonsense_breaks_nothing(start: Start) -> None:
    """S07: any X-Forwarded-For has an answer that is no server error."""
    node = start(trusted_proxies="127.0.0.1", max_connections_per_address=1000)
    for value in NONSENSE:
        for way in WAYS:
            answer = ask(node.port, request("GET", PATH, X_Forwarded_For=value), way)
            assert answer is None or answer.status in (200, 400), (value, answer)
