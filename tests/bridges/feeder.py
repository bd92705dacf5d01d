"""A publisher to JetStream that writes down what it was told, for the checker of faults (tests/faults/checker.py).

Its events are numbers in order, each under its number as `Nats-Msg-Id`, given again until JetStream has it. So what is
missing, doubled or out of order later was done by the bridge.
"""

from __future__ import annotations

import asyncio
import threading
import time

from nats.aio.client import Client
from nats.errors import Error

from tests.faults.checker import History


class Feeder:
    """Publishes numbers on a subject until `finish`, which gives the last. To be used where a Publisher of
    tests/faults/witnesses.py is."""

    def __init__(self, url: str, subject: str, history: History, *, every: float = 0.002) -> None:
        self.url, self.subject, self.history, self.every = url, subject, history, every
        self.next = 0
        self.last: int | None = None
        self.leaving = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> Feeder:
        self.thread.start()
        return self

    async def _run(self) -> None:
        end = time.monotonic() + 100
        while not self.leaving.is_set():
            assert time.monotonic() < end
            client = Client()
            try:
                await client.connect(self.url, allow_reconnect=False, error_cb=_ignore)
                while not self.leaving.is_set():
                    await self._publish(client)
                    await asyncio.sleep(self.every)
            except (Error, OSError, TimeoutError):
                await asyncio.sleep(0.05)
            finally:
                await client.close()

    async def _publish(self, client: Client) -> None:
        self.history.outcomes.setdefault(self.next, "unknown")
        headers = {"Nats-Msg-Id": str(self.next)}
        await client.jetstream(timeout=1).publish(self.subject, str(self.next).encode(), headers=headers)
        self.history.outcomes[self.next] = "ok"
        self.next += 1

    def finish(self) -> int:
        """Publish no more; the last number."""
        self.leaving.set()
        self.thread.join(10)
        assert not self.thread.is_alive()
        if self.history.outcomes.get(self.next) == "unknown":
            del self.history.outcomes[self.next]
        self.last = self.next - 1
        return self.last


async def _ignore(error: Exception) -> None:
    """The library would print it."""
