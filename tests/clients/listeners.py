"""Clients of other people, each made to listen on one address until it is stopped, and to come back when it is cut off.

A listener collects `events` as (type, data, id); what it knows of the format is the client's own knowledge, not ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import httpx_sse

from tests.harness.process import wait_until
from tests.wire.parser import StrictParser

NODE_FOLDER = Path(__file__).with_name("node")
RECONNECT_SECONDS = 0.1


class Listener(ABC):
    """Listens in a thread of its own from construction to the end of the `with` block."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.events: list[tuple[str, str, str]] = []
        self.connections = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def messages(self) -> list[tuple[str, str, str]]:
        """What was published, without the server's own events."""
        return [event for event in self.events if event[0] != "hello"]

    def wait_connections(self, count: int) -> None:
        wait_until(lambda: self.connections >= count, 20, f"connection {count} of {type(self).__name__}")

    def wait_messages(self, count: int) -> None:
        wait_until(lambda: len(self.messages) >= count, 20, f"message {count} of {type(self).__name__}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._interrupt()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._listen_once()
            self._stopping.wait(RECONNECT_SECONDS)

    @abstractmethod
    def _listen_once(self) -> None:
        """One connection, from its request to its end, whatever ended it."""

    @abstractmethod
    def _interrupt(self) -> None:
        """End the connection that is open."""

    def _take(self, kind: str, data: str, event_id: str) -> None:
        self.connections += kind == "hello"
        self.events.append((kind, data, event_id))


class ProcessListener(Listener):
    """A client that is a program."""

    process: subprocess.Popen[bytes] | None = None

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        if self._stopping.is_set():
            self.process.terminate()
        return self.process

    def _interrupt(self) -> None:
        if self.process is not None:
            self.process.terminate()


class Curl(ProcessListener):
    """curl, its output read by the strict parser; the cursor goes back by hand."""

    last_event_id = ""

    def _listen_once(self) -> None:
        cursor = ("-H", f"Last-Event-ID: {self.last_event_id}") if self.last_event_id else ()
        with self._start("curl", "-sN", *cursor, self.url) as process:
            assert process.stdout is not None
            parser = StrictParser(self.last_event_id)
            while piece := os.read(process.stdout.fileno(), 65536):
                for event in parser.feed(piece):
                    self._take(event.type, event.data, event.last_event_id)
            self.last_event_id = parser.last_event_id


class HttpxSse(Listener):
    """The Python package httpx-sse. It leaves reconnecting to its user, and takes an id-only block for an event."""

    last_event_id = ""
    _client: httpx.Client | None = None

    def _listen_once(self) -> None:
        headers = {"Last-Event-ID": self.last_event_id} if self.last_event_id else {}
        with (
            contextlib.suppress(httpx.TransportError),
            httpx.Client(timeout=httpx.Timeout(10, read=0.5)) as client,
            httpx_sse.connect_sse(client, "GET", self.url, headers=headers) as source,
        ):
            source.response.raise_for_status()
            for event in source.iter_sse():
                self.last_event_id = event.id or self.last_event_id
                if event.data:
                    self._take(event.event, event.data, event.id)
                if self._stopping.is_set():
                    return

    def _interrupt(self) -> None:
        """Its read ends by its own time limit, which is longer than the heartbeat and short."""


class NodeEventSource(ProcessListener):
    """The npm package `eventsource`. It reconnects by itself."""

    def __init__(self, url: str, *types: str) -> None:
        self.types = ("hello", *types)
        self.states: list[tuple[str, Any]] = []
        assert (NODE_FOLDER / "node_modules" / "eventsource").is_dir(), "tests/clients/node: run npm ci there"
        super().__init__(url)

    def _listen_once(self) -> None:
        script = str(NODE_FOLDER / "eventsource_client.cjs")
        with self._start("node", script, self.url, *self.types) as process:
            assert process.stdout is not None
            for line in process.stdout:
                report = json.loads(line)
                if "state" in report:
                    self.states.append((report["state"], report.get("code")))
                else:
                    self._take(report["type"], report["data"], report["id"])
        self._stopping.set()


LISTENERS: tuple[type[Listener], ...] = (Curl, HttpxSse, NodeEventSource)
