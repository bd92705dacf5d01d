"""Settings of bridges: what may be said, and how a slip is told of."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bridges.bridge import COUNTERS
from bridges.running import Bridges, Sources
from config.bridges import BridgeSettings, MappingSettings, NatsStream, NatsSubjects, PubSub, RedisPubSub
from config.display import show
from config.problems import ConfigError
from config.settings import Settings
from config.sources import load
from tests.harness.process import ROOT, Node

MAPPING = {"source": "metrics.*", "channel": "companies", "topics": ["companies/{json.companyId}"]}
CORE = {"kind": "nats", "name": "metrics", "mappings": [MAPPING]}
STREAM = {"kind": "jetstream", "name": "orders", "stream": "ORDERS", "mappings": [MAPPING]}
REDIS = {"kind": "redis", "name": "jobs", "url": "redis://127.0.0.1:6379", "mappings": [MAPPING]}


def problem(*bridges: Any, monkeypatch: pytest.MonkeyPatch, **others: str) -> str:
    """What is said of these bridges, as an operator gets to read it."""
    monkeypatch.setenv("RINGCAST_BRIDGES", json.dumps(bridges))
    for name, value in others.items():
        monkeypatch.setenv(f"RINGCAST_{name.upper()}", value)
    with pytest.raises(ConfigError) as caught:
        load(None, {})
    return str(caught.value)


def with_mapping(**changes: Any) -> dict[str, Any]:
    return CORE | {"mappings": [{name: value for name, value in (MAPPING | changes).items() if value is not None}]}


@pytest.mark.parametrize(
    ("bridge", "said"),
    [
        (CORE | {"kind": "nat"}, "bridge metrics: kind must be one of nats, jetstream, redis, pubsub"),
        ("metrics", "bridge 1: must be a mapping with kind, name and mappings"),
        ({"kind": "nats", "mappings": [MAPPING]}, "bridge 1: name: is missing"),
        (CORE | {"name": "Metrics"}, "bridge Metrics: name: must be a lower-case letter"),
        (CORE | {"mappings": []}, "bridge metrics: mappings: must be 1 to 100"),
        (CORE | {"mapping": []}, "bridge metrics: mapping: there is no such setting (did you mean mappings?)"),
        (CORE | {"max_waiting": 0}, "bridge metrics: max_waiting: must be greater than or equal to 1"),
        (CORE | {"queue": "a b"}, "bridge metrics: queue: must be 1 to 64 of A-Z a-z 0-9 _ -"),
        (with_mapping(topic="x"), "bridge metrics: mapping 1, topic: there is no such setting (did you mean topics?)"),
        (with_mapping(topics=["a", "{json"]), "bridge metrics: mapping 1, topic 2: has a lone {"),
        (with_mapping(topics=["{jsn.a}"]), "bridge metrics: mapping 1, topic 1: {jsn.a} is no part of a message"),
        (with_mapping(type="{"), "bridge metrics: mapping 1, type: has a lone {"),
        (with_mapping(data={"a": ["{json.b} }"]}), "bridge metrics: mapping 1, data: has a lone }"),
        (with_mapping(location=["{json.a}"]), "bridge metrics: mapping 1, location"),
        (with_mapping(channel="Companies"), "bridge metrics: mapping 1, channel: 'Companies' is not a channel's name"),
        (with_mapping(channel=None), "bridge metrics: mappings: mapping 1: needs a channel and topics, or a function"),
        (with_mapping(topics=[]), "bridge metrics: mappings: mapping 1: needs a channel and topics, or a function"),
        (with_mapping(function="a:b"), "bridge metrics: mappings: mapping 1: beside function there is no channel"),
        (with_mapping(source="a b"), "bridge metrics: mapping 1, source: must be 1 to 512 characters without spaces"),
        (with_mapping(source="a..b"), "'a..b' is not a NATS subject"),
        (with_mapping(source="a.>.b"), "'a.>.b' is not a NATS subject"),
        (with_mapping(source="a.b*"), "'a.b*' is not a NATS subject"),
        (STREAM | {"stream": "a.b"}, "bridge orders: stream: must be 1 to 64 of A-Z a-z 0-9 _ -"),
        (STREAM | {"subjects": ["a..b"]}, "bridge orders: subject 1: 'a..b' is not a NATS subject"),
        (REDIS | {"url": "redis+cluster://h:1"}, "bridge jobs: url: must be redis://HOST:PORT/DATABASE"),
    ],
)
def test_a_slip_is_told_of_with_the_bridge_and_the_mapping(
    bridge: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = problem(bridge, monkeypatch=monkeypatch, nats_url="nats://127.0.0.1")
    assert text.startswith("bridges (environment RINGCAST_BRIDGES): ")
    assert said in text


@pytest.mark.parametrize(
    ("bridges", "said"),
    [
        ([CORE], "bridge metrics: needs a url, or nats_url"),
        ([STREAM], "bridge orders: needs a url, or nats_url"),
        ([{**REDIS, "url": None}], "bridge jobs: needs a url, unless the relay is Redis"),
        ([REDIS, REDIS], "bridge jobs: the name is there twice"),
    ],
)
def test_a_bridge_has_an_address_and_a_name_of_its_own(
    bridges: list[Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said in problem(*bridges, monkeypatch=monkeypatch)


@pytest.mark.parametrize("url", ["", "http://h", "nats://", "nats://h:x", "nats://h, ftp://h", "h:4222"])
def test_an_address_of_nats_is_one(url: str) -> None:
    with pytest.raises(ValueError, match="nats://HOST:PORT"):
        Settings(nats_url=url)


def test_pub_sub_of_a_cluster_is_read_from_one_node_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    text = problem(REDIS | {"url": None}, monkeypatch=monkeypatch, relay="redis+cluster://127.0.0.1:1")
    assert "bridge jobs: needs a url, of one node of the cluster" in text


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    text = problem(REDIS | {"url": "http://u:canary@h"}, CORE | {"url": "canary"}, monkeypatch=monkeypatch)
    settings = Settings(nats_url="nats://u:canary@h", bridges=[REDIS | {"url": "redis://u:canary@h"}])
    shown = text + show("nats_url", settings.nats_url) + show("bridges", settings.bridges) + repr(settings)
    assert "canary" not in shown


def test_bridges_are_a_list_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ringcast.yaml"
    path.write_text(
        """
