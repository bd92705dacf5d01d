"""The stream of a tenant and the way into it: M1, M2, M4 and M6, on one node and on two."""

from __future__ import annotations

import contextlib
import itertools
import json
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.ids import format_id
from tests.apps.asking import handed_over
from tests.apps.monitoring import SETTINGS, Tenant, ask, body_of, broadcast, following, register
from tests.conftest import StartNode
from tests.harness.databases import new_database
from tests.harness.process import TOKEN_SECRET, Node, wait_until
from tests.harness.redis import RedisServer
from tests.harness.stream import Stream, request_bytes
from tests.threats.tokens import bearer, signed

SECRET = "a secret of the worker"
SHOWN = {"X_Internal_Secret": SECRET}
CHECK: dict[str, Any] = {
    "monitor_id": "m1",
    "monitor_name": "Shop",
    "success": False,
    "status_code": 503,
    "response_time_ms": 812,
    "error_message": "HTTP status 503",
    "ssl_valid": True,
    "ssl_expires_at": "2026-12-31T00:00:00Z",
    "checked_at": "2026-11-21T12:00:00.000Z",
}
CREATED = {
    "monitor_id": "m1",
    "alert_rule_id": "r1",
    "rule_name": "Down",
    "trigger_value": "Monitor is down",
    "status": "open",
}
RESOLVED = {"monitor_id": "m1", "alert_rule_id": "r1", "rule_name": "Down", "status": "resolved"}
# As in the seed, but for the port.
CURL = """curl -X POST http://localhost:8080/internal/broadcast
  -H "Content-Type: application/json"
  -d '{"type":"monitor_check","data":{"monitor_id":"test"},"tenant_id":1}'"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """In development mode."""
    node = Node(tmp_path_factory.mktemp("monitors"), **SETTINGS).start()
    yield node
    node.kill()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """With a key, a secret for the worker, and few streams for a tenant."""
    own = {
        "jwt_secret": TOKEN_SECRET,
        "monitors_secret": SECRET,
        "monitors_max_streams": 3,
        "monitors_streams_per_second": 0.2,
        "monitors_streams_burst": 6,
    }
    node = Node(tmp_path_factory.mktemp("monitors"), **SETTINGS | own).start()
    yield node
    node.kill()


@pytest.fixture(scope="module")
def somebody(server: Node) -> Tenant:
    """A tenant that is there."""
    return register(server)


# --- the stream


def test_the_three_events_arrive_as_the_seed_has_them(server: Node) -> None:
    """M4: names, and bodies byte for byte what they are in its blocks; the token in the query or as a bearer."""
    tenant = register(server)
    path = "/api/v1/stream/events"
    with tenant.stream() as first, Stream(server.port, path, Authorization=bearer(tenant.token)) as second:
        for stream in (first, second):
            assert stream.headers["content-type"] == "text/event-stream"
            hello = stream.next_event()
            assert (hello.type, json.loads(hello.data or "")["heartbeat_seconds"]) == ("connected", 30)
        sent = [("monitor_check", CHECK), ("incident_created", CREATED), ("incident_resolved", RESOLVED)]
        for kind, data in sent:
            answer = broadcast(server, tenant.number, data, kind)
            assert answer.status == 200
            assert (answer.json["message"], answer.json["clients"]) == ("Event broadcasted", 2)
        for stream in (first, second):
            blocks = following(stream, 3)
            assert [block.type for block in blocks] == [kind for kind, _ in sent]
            assert [body_of(block) for block in blocks] == [
                {"type": kind, "data": data, "tenant_id": tenant.number} for kind, data in sent
            ]


def test_the_seed_s_own_example_works_as_it_is_written(server: Node) -> None:
    """M2: from this machine, without a secret, in development mode. Tenant 1 is there once somebody has registered."""
    register(server)
    command = shlex.split(CURL.replace("8080", str(server.port)))
    done = subprocess.run([*command, "-s", "-S"], capture_output=True, text=True, timeout=20, check=True)
    answer = json.loads(done.stdout)
    assert answer["message"] == "Event broadcasted"


def test_a_client_may_choose_types_and_begin_with_the_last(server: Node) -> None:
    tenant = register(server)
    for number in range(6):
        kind, data = (("monitor_check", CHECK), ("incident_created", CREATED))[number % 2]
        broadcast(server, tenant.number, data, kind)
    with tenant.stream(query="&types=incident_created,incident_resolved&last=2") as stream:
        assert [block.type for block in following(stream, 2)] == ["incident_created"] * 2
        broadcast(server, tenant.number, CHECK)
        broadcast(server, tenant.number, RESOLVED, "incident_resolved")
        assert [block.type for block in following(stream, 1)] == ["incident_resolved"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("types=", "types"), ("types=a,,b", "types"), ("types=" + "a" * 65, "types"), ("types=a%00b", "types"),
        ("types=" + ",".join("a" * 21), "types"), ("last=0", "last"), ("last=1001", "last"), ("last=x", "last"),
    ],
)  # fmt: skip
def test_parameters_that_are_not_valid(somebody: Tenant, query: str, field: str) -> None:
    answer = somebody.ask("GET", f"/api/v1/stream/events?{query}", Accept="text/event-stream")
    assert (answer.status, answer.json["field"]) == (400, field)


def test_the_stream_goes_on_where_it_was(server: Node) -> None:
    """M1, E6: nothing twice, nothing missing."""
    tenant = register(server)
    with tenant.stream() as stream:
        stream.next_event()
        broadcast(server, tenant.number, {"monitor_id": "before"})
        [last] = following(stream, 1)
    for number in range(3):
        broadcast(server, tenant.number, {"monitor_id": f"away{number}"})
    with tenant.stream(Last_Event_ID=last.id) as stream:
        broadcast(server, tenant.number, {"monitor_id": "live"})
        found = [body_of(block)["data"]["monitor_id"] for block in following(stream, 4)]
    assert found == ["away0", "away1", "away2", "live"]


# --- the way in


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"type": "monitor_check", "data": {}, "tenant_id": 1}, 422, "data.monitor_id"),
        ({"type": "monitor_check", "data": CHECK | {"success": "no"}, "tenant_id": 1}, 422, "data.success"),
        ({"type": "incident_created", "data": RESOLVED, "tenant_id": 1}, 422, "data.trigger_value"),
        ({"type": "other", "data": CHECK, "tenant_id": 1}, 422, "type"),
        ({"type": "monitor_check", "data": [], "tenant_id": 1}, 422, "data"),
        ({"type": "monitor_check", "data": CHECK}, 422, "tenant_id"),
        ({"type": "monitor_check", "data": CHECK, "tenant_id": "1"}, 422, "tenant_id"),
        ({"type": "monitor_check", "data": CHECK, "tenant_id": True}, 422, "tenant_id"),
        ({"type": "monitor_check", "data": CHECK, "tenant_id": 0}, 422, "tenant_id"),
        ({"type": "monitor_check", "data": CHECK, "tenant_id": 1.5}, 422, "tenant_id"),
        ({"type": "monitor_check", "data": CHECK, "tenant_id": 2**60}, 422, "tenant_id"),
        ({"type": "monitor_check", "data": CHECK, "tenant_id": 999_999_999}, 422, "tenant_id"),
        ({"type": "monitor_check", "data": CHECK, "tenant_id": 1, "more": 1}, 422, "more"),
        ("not json", 400, None),
    ],
)
def test_a_broadcast_that_is_not_valid_is_refused_by_its_field(
    somebody: Tenant, body: object, status: int, field: str | None
) -> None:
    """M2"""
    answer = ask(somebody.node, "POST", "/internal/broadcast", body)
    assert (answer.status, answer.json.get("field")) == (status, field), answer.text


def test_without_the_secret_nobody_broadcasts(keyed: Node) -> None:
    """M2"""
    tenant = register(keyed)
    for headers in ({}, {"X_Internal_Secret": ""}, {"X_Internal_Secret": SECRET + "x"}):
        answer = broadcast(keyed, tenant.number, CHECK, **headers)
        assert (answer.status, answer.json["code"]) == (401, "unauthorized")
    answer = broadcast(keyed, tenant.number, CHECK, Authorization=bearer(tenant.token))
    assert answer.status == 401  # a tenant's token is none
    assert broadcast(keyed, tenant.number, CHECK, **SHOWN).status == 200
    operator = signed({"ringcast": {"operate": True}})
    assert broadcast(keyed, tenant.number, CHECK, Authorization=bearer(operator)).status == 200
    assert SECRET not in keyed.log()


def test_in_development_mode_a_secret_counts_if_there_is_one(node: StartNode) -> None:
    started = node(**SETTINGS, monitors_secret=SECRET)
    tenant = register(started)
    assert broadcast(started, tenant.number, CHECK).status == 401
    assert broadcast(started, tenant.number, CHECK, **SHOWN).status == 200
    assert broadcast(started, tenant.number, CHECK, Authorization=f"Bearer {SECRET}").status == 200


@pytest.mark.parametrize(
    "header", ["X_Forwarded_For", "Forwarded", "X_Real_IP", "X_Forwarded_Host", "X_Forwarded_Proto", "Via"]
)
def test_what_a_proxy_passes_on_comes_from_outside(server: Node, keyed: Node, header: str) -> None:
    """M2: for all there it is not there, with the secret too, and whatever the body."""
    for node, secret in ((server, {}), (keyed, SHOWN)):
        for body in ({"type": "monitor_check", "data": CHECK, "tenant_id": 1}, "not json"):
            answer = ask(node, "POST", "/internal/broadcast", body, **secret | {header: "127.0.0.1"})
            assert (answer.status, answer.json["code"]) == (404, "not_found")


def test_a_page_of_another_site_broadcasts_nothing(server: Node) -> None:
    """A browser on this machine may be made to post here: its page's origin gives it away."""
    register(server)
    text = json.dumps({"type": "monitor_check", "data": CHECK, "tenant_id": 1})
    for headers in ({"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        assert ask(server, "POST", "/internal/broadcast", text, **headers).status == 403
    assert ask(server, "POST", "/internal/broadcast", text, Host="evil.example").status == 403


def test_only_named_networks_are_inside(node: StartNode) -> None:
    """M2: another machine's address is outside, whatever it shows, until the operator names it."""
    addresses = _own_addresses()
    if not addresses:
        pytest.skip("this machine has no address but loopback")
    settings = SETTINGS | {"jwt_secret": TOKEN_SECRET, "monitors_secret": SECRET, "host": "0.0.0.0"}
    closed, opened = node(**settings), node(**settings | {"monitors_inside": f"{addresses[0]}/32"})
    for one, status in ((closed, 404), (opened, 200)):
        tenant = register(one)
        body = json.dumps({"type": "monitor_check", "data": CHECK, "tenant_id": tenant.number})
        command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"X-Internal-Secret: {SECRET}"]
        command += [
            "-H",
            "Content-Type: application/json",
            "-d",
            body,
            f"http://{addresses[0]}:{one.port}/internal/broadcast",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        assert done.stdout == str(status)


def _own_addresses() -> list[str]:
    found = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()
    return [address for address in found if ":" not in address and not address.startswith("127.")]


def test_a_broadcast_that_is_sent_again_is_one_event(server: Node) -> None:
    """M2, M3: the worker tries again under the same key."""
    tenant = register(server)
    with tenant.stream() as stream:
        stream.next_event()
        first = broadcast(server, tenant.number, CHECK, Idempotency_Key="k1")
        again = broadcast(server, tenant.number, CHECK, Idempotency_Key="k1")
        assert first.json["id"] == again.json["id"]
        answer = broadcast(server, tenant.number, CHECK | {"monitor_id": "other"}, Idempotency_Key="k1")
        assert (answer.status, answer.json["code"]) == (409, "conflict")
        assert broadcast(server, tenant.number, CHECK, Idempotency_Key="a b").status == 400
        last = broadcast(server, tenant.number, RESOLVED, "incident_resolved")
        assert [block.id for block in following(stream, 2)] == [first.json["id"], last.json["id"]]


# --- limits


def test_a_tenant_has_so_many_streams_and_another_s_are_its_own(keyed: Node) -> None:
    """M6: who is one too many comes back later by itself; API clients get a status."""
    mine, other = register(keyed), register(keyed)
    streams = [mine.stream() for _ in range(3)]
    for stream in streams:
        assert stream.next_event().type == "connected"
    with mine.stream() as refused:
        assert (refused.status, refused.headers["content-type"]) == (200, "text/event-stream")
        [block] = refused.wait_end()
        assert (block.type, json.loads(block.data or "")["reconnect"]) == ("too_many", True)
        assert int(block.get("retry") or 0) >= 10_000
    with mine.stream(Accept="*/*") as refused:
        assert refused.status == 429
        assert int(refused.headers["retry-after"]) >= 1
    with other.stream() as stream:
        assert stream.next_event().type == "connected"
    assert mine.get("/api/v1/monitors/summary")["streams"] == 3
    streams.pop().close()
    wait_until(lambda: mine.get("/api/v1/monitors/summary")["streams"] == 2)
    with mine.stream() as stream:
        assert stream.next_event().type == "connected"
    for stream in streams:
        stream.close()


def test_a_crowd_that_comes_back_does_not_get_past_the_limit(node: StartNode, tmp_path: Path) -> None:
    """M6: with cursors of another log, for which Redis has to be asked while others come."""
    redis = RedisServer(tmp_path).start()
    with contextlib.ExitStack() as ends:
        ends.callback(redis.stop)
        ends.callback(redis.signal, signal.SIGCONT)
        started = node(**SETTINGS | {"monitors_max_streams": 2, "relay": redis.url})
        tenant = register(started)
        request = request_bytes(
            f"/api/v1/stream/events?token={tenant.token}",
            Host=f"127.0.0.1:{started.port}",
            Last_Event_ID=format_id("zzzzzz", 5),
        )
        redis.signal(signal.SIGSTOP)
        before, asked = handed_over(started), itertools.count(1)
        crowd = [ends.enter_context(socket.create_connection(("127.0.0.1", started.port), 10)) for _ in range(12)]
        for one in crowd:
            one.sendall(request)
        wait_until(lambda: handed_over(started) - next(asked) >= before + len(crowd))
        redis.signal(signal.SIGCONT)
        streams = [Stream(started.port, "", connection=one, request=b"") for one in crowd]
        assert sorted(stream.next_event().type for stream in streams) == ["connected"] * 2 + ["too_many"] * 10


def test_a_tenant_opens_streams_at_a_rate(keyed: Node) -> None:
    """M6"""
    mine, other = register(keyed), register(keyed)
    kinds = []
    for _ in range(8):
        with mine.stream() as stream:
            kinds.append(stream.next_event().type)
        wait_until(lambda: mine.get("/api/v1/monitors/summary")["streams"] == 0)
    assert kinds[:6] == ["connected"] * 6
    assert kinds[-1] == "rate_limited"
    with other.stream() as stream:
        assert stream.next_event().type == "connected"
    metrics = keyed.get("/metrics", Authorization=bearer(signed({"ringcast": {"operate": True}})))[2].decode()
    assert 'ringcast_monitors_streams_refused_total{reason="rate_limited"}' in metrics


def test_figures_name_no_tenant(server: Node) -> None:
    tenant = register(server)
    with tenant.stream() as stream:
        stream.next_event()
        broadcast(server, tenant.number, CHECK)
        # Streams of the tests before may not have been let go yet.
        wait_until(lambda: b"\nringcast_monitors_streams 1.0\n" in server.get("/metrics")[2], what="one stream")
        lines = server.get("/metrics")[2].decode().splitlines()
    mine = [line for line in lines if line.startswith("ringcast_monitors_")]
    labels = {line.partition("{")[2].partition("=")[0] for line in mine if "{" in line}
    assert labels <= {"outcome", "type", "reason"}
    assert any(line.startswith('ringcast_monitors_checks_total{outcome="failure"}') for line in mine)
    assert any(line == "ringcast_monitors_streams 1.0" for line in mine)


# --- two nodes


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.stop()


def test_two_nodes_are_one(node: StartNode, redis: RedisServer, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """M1, M2, M6, E11: either takes a broadcast, both deliver it, a stream goes on at the other; a revocation and the
    limit hold for both; who registered at one is known at the other.
    """
    shared = {
        "relay": redis.url,
        "database": new_database(request, "postgresql", tmp_path),
        "jwt_secret": TOKEN_SECRET,
        "monitors_secret": SECRET,
        "monitors_max_streams": 4,
    }
    first, second = node(**SETTINGS | shared), node(**SETTINGS | shared)
    mine, other = register(first), register(second)
    with mine.stream(first) as here, mine.stream(second) as there, other.stream(first) as others:
        for stream in (here, there, others):
            stream.next_event()
        for number in range(4):
            answer = broadcast((first, second)[number % 2], mine.number, {"monitor_id": f"m{number}"}, **SHOWN)
            assert answer.status == 200, answer.text
        broadcast(second, other.number, {"monitor_id": "others"}, **SHOWN)
        found = [following(stream, 4) for stream in (here, there)]
        assert [block.id for block in found[0]] == [block.id for block in found[1]]
        assert [body_of(block)["data"]["monitor_id"] for block in found[0]] == ["m0", "m1", "m2", "m3"]
        assert body_of(following(others, 1)[0])["data"]["monitor_id"] == "others"
        # One that goes on at the other node.
        with mine.stream(second, Last_Event_ID=found[0][1].id) as moved:
            assert [block.id for block in following(moved, 2)] == [block.id for block in found[0][2:]]
        # A change at one node, told at both.
        made = mine.on(second).monitor("http://shop.example/")
        assert [body_of(following(stream, 1)[0])["data"]["monitor_id"] for stream in (here, there)] == [made["id"]] * 2
        # The same key at the other node.
        ids = {broadcast(one, mine.number, CHECK, Idempotency_Key="k", **SHOWN).json["id"] for one in (first, second)}
        assert len(ids) == 1
        _check_the_limit(mine, first, second)
        operator = bearer(signed({"ringcast": {"operate": True}}))
        revoked = {"tenant": str(mine.number), "seconds": 60}
        assert ask(second, "POST", "/revocations", revoked, Authorization=operator).status == 200
        assert [stream.wait_end()[-1].type for stream in (here, there)] == ["revoked", "revoked"]
        broadcast(first, other.number, {"monitor_id": "still"}, **SHOWN)
        assert body_of(following(others, 1)[0])["data"]["monitor_id"] == "still"


def _check_the_limit(tenant: Tenant, first: Node, second: Node) -> None:
    """Two are open, four are allowed over both nodes, as soon as they know of each other."""
    with tenant.stream(second) as third, tenant.stream(second) as fourth:
        third.next_event(), fourth.next_event()

        def refused() -> bool:
            with tenant.stream(first, Accept="*/*") as stream:
                return stream.status == 429

        wait_until(refused, 20, "the limit over both nodes")
