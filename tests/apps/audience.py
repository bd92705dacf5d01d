"""Everybody who reads what an application tells, and the history of that for the checker of faults (checker.py).

An application numbers nothing, so an event is known by a key made of its data, and whoever uses this says afterwards
what is acknowledged: the keys of what was stored, or taken, in their order. The place there is an event's number. What
was seen and is not among them has no outcome, which makes it a phantom; what got no answer is `doubtful`.

Owns who reads (two that stay, a slow one, one that hangs up by chance and returns, and one such of another topic) and
the making of the history. Must know no application and no fault, and judges nothing.
Cost: a thread for each reader; linear in the events.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from tests.faults.checker import History, Seen
from tests.faults.vital_signs import left_behind, streams
from tests.faults.witnesses import ELSEWHERE, TOPIC, Publisher, Subscriber
from tests.harness.process import wait_until
from tests.harness.stream import Block, Stream

SLOW_SECONDS = 0.2  # between two blocks: applications tell less than the tests of the engine publish
STAYS_BLOCKS = 12  # at most, who hangs up by chance
AGAIN_SECONDS = 0.02

Key = Hashable
KeyOf = Callable[[Block], Key | None]


class Reader(Subscriber):
    """One of an audience. Until all is told its log has numbers that are the audience's own."""

    stays_blocks = STAYS_BLOCKS
    type = ""  # no event has this one: which are asked about is said by their key

    def __init__(self, audience: Audience, name: str, first: int, **kind: Any) -> None:
        self.audience = audience
        self.path, self.path_elsewhere = audience.paths[TOPIC], audience.paths.get(ELSEWHERE, "")
        self.over = False
        ports = audience.ports[first:] + audience.ports[:first]
        super().__init__(ports, audience.seen, name, audience.telling, **kind, **audience.headers)

    def _done(self) -> bool:
        return self.over or (self.last is not None and any(entry.number == self.last for entry in reversed(self.log)))

    def _next(self, stream: Stream) -> Block | None:
        """None where there is no stream; 204 says that there will be none."""
        if stream.status != 200:
            self.over = self.over or stream.status == 204
            time.sleep(AGAIN_SECONDS)
            return None
        return super()._next(stream)

    def _take(self, block: Block) -> None:
        self.over = self.over or block.type == "finished"
        key = None if block.id is None or block.data is None else self.audience.key_of(block)
        if key is None:
            super()._take(block)
            return
        self.log.append(Seen(self.audience.number_of(key), block.id or "", time.monotonic(), self.connections))
        self.cursor = block.id


class Audience:
    """Reads at `ports`, from when it is made until all is told. `key_of` gives an event's key, None for what is not
    asked about. Streams that end by themselves are read to that end."""

    def __init__(
        self, ports: Sequence[int], key_of: KeyOf, path: str, elsewhere: str = "", *, seed: int, **headers: str
    ) -> None:
        self.ports, self.key_of, self.headers = list(ports), key_of, headers
        self.paths = {TOPIC: path} | ({ELSEWHERE: elsewhere} if elsewhere else {})
        self.held = {port: streams(port) for port in ports}
        self.seen = History()
        self.telling = Publisher(ports, self.seen)  # it publishes nothing: readers ask it whether all is told
        self._numbers: dict[Key, int] = {}
        self._turn = threading.Lock()
        chance = [random.Random(seed), random.Random(seed + 1)]
        self.readers = [Reader(self, f"reader {number}", number % len(ports)) for number in range(2)]
        self.readers.append(Reader(self, "slow", 0, pause=SLOW_SECONDS))
        self.readers.append(Reader(self, "returning", len(ports) - 1, chance=chance[0]))
        if elsewhere:
            self.readers.append(Reader(self, "returning elsewhere", 0, chance=chance[1], elsewhere=True))
        for reader in self.readers:
            assert reader.opened.wait(20), f"a stream: {reader.broken}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Where a test has failed nobody reads on."""
        self.telling.leaving.set()
        for reader in self.readers:
            reader.over = True

    def number_of(self, key: Key) -> int:
        with self._turn:
            return self._numbers.setdefault(key, len(self._numbers))

    def wait_for(self, more: int, seconds: float = 30) -> None:
        """Until the first reader has seen so many further events."""
        log = self.readers[0].log
        goal = len(log) + more
        wait_until(lambda: len(log) >= goal, seconds, f"{more} events seen")

    def judged(
        self, told: Sequence[Key], elsewhere: Sequence[Key] = (), doubtful: Sequence[Key] = (), *, ends: bool = False
    ) -> History:
        """All is told. Wait until everybody has the last of it, or the end where the streams end; the history of it."""
        if not ends:
            self.telling.last = self.number_of(told[-1]) if told else None
            self.telling.last_elsewhere = self.number_of(elsewhere[-1]) if elsewhere else None
        self.telling.leaving.set()
        for reader in self.readers:
            reader.over = reader.over or not (ends or reader.last is not None)  # nothing is due to it
            reader.finish()
        history = History(left_behind=[text for port in self.ports for text in left_behind(port, self.held[port])])
        numbers: dict[int, int] = {}
        for author, (topic, keys) in enumerate(((TOPIC, told), (ELSEWHERE, elsewhere), ("", doubtful))):
            for key in keys:
                if numbers.setdefault(self.number_of(key), number := len(numbers)) != number:
                    history.left_behind.append(f"{key} is acknowledged twice")
                    continue
                history.outcomes[number] = "ok" if topic else "unknown"
                history.authors[number] = author
                if topic:
                    history.topics[number] = topic
        for name, log in self._logs().items():
            history.topic_of[name] = ELSEWHERE if name == "returning elsewhere" else TOPIC
            where = history.seen if name in self.seen.seen else history.others
            where[name] = [_renumbered(entry, numbers) for entry in log]
        return history

    def _logs(self) -> Mapping[str, list[Seen]]:
        return self.seen.seen | self.seen.others


def _renumbered(entry: Seen, numbers: dict[int, int]) -> Seen:
    """What is acknowledged nowhere gets a number of its own."""
    return entry if entry.gap else replace(entry, number=numbers.setdefault(entry.number, len(numbers)))
