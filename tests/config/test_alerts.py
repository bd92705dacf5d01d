"""The alerting rules: valid, over metrics that a node really has, each explained, and each fires when it should.

`promtool` (Debian's package `prometheus`) judges the rules. Each case is an hour of two nodes, `bad` and `good`; only
the first may be complained of.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from server.endings import ENDINGS
from tests.conftest import StartNode
from tests.harness.process import ROOT, Node

FOLDER = ROOT / "config" / "prometheus"
RULES = FOLDER / "ringcast.rules.yml"
PAGE = ROOT / "docs" / "operations.md"
RUNBOOK = "file:///opt/ringcast/docs/operations.md#"
MINUTES = 60
STEPS = MINUTES * 4  # of 15 s


class Case(NamedTuple):
    """A series as the bad and as the good node has it, in promtool's notation: start + step x times."""

    metric: str
    bad: str
    good: str
    more: tuple[str, ...] = ()  # other series, of both


HELD = ('ringcast_connections{channel="main"} 5000',)
SWEPT = ('ringcast_delivery_seconds_bucket{le="5.0"} 0+10', 'ringcast_delivery_seconds_bucket{le="+Inf"} 0+10')
CASES = {
    "RingcastNodeDown": Case("up", "0", "1"),
    "RingcastNodeRestarts": Case("ringcast_door_accepted_total", "reset", "1+1"),
    "RingcastLoopLags": Case("ringcast_loop_lag_seconds", "0.4", "0.002"),
    "RingcastDeliveriesSlow": Case('ringcast_delivery_seconds_bucket{le="1.0"}', "0+1", "0+10", SWEPT),
    "RingcastNearlyFull": Case("ringcast_connections_maximum", "6000", "50000", HELD),
    "RingcastFull": Case('ringcast_connections_refused_total{code="overloaded"}', "1+1", "1"),
    "RingcastOutOfDescriptors": Case("ringcast_door_accept_errors_total", "0+1", "0"),
    "RingcastNoRoomForRequests": Case("ringcast_http_refused_total", "0+1", "0"),
    "RingcastReopeningStorm": Case("ringcast_connections_opened_total", "0+6000", "0+50", HELD),
    "RingcastSlowReaders": Case("ringcast_gaps_total", "0+20", "0", HELD),
    "RingcastLogTurned": Case("ringcast_relay_turns_total", "0+1", "3"),
    "RingcastEntriesDamaged": Case("ringcast_relay_damaged_total", "0+1", "2"),
    "RingcastRelayRefuses": Case("ringcast_relay_up", "0", "1"),
    "RingcastRelayReconnects": Case("ringcast_relay_tail_connections_total", "1+4", "1", ("ringcast_relay_up 1",)),
    "RingcastRelayLags": Case("ringcast_relay_lag_seconds", "0.8", "0.001"),
    "RingcastAppendsWait": Case("ringcast_relay_waiting_events", "20000", "3"),
    "RingcastPublishesRefused": Case('ringcast_publishes_refused_total{code="unavailable"}', "1+1", "1"),
    "RingcastPublishesUncertain": Case('ringcast_publishes_refused_total{code="uncertain"}', "1+1", "1"),
    "RingcastPublishersNotAllowed": Case('ringcast_publishes_refused_total{code="forbidden"}', "1+10", "1+1"),
    "RingcastBridgeDown": Case('ringcast_bridge_up{bridge="orders"}', "0", "1"),
    "RingcastBridgeLetsGo": Case(
        'ringcast_bridge_unmappable_total{bridge="orders"}',
        "1+1",
        "1",
        ('ringcast_bridge_dropped_total{bridge="orders"} 1',),
    ),
    "RingcastOutboxWaits": Case("ringcast_outbox_oldest_seconds", "100", "0.1"),
}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def names() -> list[str]:
    return [rule["alert"] for rule in rules()]


def rule_named(name: str) -> dict[str, Any]:
    [found] = [rule for rule in rules() if rule["alert"] == name]
    return found


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- what the rules are over


def exported(node: Node) -> set[str]:
    """The names of all series that a node has or can have."""
    status, _, body = node.get("/metrics")
    assert status == 200
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", body.decode(), re.MULTILINE):
        found |= {f"{name}_bucket", f"{name}_count", f"{name}_sum"} if kind == "histogram" else {name}
    return found


def test_every_metric_of_the_rules_is_one_of_a_node(node: StartNode, tmp_path: Path) -> None:
    """Of one with applications and a bridge."""
    one = node(apps="companies,monitors", database=f"sqlite:{tmp_path}/data.db", nats_url="nats://127.0.0.1:1")
    used = {name for rule in rules() for name in re.findall(r"\bringcast_\w+", rule["expr"])}
    assert used
    assert used - exported(one) == set()


