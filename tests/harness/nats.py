"""A real NATS server on a free port in a scratch folder, started and stopped by its process id, and a publisher."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.js.api import ConsumerInfo

from tests.harness.process import free_port, wait_until

BINARY = Path(sys.executable).parent / "nats-server"

Result = TypeVar("Result")


class NatsServer:
    """One `nats-server`, with JetStream unless told otherwise. `lines` are added to its configuration."""

    def __init__(self, folder: Path, *, port: int | None = None, lines: str = "", jetstream: bool = True) -> None:
        self.port = port or free_port()
        self.folder = folder / f"nats-{self.port}"
        self.folder.mkdir(exist_ok=True)
        self.log_path = self.folder / "nats.log"
        self.configuration = self.folder / "nats.conf"
        store = f"jetstream {{ store_dir: '{self.folder}' }}" if jetstream else ""
        self.configuration.write_text(f"listen: 127.0.0.1:{self.port}\n{store}\n{lines}\n")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> NatsServer:
        """Start and wait until it is ready for clients."""
        before = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            command = [str(BINARY), "--config", str(self.configuration)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(lambda: self._ready(before), 10, f"NATS on port {self.port} (see {self.log_path})")
        return self

    def _ready(self, before: int) -> bool:
        assert self.process is not None
        text = self.log_path.read_text()
        assert self.process.poll() is None, text
        return "Server is ready" in text[before:]

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL and wait."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        """End it if it runs, also if it stands still."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.kill()

    def ask(self, work: Callable[[Client], Awaitable[Result]]) -> Result:
        """Do something with a connection of its own."""

        async def connected() -> Result:
            client = Client()
            await client.connect(self.url, allow_reconnect=False)
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run(connected())

    def publish(self, subject: str, *bodies: str, **headers: str) -> None:
        """Publish on core NATS. Underscores in header names become hyphens."""
        named: Any = {name.replace("_", "-"): value for name, value in headers.items()} or None

        async def work(client: Client) -> None:
            for body in bodies:
                await client.publish(subject, body.encode(), headers=named)
            await client.flush()

        self.ask(work)

    def store(self, subject: str, *bodies: str) -> None:
        """Publish to JetStream, and wait until all is stored."""

        async def work(client: Client) -> None:
            jetstream = client.jetstream()
            for body in bodies:
                await jetstream.publish(subject, body.encode())

        self.ask(work)

    def add_stream(self, name: str, *subjects: str) -> None:
        """Make a stream."""

        async def work(client: Client) -> None:
            await client.jetstream().add_stream(name=name, subjects=list(subjects))

        self.ask(work)

    def consumer(self, stream: str, durable: str = "ringcast") -> ConsumerInfo:
        """What the server knows of a consumer."""

        async def work(client: Client) -> ConsumerInfo:
            info: ConsumerInfo = await client.jetstream().consumer_info(stream, durable)
            return info

        return self.ask(work)
