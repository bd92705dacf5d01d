"""All applications in one process: that is what runs unless others are chosen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.applications import APPLICATIONS
from config.settings import Settings
from tests.harness.process import Node
from tests.harness.redis import RedisServer
from tests.threats.conftest import finish


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One with everything, and lively."""
    folder = tmp_path_factory.mktemp("all")
    one = Node(folder, apps=",".join(APPLICATIONS), database=f"sqlite:{folder}/data.db").start()
    yield one
    finish(one)


def test_all_run_unless_others_are_chosen() -> None:
    assert Settings().apps == list(APPLICATIONS)
    assert Settings(apps="none").apps == []


@pytest.mark.parametrize("name", APPLICATIONS)
def test_each_has_a_page_that_needs_nobody_else(node: Node, name: str) -> None:
    status, headers, body = node.get(f"/apps/{name}/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert re.search(rb"<(script|link|img|iframe)[^>]+//", body) is None
    assert headers["content-security-policy"].startswith("default-src 'none'")


def test_they_are_named_and_well(node: Node) -> None:
    assert json.loads(node.get("/stats")[2])["applications"] == list(APPLICATIONS)
    checks = json.loads(node.get("/ready")[2])["checks"]
    assert {state for name, state in checks.items() if name != "draining"} == {"ok"}


def test_nodes_that_share_a_relay_and_no_database_are_warned(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path).start()
    one = Node(tmp_path, apps="jobs", relay=redis.url, database=f"sqlite:{tmp_path}/data.db", drain_seconds=0).start()
    try:
        assert "database_of_one_node" in one.log()
    finally:
        finish(one)
        redis.stop()
