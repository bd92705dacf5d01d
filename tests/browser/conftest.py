"""One browser for all tests of the folder, and a tab for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.browser.chromium import Chromium, Page
from tests.browser.listener import Source
from tests.harness.process import Node

OpenPage = Callable[[Node], Page]
OpenSource = Callable[..., Source]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def page(chromium: Chromium) -> Iterator[OpenPage]:
    """A factory of tabs on a server's own origin: `page(node)`. All are closed when the test ends."""
    opened: list[Page] = []

    def open_page(node: Node) -> Page:
        opened.append(chromium.page(f"{node.url}/health"))
        return opened[-1]

    yield open_page
    for tab in opened:
        tab.close()


@pytest.fixture
def source(page: OpenPage) -> OpenSource:
    """A factory of EventSources, each in a tab of its own on the server's origin: `source(node, path)`."""

    def open_source(node: Node, path: str, *types: str) -> Source:
        return Source(page(node), path, *types)

    return open_source
