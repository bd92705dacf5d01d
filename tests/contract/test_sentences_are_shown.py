"""The contract and its tests name the same sentences."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.harness.process import ROOT

CONTRACT = ROOT / "docs" / "contract.md"
NUMBER = r"\d+\.\d+"

# Two nodes over one Redis under a fault: tests/faults shows these sentences as they stand.
FAULTS = {
    "test_many_nodes.py": {
        "test_an_event_published_on_one_node_reaches_the_readers_of_the_other": ["3.1"],
        "test_a_cursor_of_one_node_is_good_on_the_other_at_once": ["3.2", "3.5"],
        "test_a_client_whose_node_was_killed_goes_on_at_another_without_a_gap": ["3.2"],
        "test_while_redis_is_away_readers_stay_publishes_are_refused_and_then_all_goes_on": ["9.8"],
        "test_a_revocation_on_one_node_ends_streams_on_all_within_five_seconds": ["7.3", "7.4", "7.5", "7.6"],
        "test_a_revoked_topic_is_open_again_when_the_revocation_is_over": ["7.6"],
    },
    "test_redis_faults.py": {
        "test_a_redis_that_is_killed_and_kept_everything_costs_nothing": ["1.9", "9.8"],
        "test_a_redis_that_comes_back_empty_is_one_declared_gap_for_each": ["1.9", "3.11"],
        "test_a_redis_that_lost_its_tail_says_so_by_a_gap": ["1.9", "3.11"],
        "test_a_failover_to_a_replica_that_lagged_is_declared_and_nobody_stays_behind": ["3.11"],
        "test_a_partition_that_nothing_tells_of_is_noticed_and_heals_without_loss": ["9.8", "10.1"],
        "test_a_revocation_reaches_a_node_that_was_cut_off_as_soon_as_it_is_back": ["7.5"],
        "test_a_redis_that_stands_still_stops_no_heartbeat": ["9.8", "10.1"],
        "test_nodes_that_are_killed_one_after_the_other_lose_nobody": ["3.2", "4.2"],
        "test_a_rolling_restart_under_load_loses_nothing": ["4.2", "9.4"],
        "test_a_foreign_entry_in_the_stream_is_a_declared_gap_and_the_tail_goes_on": ["3.4"],
    },
}


def sentences() -> dict[str, str]:
    """The numbered sentences of the contract."""
    return dict(re.findall(rf"^- \*\*({NUMBER})\*\* (.+)$", CONTRACT.read_text(), re.MULTILINE))


def named_tests(path: Path) -> Iterator[ast.FunctionDef]:
    """The test functions of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node


def shown() -> Iterator[tuple[str, list[str]]]:
    """Each test of this folder and the numbers that its docstring begins with, and the tests of faults."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in named_tests(path) if path != Path(__file__) else ():
            found = re.match(rf"((?:{NUMBER}, )*{NUMBER}): ", ast.get_docstring(node) or "")
            yield f"{path.name}:{node.name}", found[1].split(", ") if found else []
    for name, tests in FAULTS.items():
        for test, numbers in tests.items():
            yield f"{name}:{test}", numbers


def test_every_sentence_is_shown() -> None:
    """Each number is named by at least one test."""
    named = {number for _, numbers in shown() for number in numbers}
    assert sentences().keys() - named == set()


def test_every_test_shows_a_sentence() -> None:
    """Each test names sentences, and only ones that are there."""
    known = sentences().keys()
    assert [name for name, numbers in shown() if not numbers or set(numbers) - known] == []


def test_every_fault_that_shows_a_sentence_is_tried() -> None:
    """Each test that is named here is there."""
    for name, tests in FAULTS.items():
        there = {node.name for node in named_tests(ROOT / "tests" / "faults" / name)}
        assert tests.keys() - there == set()


def test_every_sentence_is_numbered() -> None:
    """Under its headings the contract holds single sentences, numbered without a hole."""
    section, expected = 0, 0
    for line in CONTRACT.read_text().split("\n## ", 1)[1].split("\n")[1:]:
        if line.startswith("## "):
            section, expected = section + 1, 0
        elif line:
            expected += 1
            assert line.startswith(f"- **{section + 1}.{expected}** "), line
            assert line.endswith("."), line
            assert not re.search(r"[.!?] [A-Z]", line.split("** ", 1)[1]), line
