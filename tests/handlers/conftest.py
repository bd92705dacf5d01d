"""The HTTP surface over a node in this process, as `server/serving.py` puts it together, without the front door."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.ioloop import IOLoop
from tornado.platform.asyncio import AsyncIOLoop
from tornado.web import Application

from config.settings import Settings
from handlers.application import Parts, make_application
from tests.handlers.lodge import Lodge


def pytest_collection_modifyitems(config: pytest.Config) -> None:
    """A busy machine may take longer over a test than the five seconds that the plugin gives it."""
    config.option.async_test_timeout = 60.0


@pytest.fixture
def io_loop() -> Iterator[IOLoop]:
    """The plugin's loop, made in the way that Tornado has come to want."""
    loop = AsyncIOLoop(make_current=False)
    asyncio.set_event_loop(loop.asyncio_loop)
    yield loop
    asyncio.set_event_loop(None)
    loop.close(all_fds=True)


@pytest.fixture
def own_settings() -> dict[str, Any]:
    """Settings that differ from the defaults; a test replaces them by a parameter of this name."""
    return {}


@pytest.fixture
def lodge(io_loop: IOLoop, own_settings: dict[str, Any]) -> Iterator[Lodge]:
    """The node and everything that answers for it."""

    async def build() -> Lodge:
        one = Lodge(Settings(**own_settings))
        await one.node.start(["main"])
        return one

    built: Lodge = io_loop.run_sync(build)
    yield built
    io_loop.run_sync(built.node.stop)


@pytest.fixture
def app(lodge: Lodge) -> Application:
    """What the plugin serves."""
    parts = Parts(lodge.surface, lodge.vitals, lodge.connections)
    return make_application(parts, lodge.revoker, lodge.node.opener, console=lodge.settings.console)