nats_url: nats://one:4222, tls://two:4222
bridges:
  - kind: nats
    name: metrics
    mappings:
      - source: metrics.*
        channel: companies
        topics: ["companies/{json.companyId}"]
        type: metric_updated
        data: {value: "{json.value}"}
  - {kind: jetstream, name: orders, stream: ORDERS, create: true, mappings: [{source: ">", function: "a.b:c"}]}
  - {kind: redis, name: jobs, url: "redis://h", mappings: [{source: "job:*", channel: jobs, topics: [t]}]}
"""
    )
    settings = load(path, {}).settings
    assert [type(bridge) for bridge in settings.bridges] == [NatsSubjects, NatsStream, RedisPubSub]
    assert settings.bridges[0].mappings[0].data == {"value": "{json.value}"}


DOCUMENT = (ROOT / "docs" / "bridges.md").read_text()


@pytest.mark.parametrize("kind", [MappingSettings, NatsSubjects, NatsStream, RedisPubSub, PubSub])
def test_every_field_is_in_the_document(kind: type[BridgeSettings]) -> None:
    for name in set(kind.model_fields) - {"kind", "name", "mappings"}:
        assert re.search(rf"^\| .*`{name}`", DOCUMENT, re.MULTILINE), name


def test_the_documents_examples_are_settings(tmp_path: Path) -> None:
    examples = re.findall(r"^```yaml\n((?:\w.*?\n)+?.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert len(examples) == 4
    for example in examples:
        path = tmp_path / "example.yaml"
        path.write_text(example)
        assert load(path, {}).settings.bridges


def test_every_counter_is_in_the_document() -> None:
    for name in COUNTERS:
        assert f"`ringcast_bridge_{name}_total`" in DOCUMENT


def test_a_node_whose_function_is_not_there_does_not_start(tmp_path: Path) -> None:
    broken = CORE | {"mappings": [{"source": "a", "function": "no.such.module:f"}]}
    node = Node(tmp_path, nats_url="nats://127.0.0.1:1", bridges=json.dumps([broken]))
    with pytest.raises(AssertionError, match=r"bridge metrics: 'no\.such\.module:f' cannot be had"):
        node.start()


def test_a_node_without_bridges_says_nothing_of_any(shared_node: Node) -> None:
    assert b"bridge" not in shared_node.get("/ready")[2]
    assert b"ringcast_bridge" not in shared_node.get("/metrics")[2]


@pytest.mark.parametrize("module", ["server.serving", "bridges.running", "bridges.redis_pubsub", "bridges.pubsub_push"])
def test_a_client_library_is_loaded_for_bridges_that_need_it_alone(module: str) -> None:
    program = f"import {module}, sys; print([name for name in ('nats', 'google.auth', 'grpc') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class Wanting:
    """An application that brings a bridge of its own."""

    def bridges(self, sources: Sources) -> Any:
        return [] if sources.settings.nats_url is None else [sources.nats("wanted", [])]


class Board:
    """What of a node `Bridges` sees."""

    def __init__(self) -> None:
        self.hub: Any = None
        self.checks: dict[str, Any] = {}
        self.more_metrics: list[Any] = []
        self.more_stats: dict[str, Any] = {}


def test_an_application_brings_bridges_where_their_source_is_configured() -> None:
    node: Any = Board()
    applications = [Wanting(), object()]
    assert Bridges(Settings(), node, "n", applications).all == []
    assert (node.checks, node.more_metrics) == ({}, [])
    [bridge] = Bridges(Settings(nats_url="nats://h"), node, "n", applications).all
    assert bridge.name == "wanted"
    assert node.checks["bridge_wanted"]() == "not connected yet"
    assert node.more_stats["bridges"]()["wanted"]["kind"] == "nats"
    with pytest.raises(ValueError, match="one name"):
        Bridges(Settings(nats_url="nats://h"), node, "n", [Wanting(), Wanting()])