def test_every_code_of_the_rules_is_one_that_a_node_gives() -> None:
    groups = [group for rule in rules() for group in re.findall(r'code=~?"([^"]+)"', rule["expr"])]
    assert groups
    assert {code for group in groups for code in group.split("|")} <= ENDINGS.keys() | {"internal"}


# --- what is said of them


@pytest.mark.parametrize("name", names())
def test_an_alert_says_how_urgent_it_is_and_where_it_is_explained(name: str) -> None:
    rule = rule_named(name)
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["runbook_url"] == RUNBOOK + name.lower()
    assert "{{ $labels.instance }}" in rule["annotations"]["summary"]


def sections() -> Iterator[tuple[str, str]]:
    """The sections of the page that are named like alerts."""
    for part in re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        name, _, text = part.partition("\n")
        if name.startswith("Ringcast"):
            yield name, text


def test_the_page_explains_these_alerts_and_no_others() -> None:
    assert [name for name, _ in sections()] == names()


@pytest.mark.parametrize(("name", "text"), sections())
def test_an_explanation_says_what_it_means_who_is_hurt_and_what_to_do(name: str, text: str) -> None:
    labels = re.findall(r"^- \*\*(.+?)\*\*", text, re.MULTILINE)
    assert labels == ["Means", "Hurts", "Do"], name


# --- when they fire


def series(metric: str, instance: str, values: str) -> dict[str, str]:
    """One line of a node's history. `reset`: a process that begins anew every ten minutes."""
    name, _, labels = metric.partition("{")
    inner = f"{labels[:-1]}, " if labels else ""
    if values == "reset":
        values = " ".join(["1+1x39"] * (STEPS // 40))
    else:
        values = f"{values}{'' if '+' in values else '+0'}x{STEPS}"
    return {"series": f'{name}{{{inner}job="ringcast", instance="{instance}"}}', "values": values}


def history(case: Case) -> list[dict[str, str]]:
    lines = [series(case.metric, "bad", case.bad), series(case.metric, "good", case.good)]
    for metric, values in (one.rsplit(" ", 1) for one in case.more):
        lines += [series(metric, instance, values) for instance in ("bad", "good")]
    return lines


def test_there_is_a_case_for_each() -> None:
    assert list(CASES) == names()


def assert_fires(names: Sequence[str], lines: list[dict[str, str]], folder: Path) -> None:
    """That at the end of these histories these alerts complain of the bad node, and no others of anybody."""
    firing = {
        "expr": 'sum by (alertname, instance) (ALERTS{alertstate="firing"})',
        "eval_time": f"{MINUTES - 1}m",
        "exp_samples": [{"labels": f'{{alertname="{name}", instance="bad"}}', "value": 1} for name in names],
    }
    case = {"interval": "15s", "input_series": lines, "promql_expr_test": [firing]}
    path = folder / "case.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [case]}))
    promtool("test", "rules", path)


@pytest.mark.parametrize("name", CASES)
def test_it_fires_for_the_node_that_is_bad_and_not_for_the_good_one(name: str, tmp_path: Path) -> None:
    assert_fires([name], history(CASES[name]), tmp_path)


@pytest.mark.parametrize(
    ("connections", "names"),
    [("1+10", ["RingcastRelayReconnects", "RingcastRelayRefuses"]), ("7", ["RingcastRelayRefuses"])],
)
def test_of_a_node_that_is_not_ready_it_is_told_whether_redis_ends_its_connections(
    connections: str, names: list[str], tmp_path: Path
) -> None:
    """Its answers are too large for Redis, or Redis is away."""
    lines = [
        *history(Case("ringcast_relay_up", "0", "1")),
        *history(Case("ringcast_relay_tail_connections_total", connections, "1")),
    ]
    assert_fires(names, lines, tmp_path)


def test_prometheus_takes_the_rules_and_the_example_with_all_that_it_offers(tmp_path: Path) -> None:
    promtool("check", "rules", RULES)
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    example = tmp_path / "prometheus.yml"
    promtool("check", "config", example)
    token = tmp_path / "ringcast.token"
    token.write_text("a token")
    text = re.sub(r"^  #(?=- |  \w|    - )", "  ", example.read_text(), flags=re.MULTILINE)
    example.write_text(text.replace("/etc/prometheus/ringcast.token", str(token)))
    assert len(yaml.safe_load(example.read_text())["scrape_configs"]) == 2
    promtool("check", "config", example)
