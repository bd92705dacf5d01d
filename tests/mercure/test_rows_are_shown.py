"""README.md and the tests name the same rows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
OWN_NAME = Path(__file__).name
ROW = r"(?:[RSTHPAU]\d+|1\.\d+)"


def table() -> dict[str, str]:
    """What README.md says of each row."""
    return dict(re.findall(rf"^\| ({ROW}) \| [^|]+ \| ([^|]+) \|$", (FOLDER / "README.md").read_text(), re.MULTILINE))


def shown() -> Iterator[tuple[str, str, list[str]]]:
    """Each test: its file, its name, the rows that its docstring begins with."""
    for path in sorted(FOLDER.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and path.name != OWN_NAME:
                found = re.match(rf"((?:{ROW}, )*{ROW}): ", ast.get_docstring(node) or "")
                yield path.stem, node.name, found[1].split(", ") if found else []


def test_every_test_names_its_rows() -> None:
    """Each docstring begins with rows that are in the table."""
    known = table().keys()
    assert [name for _, name, rows in shown() if not rows or set(rows) - known] == []


def test_the_table_names_the_files_that_show_a_row() -> None:
    """Each file that a row names has a test of that row, and the other way round; without a file there is a reason."""
    tests = list(shown())
    for row, text in table().items():
        named = set(re.findall(r"\btest_[a-z_]+", text))
        assert named == {file for file, _, rows in tests if row in rows}, row
        assert named or len(text) > 20, row


def test_the_table_has_every_row() -> None:
    """The numbers of each section run without a hole."""
    ends = {"R": 8, "S": 11, "T": 8, "H": 11, "P": 15, "A": 17, "U": 8}
    rows = {f"{letter}{number}" for letter, last in ends.items() for number in range(1, last + 1)}
    assert table().keys() == rows | {"1.7", "1.8", "1.10", "1.11", "1.12"}
