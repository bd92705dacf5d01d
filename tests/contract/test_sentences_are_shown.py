"""The contract and its tests name the same sentences."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.harness.process import ROOT

CONTRACT = ROOT / "docs" / "contract.md"
NUMBER = r"\d+\.\d+"


def sentences() -> dict[str, str]:
    """The numbered sentences of the contract."""
    return dict(re.findall(rf"^- \*\*({NUMBER})\*\* (.+)$", CONTRACT.read_text(), re.MULTILINE))


def shown() -> Iterator[tuple[str, list[str]]]:
    """Each test and the numbers that its docstring begins with."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and path != Path(__file__):
                found = re.match(rf"((?:{NUMBER}, )*{NUMBER}): ", ast.get_docstring(node) or "")
                yield f"{path.name}:{node.name}", found[1].split(", ") if found else []


def test_every_sentence_is_shown() -> None:
    """Each number is named by at least one test."""
    named = {number for _, numbers in shown() for number in numbers}
    assert sentences().keys() - named == set()


def test_every_test_shows_a_sentence() -> None:
    """Each test names sentences, and only ones that are there."""
    known = sentences().keys()
    assert [name for name, numbers in shown() if not numbers or set(numbers) - known] == []


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
