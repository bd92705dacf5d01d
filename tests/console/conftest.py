"""A browser for the folder's tests, and consoles in it. A console that made the browser complain fails its test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.browser.chromium import Chromium
from tests.console.view import View
from tests.harness.process import Node


class OpenConsole(Protocol):
    """`console(node, "notes")` opens the console of a server on a channel."""

    def __call__(self, node: Node, channel: str = "host") -> View: ...


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("console-chromium")) as browser:
        yield browser


@pytest.fixture(scope="session")
def machine_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One server with the machine's figures on `host`. Publish to a channel of your own."""
    folder: Path = tmp_path_factory.mktemp("machine-node")
    server = Node(folder, host_source=True, host_source_seconds=0.2).start()
    yield server
    server.kill()


@pytest.fixture
def console(chromium: Chromium) -> Iterator[OpenConsole]:
    opened: list[View] = []

    def open_console(node: Node, channel: str = "host") -> View:
        opened.append(View(chromium.page("about:blank"), f"{node.url}/?channel={channel}"))
        return opened[-1]

    yield open_console
    complaints = [view.complaints for view in opened]
    for view in opened:
        view.page.close()
    assert complaints == [[] for _ in opened]
