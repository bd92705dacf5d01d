"""The console's parser reads every stream of the corpus as the standard says, in the browser that runs it."""

from __future__ import annotations

import pytest

from tests.browser.reading import check_reading
from tests.console.conftest import OpenConsole
from tests.harness.process import Node


@pytest.mark.parametrize("step", [1, 2, 3, 1_000_000])
def test_the_corpus_reads_as_the_standard_says(machine_node: Node, console: OpenConsole, step: int) -> None:
    check_reading(console(machine_node).page, "/console/eventstream.js", step)
