"""Many thousands of readers of thousands of topics: they come, are sent away, and return with their cursors.

Owns a herd that comes a few at a time, for a door keeps no more than some thousands waiting, and stays away once its
streams have ended until it is told to come; and what its process says of the ends that it was told of, and of what it
has seen. `python -m tests.faults.multitude PATH COUNT` is that process; two hold more than one may have files.

The event with the number n is for the readers of topic n modulo the count of topics.
"""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tests.faults.herd import Address, Commands, Herd, HerdProcess, Reader

KNOCKING = 200  # at a time
READERS_A_TOPIC = 5
END = re.compile(rb"^retry: (\d+)\nevent: draining\n", re.MULTILINE)
LEFT_SECONDS = 60


class Multitude(Herd):
    """`count` readers of a path, in which `{topic}` is a number. `ended` is when each stream did that had begun, since
    everybody was told to come.
    """

    def __init__(self, path: str, count: int) -> None:
        super().__init__(path, count)
        self.topics = count // READERS_A_TOPIC
        for place, reader in enumerate(self.readers):
            reader.path = path.replace("{topic}", str(place % self.topics))
        self.outside: deque[Reader] = deque()
        self.ended: list[float] = []

    def come(self, addresses: Sequence[Address]) -> None:
        """All will, each to the next of the addresses."""
        self.staying_away = False
        self.ended.clear()
        for number, reader in enumerate(self.readers):
            reader.address = addresses[number % len(addresses)]
        self.outside.extend(self.readers)

    def step(self, seconds: float = 0.02) -> None:
        while self.outside and len(self.by_descriptor) - self.back < KNOCKING:
            self._come(self.outside.popleft())
        super().step(seconds)

    def _gone(self, reader: Reader, why: str | None = None) -> None:
        was_there = reader.back
        super()._gone(reader, why)
        if was_there:
            self.ended.append(time.monotonic())
            self.again.pop()


class Requests(Commands):
    """What standard input asks of a multitude."""

    herd: Multitude

    def leave(self) -> dict[str, Any]:
        """Answers when nobody is there any more: when each stream ended, and what it was told of its return."""
        self.herd.wait(lambda: not self.herd.back, LEFT_SECONDS, "all have been sent away")
        retries = [int(found[-1]) for reader in self.herd.readers if (found := END.findall(reader.streams[-1]))]
        return {"ended": self.herd.ended, "retries": retries}

    def wait(self, number: str) -> dict[str, Any]:
        """Answers when each has the event of its topic that is the first from that number on."""
        readers, topics, first = self.herd.readers, self.herd.topics, int(number)
        events = [b"\ndata: %d\n" % (first + (place - first) % topics) for place in range(len(readers))]
        waiting = set(range(len(readers)))

        def all_have_it() -> bool:
            waiting.difference_update([place for place in waiting if events[place] in readers[place].streams[-1]])
            return not waiting

        self.herd.wait(all_have_it, 60, f"the events from {number} on")
        return {}

    def tell(self) -> dict[str, Any]:
        """Who has seen anything but all the events of its topic up to its last one, each once and in order."""
        wrong = []
        for place, reader in enumerate(self.herd.readers):
            ids, numbers = zip(*reader.events(), strict=True)
            whole = list(range(place % self.herd.topics, numbers[-1] + 1, self.herd.topics))
            ordered = all(before < after for before, after in pairwise(ids))
            told = any(b"\nevent: gap\n" in stream for stream in reader.streams)
            if list(numbers) != whole or not ordered or told:
                wrong.append(f"{place} saw {numbers}, gap: {told}, ids in order: {ordered}")
        return {"wrong": wrong}


class MultitudeProcess(HerdProcess):
    """A multitude in a process of its own."""

    module = "tests.faults.multitude"


if __name__ == "__main__":
    with Multitude(sys.argv[1], int(sys.argv[2])) as the_multitude:
        Requests(the_multitude).serve()
