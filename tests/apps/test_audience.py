"""What readers saw of an application is judged by what was stored: a result that is lost, doubled, swapped, made up or
another's is found.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from tests.apps.asking import ask
from tests.apps.audience import Audience
from tests.harness.process import Node
from tests.harness.stream import Block

STORED = [f"result {number}" for number in range(40)]
OTHERS = [f"result {number} of another" for number in range(5)]
Spoil = Callable[[list[str]], list[str]]


def told(node: Node, results: list[str], stored: list[str] = STORED) -> list[str]:
    """What is found if these results are told, where others may be stored."""
    topic, other = uuid.uuid4().hex, uuid.uuid4().hex
    path = "/channels/main/events?topic="

    def key_of(block: Block) -> str | None:
        return block.data if (block.data or "").startswith("result") else None

    with Audience([node.port], key_of, path + topic, path + other, seed=1) as audience:
        for where, texts in ((topic, results), (other, OTHERS)):
            for text in texts:
                assert ask(node, "POST", "/channels/main/events", {"topic": where, "data": text})[0] == 200
        return audience.judged(stored, OTHERS).problems()


def test_what_is_stored_and_told_is_no_problem(shared_node: Node) -> None:
    assert told(shared_node, STORED) == []


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda all_of: all_of[:7] + all_of[8:], "7 lost outside a gap"),
        (lambda all_of: all_of[:8] + all_of[7:], "7 came twice"),
        (lambda all_of: [*all_of[:7], all_of[8], all_of[7], *all_of[9:]], "7 came behind 8"),
        (lambda all_of: [*all_of[:7], "result of nobody", *all_of[7:]], "is a phantom"),
        (lambda all_of: [*all_of[:7], OTHERS[0], *all_of[7:]], "is foreign"),
    ],
    ids=["lost", "doubled", "swapped", "made up", "another's"],
)
def test_a_result_that_is_not_told_as_it_was_stored_is_found_by_every_reader(
    shared_node: Node, spoil: Spoil, found: str
) -> None:
    problems = told(shared_node, spoil(STORED))
    for name in ("reader 0", "reader 1", "slow", "returning"):
        assert any(text.startswith(f"{name}: ") and found in text for text in problems), (name, problems)


def test_what_is_stored_twice_is_found(shared_node: Node) -> None:
    problems = told(shared_node, STORED, [*STORED[:8], *STORED[7:]])
    assert "result 7 is acknowledged twice" in problems
