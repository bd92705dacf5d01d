"""A hub without a relay: it notes what is published, once for each key, and fails as it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from server.event import Event, InvalidEvent
from server.relay.protocol import Appended, Key, RelayUnavailable, RelayUncertain

TOO_LARGE = 10_000


class RecordingHub:
    """`data` is what is in the logs, in order. `away` refuses everything; `refuse` and `forget` count down: refused, or
    appended without an answer."""

    def __init__(self) -> None:
        self.data: list[str] = []
        self.calls: list[list[str]] = []
        self.keys: dict[tuple[str, str, str], bytes] = {}
        self.away = False
        self.refuse = self.forget = 0
        self.under_way = self.most_under_way = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def open(self, name: str) -> Any:
        if name == "full":
            raise KeyError(name)
        return name.lower()

    def publish(self, channel: Any, events: Sequence[Event], key: Key) -> Awaitable[Appended]:
        for event in events:
            if len(event.data) > TOO_LARGE:
                raise InvalidEvent("data", "is too large", too_large=True)
            if event.data == "defect":
                raise ZeroDivisionError
        return self._publish(channel, events, key)

    async def _publish(self, channel: str, events: Sequence[Event], key: Key) -> Appended:
        self.calls.append([event.data for event in events])
        if self.away:  # looked at in the turn in which it was asked for, as relays do: all of a turn or none
            raise RelayUnavailable("the log is away")
        self.under_way += len(events)
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self.gate.wait()
        await asyncio.sleep(0)
        self.under_way -= len(events)
        if self.refuse:
            self.refuse -= 1
            raise RelayUnavailable("the log is away")
        name = (channel, key.scope, key.key)
        replayed = name in self.keys
        if not replayed:
            self.keys[name] = key.digest
            self.data += [f"{channel} {event.data}" for event in events]
        assert self.keys[name] == key.digest
        if self.forget:
            self.forget -= 1
            raise RelayUncertain("no answer")
        return Appended(tuple("x" for _ in events), replayed)
