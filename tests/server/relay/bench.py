"""What the relay tests stand on: a clock that is moved by hand, a catcher of deliveries, a loop for coroutines."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeVar

import uvloop

from server.event import Event
from server.relay.protocol import Entry, Key, Relay, Retention

T = TypeVar("T")
UNBOUNDED = Retention(events=0, bytes=0, seconds=0)
START = 1_790_000_000.0


class Clock:
    """Stands still until told otherwise."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Delivered:
    """Collects what a relay delivers."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.channels: list[str] = []

    def __call__(self, channel: str, entries: Sequence[Entry]) -> None:
        self.entries += entries
        self.channels += [channel] * len(entries)

    @property
    def data(self) -> list[str]:
        return [entry.event.data for entry in self.entries]


def never_turned(*turn: object) -> None:
    """For relays that nobody shares."""
    raise AssertionError(f"a log of this process alone has turned: {turn}")


def run(main: Coroutine[object, object, T]) -> T:
    """Run to the end on the loop that the server uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def event(data: str, event_id: str | None = None) -> Event:
    return Event(topics=("a", "b/c"), data=data, id=event_id)


def key(name: str, digest: bytes = b"1", scope: str = "shop") -> Key:
    return Key(scope, name, digest)


async def started(relay: Relay, channel: str = "main", retention: Retention = UNBOUNDED) -> Delivered:
    """Start the relay, open one channel; what is delivered from now on."""
    delivered = Delivered()
    await relay.start(delivered, never_turned)
    await relay.open(channel, retention, 0)
    return delivered


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Poll until `condition()` is true; what it gives may have to be awaited."""
    async with asyncio.timeout(seconds):
        while not (await found if inspect.isawaitable(found := condition()) else found):  # noqa: ASYNC110 - a thread's
            await asyncio.sleep(0.005)
