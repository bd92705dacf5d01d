"""Pages for operators, and what the metrics give away."""

from __future__ import annotations

import itertools
import json
import re

import pytest

from tests.harness.process import Node
from tests.threats.conftest import Start
from tests.threats.tokens import bearer, signed
from tests.threats.wire import WAYS, answered, ask, request

OPERATOR = {"Authorization": bearer(signed({"ringcast": {"operate": True}}))}
OUTSIDE = {"X_Forwarded_For": "203.0.113.9"}


def disguised(name: str) -> list[str]:
    """Spellings by which somebody might slip past a list of paths."""
    return [
        f"/{name}", f"//{name}", f"/{name}/", f"/./{name}", f"/x/../{name}", f"/health/../{name}",
        f"/channels/../{name}", f"/{name};x", f"/{name}?x", f"/{name}#x",
        f"/{name.upper()}", f"/{name.title()}", f"/%{ord(name[0]):x}{name[1:]}", f"/{name[:-1]}%{ord(name[-1]):x}",
        f"/{name}%00", f"/{name}%20", f"/{name}%2f",
        f"/%2e/{name}", f"/x/%2e%2e/{name}", f"/x/..%2f{name}", f"/{name}.json", f"/{name}.html", f"\\{name}",
        f"/%5c{name}", f"/{name}/.", f"/{name}/..;/", f"/;/{name}",
        f"http://localhost/{name}", f"http://127.0.0.1/{name}", f"//localhost/{name}", f"/channels/main/../../{name}",
        f"/.well-known/{name}", f"/.well-known/../{name}",
    ]  # fmt: skip


INTERNAL = [
    "metrics", "stats", "debug", "debug/pprof", "debug/vars", "admin", "console", "internal", "internal/broadcast",
    "actuator", "actuator/env", "env", "config", "settings",
    "server-status", "status", "varz", "statusz", "trace", "_status", "api", "graphql", ".env", ".git/config",
    "ringcast.yaml", "phpinfo.php",
]  # fmt: skip
PATHS = list(
    dict.fromkeys(
        itertools.chain(
            *(disguised(name) for name in ("metrics", "stats", "debug", "admin")), (f"/{name}" for name in INTERNAL)
        )
    )
)


STRANGERS = [
    OUTSIDE,
    OUTSIDE | {"Authorization": bearer(signed())},
    OUTSIDE | {"Authorization": bearer("a.b.c")},
    {"X_Forwarded_For": "127.0.0.1"},
    OUTSIDE | {"X_Original_URL": "/health", "Forwarded": "for=127.0.0.1"},
]


def check_nothing_there(node: Node, raw: bytes, way: str) -> None:
    answer = ask(node.port, raw, way)
    if answer is not None:
        assert answer.status in (400, 401, 404), (raw, answer)
        assert b"connections" not in answer.body
        assert b"# HELP" not in answer.body


@pytest.mark.parametrize("way", WAYS)
def test_internal_pages_are_not_there_for_strangers(keyed_node: Node, way: str) -> None:
    """S47: some 150 spellings from outside: 404, or 400 or 401 where the request itself is bad; never a figure."""
    for path in PATHS:
        check_nothing_there(keyed_node, request("GET", path, **OUTSIDE), way)
    for path in ("/metrics", "/stats", "//metrics", "/metrics/"):
        for stranger in STRANGERS:
            for host in (b"localhost", b"metrics", b"127.0.0.1:9090"):
                raw = request("GET", path, **stranger).replace(b"Host: localhost", b"Host: " + host, 1)
                check_nothing_there(keyed_node, raw, way)


def test_operators_get_their_pages(keyed_node: Node) -> None:
    """S47: the test above would mean nothing otherwise: from outside with the right, and from the machine itself."""
    for way in WAYS:
        for headers in ({}, OUTSIDE | OPERATOR):
            assert answered(keyed_node.port, request("GET", "/metrics", **headers), way).status == 200
            assert answered(keyed_node.port, request("GET", "/stats", **headers), way).status == 200


def series(node: Node) -> list[str]:
    """The metrics' series, without their values."""
    text = answered(node.port, request("GET", "/metrics")).body.decode()
    return sorted(line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#"))


def lively(node: Node, names: list[str]) -> None:
    """One event for each name as topic and type, and one stream for every fortieth."""
    lines = "\n".join(
        json.dumps({"topic": f"t/{name}", "type": f"k-{name}", "id": f"i-{name}", "data": name}) for name in names
    )
    raw = request("POST", "/channels/main/events", lines.encode(), Content_Type="application/x-ndjson")
    assert answered(node.port, raw).status == 200
    for name in names[::40]:
        for way in WAYS:
            path = f"/channels/main/events?topic=t/{name}&type=k-{name}"
            assert (
                answered(
                    node.port, request("GET", path, User_Agent=f"agent-{name}", Last_Event_ID=f"i-{name}"), way
                ).status
                == 200
            )
        ask(node.port, request("GET", f"/none/{name}"))
        ask(node.port, request(f"M{name.upper()}"[:20], "/health"))


def test_metrics_do_not_grow_with_topics_clients_or_paths(start: Start) -> None:
    """S47: 5,000 topics and types, and hundreds of agents, methods and paths, add no series, and none is a label."""
    node = start(ring_events=1000)
    lively(node, [f"warm{i}" for i in range(40)])
    before = series(node)
    for begin in range(0, 5000, 1000):
        lively(node, [f"canary{i}" for i in range(begin, begin + 1000)])
    after = series(node)
    assert after == before
    assert not [line for line in after if re.search("canary|warm|203|127", line)]
    assert len(after) < 400


def test_made_up_channels_make_no_series(start: Start) -> None:
    """S47: channels that can't be opened leave no trace, those that can are bounded by max_channels."""
    node = start(max_channels=10)
    for number in range(300):
        ask(node.port, request("GET", f"/channels/made-up-{number}/events"))
    few = len(series(node))
    for number in range(300, 600):
        answer = ask(node.port, request("GET", f"/channels/made-up-{number}/events"))
        assert answer is not None and answer.status == 404
    assert len(series(node)) == few
