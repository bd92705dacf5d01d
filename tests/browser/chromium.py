"""Headless Chromium, driven over its DevTools protocol with Tornado's WebSocket client.

`Chromium` is one browser process with a profile of its own; `Page` is a tab that runs scripts and gives back values.
Calls are synchronous: each runs the browser's own event loop until the answer is there. Knows nothing of event streams.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.harness.process import wait_until

# No sandbox (containers forbid it), nothing that talks to the outside, no timers slowed down in the background.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--remote-debugging-port=0",
)
ANSWER_SECONDS = 20
NETWORK_CHANGED = "net::ERR_NETWORK_CHANGED"


class Chromium:
    """A browser. Use as a context manager."""

    def __init__(self, profile: Path) -> None:
        program = shutil.which("chromium")
        assert program, "chromium is not installed: run make setup"
        self._loop = asyncio.new_event_loop()
        self._port_file = profile / "DevToolsActivePort"
        log = subprocess.DEVNULL
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, stdin=log, stdout=log, stderr=log, start_new_session=True)
        wait_until(self._started, 30, "Chromium")

    def _started(self) -> bool:
        assert self._process.poll() is None, f"Chromium ended with {self._process.returncode}"
        # Two lines, written at once but not in one piece: the port and the browser's own path.
        return self._port_file.exists() and len(self._port_file.read_text().splitlines()) == 2

    def page(self, url: str) -> Page:
        """A new tab that has loaded `url`."""
        port = self._port_file.read_text().splitlines()[0]
        request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            target = json.load(answer)
        page = Page(self._loop, target["webSocketDebuggerUrl"])
        page.open(url)
        return page

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._loop.close()


class ScriptError(AssertionError):
    """A script in a page threw."""


class Page:
    """A tab, closed by `close`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: str) -> None:
        self._loop = loop
        self._numbers = itertools.count(1)
        self._socket: WebSocketClientConnection = loop.run_until_complete(self._connect(address))
        self._broken_off: str | None = None

    async def _connect(self, address: str) -> WebSocketClientConnection:
        return await websocket_connect(address, max_message_size=64 * 1024 * 1024)

    def open(self, url: str) -> None:
        """Go to `url` and wait until it is loaded. A page may change what follows the ? or # by itself. What the
        browser breaks off because another test has made a network interface is loaded again.
        """
        there = "document.readyState === 'complete' && location.href.split(/[?#]/)[0]"
        self.call("Network.enable")
        failure: str | None = NETWORK_CHANGED
        while failure == NETWORK_CHANGED:
            self.call("Page.navigate", url="about:blank")
            self._broken_off = None
            failure = self.call("Page.navigate", url=url).get("errorText")
            if failure is None:
                wait_until(lambda: self.run(there) == re.split("[?#]", url)[0], ANSWER_SECONDS, url)
                failure = self._broken_off
        assert failure is None, f"{url}: {failure}"
        self.call("Network.disable")  # it tells of every event of every stream

    def run(self, script: str) -> Any:
        """The value of an expression, as JSON has it; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise ScriptError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = ANSWER_SECONDS) -> Any:
        """Poll until the expression is true; its value."""
        found: list[Any] = []

        def true() -> bool:
            found[:] = [self.run(script)]
            return bool(found[0])

        try:
            wait_until(true, seconds, script)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {found}") from None
        return found[0]

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One DevTools command and its answer."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), ANSWER_SECONDS))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = await self._socket.read_message()
            assert message is not None, "the tab is gone"
            answer = json.loads(message)
            if answer.get("params", {}).get("errorText") == NETWORK_CHANGED:
                self._broken_off = NETWORK_CHANGED
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result

    def close(self) -> None:
        """Close the tab, and every connection it holds."""
        self.call("Page.close")
        self._loop.run_until_complete(asyncio.wait_for(self._hang_up(), ANSWER_SECONDS))

    async def _hang_up(self) -> None:
        self._socket.close()
        while await self._socket.read_message() is not None:  # the loop only runs inside calls: let it go to its end
            pass
