"""One browser for all pages of applications, and tabs for each test; and what is checked by a worker of monitors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps.monitoring import Ground
from tests.apps.tabs import Tabs
from tests.browser.chromium import Chromium
from tests.conftest import StartNode


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("apps-chromium")) as browser:
        yield browser


@pytest.fixture
def tabs(chromium: Chromium) -> Iterator[Tabs]:
    """`tabs.open(url)`. All are closed when the test ends, and none may have complained."""
    opened = Tabs(chromium)
    yield opened
    opened.close()


@pytest.fixture
def ground(node: StartNode, tmp_path: Path) -> Iterator[Ground]:
    """For one test."""
    with Ground(node, tmp_path) as made:
        yield made
